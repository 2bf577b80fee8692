"""The card of a dataset that was selected: where it comes from, how it was chosen, what was left out and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard

from ..reproducing import select_command
from .manifest_facts import choice_facts, hub_id, ranker_facts, share, source_facts, without_local_folders
from .metadata import license_metadata, size_category
from .sections import PAPER, amend, code, escape, pictures_of, read_card, table

_SECTION = "selection"
_MOST_GROUPS, _MOST_REASONS = 30, 10


def selection_card(
    manifest: Mapping[str, Any],
    *,
    repo_id: str | None = None,
    counts: Mapping[str, tuple[int | None, int]] | None = None,
    reasons: Mapping[str, Mapping[str, int]] | None = None,
    consistency: Any = None,
    pictures: Sequence[tuple[str, str]] = (),
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    source: Mapping[str, Any] | None = None,
    data_files: Sequence[str] = (),
    card: str | Path | None = None,
) -> DatasetCard:
    """
    Write the card of a selected dataset, or the part of an existing one between the markers `scar-hf:selection`.

    Args:
        manifest (`Mapping`): of the selection, from `ScarRanking.manifest` or `manifest.json`.
        repo_id (`str`, *optional*): where the dataset will be on the Hub.
        counts (`Mapping`, *optional*): for each group of rows, such as a source, how many came in, if known, and stayed.
        reasons (`Mapping`, *optional*):
            Why rows have no score (`"skipped"`), or were left out by curation (`"dropped"`), with counts.
        consistency ([`~scar_hf.style.StyleChange`] or `dict`, *optional*):
            From `scar_hf.style.compare(before, after)`, or its `to_dict()`.
        pictures (`Sequence[tuple(str, str)]`, *optional*): path in the repository and caption of each.
        license (`str`, *optional*): of the rows, an id of the Hub or a name; by default that of `source`.
        language (`str` or `Sequence[str]`, *optional*): ISO 639 codes; by default those of `source`.
        source (`Mapping`, *optional*): metadata of the source's card that is carried over.
        data_files (`Sequence[str]`, *optional*): the files of rows in the repository, which become the split "train".
        card (`str` or `Path`, *optional*): text or path of the card that there is; all of it stays but what is ours.

    Returns:
        [`~huggingface_hub.DatasetCard`]: with metadata that the Hub takes.

    Raises:
        `ValueError`: if the manifest is none of a selection, or the card's metadata cannot be read.

    Example:

    ```python
    >>> ranking = scar_rank(ds)
    >>> selection_card(ranking.manifest(0.1), repo_id="me/dolly-scar-10pct", license="cc-by-sa-3.0").save("README.md")
    ```
    """
    if not {"selection", "ranker", "data"} <= set(manifest) or "kept" not in manifest["selection"]:
        raise ValueError(
            "The manifest is not one of a selection: expected what `scar-hf select` or ScarRanking.manifest(k) gives."
        )
    manifest = without_local_folders(manifest)
    found = read_card(card, DatasetCard)
    licence = license_metadata(license) or {k: v for k, v in (source or {}).items() if k.startswith("license")}
    if not license and found.data.get("license"):
        licence = {}
    parts = [
        _what(manifest),
        _left_out(manifest["selection"], reasons or {}, manifest["settings"].get("max_length")),
        _groups(counts or {}, manifest["selection"]["kept"]),
        _style(consistency),
        f"### In pictures\n\n{pictures_of(pictures)}" if pictures else "",
        _licence(licence or vars(found.data), hub_id(manifest)),
        _use(manifest, repo_id),
    ]
    # What the user says now holds; what is carried over yields to what the card says already.
    owned = {"size_categories", *(licence if license else ()), *(("language",) if language else ())}
    metadata = {
        **licence,
        "language": [language] if isinstance(language, str) else language or (source or {}).get("language"),
        "source_datasets": [hub_id(manifest)] if hub_id(manifest) else None,
        "size_categories": [size_category(manifest["selection"]["kept"])],
        "task_categories": (source or {}).get("task_categories") or ["text-generation"],
        "tags": ["scar", "data-selection"],
    }
    if license and "license_name" not in licence:
        found.data.pop("license_name")
        found.data.pop("license_link")
    if data_files:
        _point_to(found, data_files)
    title = escape(repo_id.split("/")[-1] if repo_id else f"A selection of {manifest['data']}")
    return amend(found, _SECTION, "\n\n".join(filter(None, parts)), metadata, owned, title)


def _what(manifest: Mapping[str, Any]) -> str:
    counts, k = manifest["selection"], manifest.get("options", {}).get("k")
    threshold = counts.get("threshold")
    facts = [
        *source_facts(manifest),
        *ranker_facts(manifest),
        ("k", "all rows" if k is None else f"{k:,} rows" if isinstance(k, int) else f"{k:.4g} of the rows"),
        *choice_facts(manifest),
        ("Lowest score kept", "-" if threshold is None else f"{threshold:.4f}"),
        ("scar-hf", escape(manifest["versions"]["scar-hf"])),
    ]
    return (
        "## How these rows were selected\n\n"
        f"{counts['kept']:,} of {counts['rows']:,} rows ({share(counts['kept'], counts['rows'])}) were kept: those whose "
        f"responses a [SCAR]({PAPER}) ranker scored highest for consistency of style. They are unchanged and in their order, "
        "with their scores in the column `scar_score`.\n\n" + table(("", ""), facts, texts=2)
    )


def _left_out(counts: Mapping[str, Any], reasons: Mapping[str, Mapping[str, int]], max_length: int | None) -> str:
    rows, kept = counts["rows"], counts["kept"]
    skipped, dropped = counts.get("skipped", 0), counts.get("dropped", 0)
    lines = [("came in", rows), ("kept", kept), ("scored lower", max(0, rows - kept - skipped - dropped))]
    lines += _reasons("left out by curation", dropped, reasons.get("dropped", {}))
    lines += _reasons("no score", skipped, reasons.get("skipped", {}))
    text = "### What was left out\n\n" + table(("", "rows", "share"), [(n, f"{c:,}", share(c, rows)) for n, c in lines])
    if counts.get("truncated"):
        text += f"\n\nOf {counts['truncated']:,} rows the ranker read only the first {max_length or '-'} tokens of a text."
    return text


def _reasons(words: str, count: int, reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Rows of a table: the most frequent reasons, and what is left."""
    first = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]
    rest = count - sum(number for _, number in first)
    lines = [(f"{words}: {escape(reason)}", number) for reason, number in first]
    return [*lines, (f"{words}: other reasons" if first else words, rest)] if rest > 0 else lines


def _groups(counts: Mapping[str, tuple[int | None, int]], kept: int) -> str:
    if not counts:
        return ""
    names = sorted(counts, key=lambda name: (-(counts[name][0] or counts[name][1]), name))
    shown = {escape(name, 80): counts[name] for name in names[:_MOST_GROUPS]}
    if len(names) > _MOST_GROUPS:
        others = [counts[name] for name in names[_MOST_GROUPS:]]
        came = None if any(n is None for n, _ in others) else sum(n or 0 for n, _ in others)
        shown[f"{len(others):,} others"] = (came, sum(n for _, n in others))
    rows = [
        (name, "-" if came is None else f"{came:,}", f"{n:,}", "-" if came is None else share(n, came), share(n, kept))
        for name, (came, n) in shown.items()
    ]
    return "### Rows by group\n\n" + table(("", "came in", "kept", "share kept", "share of the selection"), rows)


def _style(consistency: Any) -> str:
    if consistency is None:
        return ""
    values = consistency if isinstance(consistency, Mapping) else consistency.to_dict()

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:+.0f} %"

    rows = [
        (
            escape(m["title"]),
            number(m["mean_before"]),
            number(m["mean_after"]),
            number(m["spread_before"]),
            number(m["spread_after"]),
            percent(m["spread_change"]),
            "-" if m["low"] is None else f"{percent(m['low'])} to {percent(m['high'])}",
        )
        for m in values["measures"].values()
        if m["spread_before"] or m["spread_after"]  # a measure that is the same in all rows says nothing
    ]
    head = ("measure", "mean before", "after", "spread before", "after", "change of spread", "95 % interval")
    notes = "".join(f"\n\n{escape(note, 500)}" for note in values.get("notes", ()))
    return (
        f"### Consistency of style\n\nOver {values['rows_before']:,} rows before and {values['rows_after']:,} after; the "
        "spread is the standard deviation, and the interval is of a bootstrap over rows.\n\n" + table(head, rows) + notes
    )


def _licence(licence: Mapping[str, Any], source: str | None) -> str:
    name = licence.get("license_name") or licence.get("license")
    if not name:
        return (
            "### Licence\n\nNo licence of the source was found, and selecting rows gives none: ask those who made it what it "
            "allows."
        )
    names = escape(", ".join(name) if isinstance(name, list) else name)
    of = f"of [{escape(source)}](https://huggingface.co/datasets/{source})" if source else "of the source"
    return f"### Licence\n\nThe rows keep the licence {of}: {names}."


def _use(manifest: Mapping[str, Any], repo_id: str | None) -> str:
    version = manifest["versions"]["scar-hf"]
    text = "### How to use and to reproduce\n\n"
    if repo_id:
        load = f'from datasets import load_dataset\n\nds = load_dataset("{repo_id}", split="train")'
        text += code(load, "python") + "\n\n"
    again = select_command({**manifest, "data": hub_id(manifest) or manifest["data"]}, "selected.parquet")
    text += code(f"pip install scar-hf=={version}\n{again}", "bash")
    if manifest.get("settings", {}).get("formatting_func"):
        text += "\n\nThe rows were read by a function of the user's, `formatting_func=`, which the command line cannot name."
    return text + (
        "\n\n`manifest.json` has the hashes of the data and of this output, the ranker's, every setting and the versions; "
        "`scar-hf verify` checks them."
    )


def _point_to(card: DatasetCard, data_files: Sequence[str]) -> None:
    """Name the files of rows of the configuration "default", and leave the other configurations as they are."""
    path = data_files[0] if len(data_files) == 1 else list(data_files)
    ours = {"config_name": "default", "data_files": [{"split": "train", "path": path}]}
    others = [found for found in card.data.get("configs", []) if found.get("config_name", "default") != "default"]
    card.data["configs"] = [ours, *others]
    # It described the rows that these replace.
    infos = card.data.get("dataset_info", [])
    left = [info for info in ([infos] if isinstance(infos, dict) else infos) if info.get("config_name", "default") != "default"]
    card.data["dataset_info"] = left or None
