"""Writes the card of a selected dataset, and the section in the card of a model fine-tuned on one."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, ModelCard

from ..files import without_local_folders
from ..manifest.commands import select_command
from ..selecting.audit import audit_in_words
from .metadata import (
    choice_in_words,
    drop_another_license,
    hub_id,
    license_metadata,
    method_of,
    ranker_facts,
    share,
    size_category,
    source_facts,
)
from .sections import Markdown, amend, code, escape, read_card, render, save_card

_MOST_GROUPS, _MOST_REASONS = 30, 10
_TAGS = ["scar", "data-selection"]


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
    Write the card of a selected dataset, or update the section between the markers `scar-hf:selection` in an existing card.

    Args:
        manifest (`Mapping`): the manifest of the selection, from `ScarRanking.manifest` or `manifest.json`.
        repo_id (`str`, *optional*): id that the dataset will have on the Hub.
        counts (`Mapping`, *optional*):
            For each group of rows, such as a source, the number of rows before, if known, and after selection.
        reasons (`Mapping`, *optional*):
            How often each reason left rows without a score (`"skipped"`) or made curation leave them out (`"dropped"`).
        consistency ([`~scar_hf.style.StyleChange`] or `dict`, *optional*):
            From `scar_hf.style.compare(before, after)`, or its `to_dict()`.
        pictures (`Sequence[tuple(str, str)]`, *optional*): path in the repository and caption of each.
        license (`str`, *optional*): licence of the rows, a Hub id or a name; defaults to that of `source`.
        language (`str` or `Sequence[str]`, *optional*): ISO 639 codes; default to those of `source`.
        source (`Mapping`, *optional*): metadata of the source's card that the selection inherits.
        data_files (`Sequence[str]`, *optional*): the files of rows in the repository, which become the split "train".
        card (`str` or `Path`, *optional*): text or path of an existing card. Everything outside the section stays as it is.

    Returns:
        [`~huggingface_hub.DatasetCard`]: with metadata that the Hub accepts.

    Raises:
        `ValueError`: if the manifest does not describe a selection, or the card's metadata cannot be read.

    Example:

    ```python
    >>> ranking = scar_rank(ds)
    >>> selection_card(ranking.manifest(0.1), repo_id="me/dolly-scar-10pct", license="cc-by-sa-3.0").save("README.md")
    ```
    """
    if not {"selection", "ranker", "data"} <= set(manifest) or "kept" not in manifest["selection"]:
        raise ValueError(
            "The manifest does not describe a selection: expected one from `scar-hf select` or ScarRanking.manifest(k)."
        )
    manifest = without_local_folders(manifest)
    found = read_card(card, DatasetCard)
    licence = license_metadata(license) or {k: v for k, v in (source or {}).items() if k.startswith("license")}
    if not license and found.data.get("license"):
        licence = {}
    selection, source_id = manifest["selection"], hub_id(manifest)
    metadata = {
        **licence,
        "language": [language] if isinstance(language, str) else language or (source or {}).get("language"),
        "source_datasets": [source_id] if source_id else None,
        "size_categories": [size_category(selection["kept"])],
        "task_categories": (source or {}).get("task_categories") or ["text-generation"],
        "tags": _TAGS,
    }
    max_length = manifest["settings"].get("max_length")
    load = f'from datasets import load_dataset\n\nds = load_dataset({json.dumps(repo_id)}, split="train")'
    rendered = render(
        DatasetCard,
        "selection",
        metadata,
        title=repo_id.split("/")[-1] if repo_id else f"A selection of {manifest['data']}",
        rows=_count(selection["rows"]),
        kept=_count(selection["kept"]),
        share=share(selection["kept"], selection["rows"]),
        also=choice_in_words(manifest),
        method=method_of(manifest),
        sft_format=bool(manifest.get("options", {}).get("sft_format")),
        facts=[*source_facts(manifest), *_selection_facts(manifest)],
        outcomes=_outcomes(selection, reasons or {}),
        truncated=_count(selection["truncated"]) if selection.get("truncated") else None,
        max_length=_count(max_length) if max_length else "the maximum number of",
        groups=_groups(counts or {}, selection["kept"]),
        style=None if consistency is None else _style(consistency),
        pictures=[(Markdown(path), caption) for path, caption in pictures],
        licence=_licence(licence or vars(found.data)),
        source=source_id,
        source_id=Markdown(source_id or ""),
        load=code(load, "python") if repo_id else None,
        reproduce=code(_commands(manifest), "bash"),
        formatting_func=bool(manifest.get("settings", {}).get("formatting_func")),
    )
    if license:
        drop_another_license(found, licence)
    if data_files:
        _point_to(found, data_files)
    # Arguments replace the card's metadata; inherited values do not.
    owned = {"size_categories", *(licence if license else ()), *(("language",) if language else ())}
    return amend(found, rendered, owned)


def amend_model_card(path: str | Path, manifest: Mapping[str, Any]) -> None:
    """
    Add the section "Data selection" to a model's card, and the dataset to its metadata.

    Args:
        path (`str` or `Path`): the model's README.md; created if it does not exist.
        manifest (`Mapping`): the manifest of the selection that the model was trained on.

    Raises:
        `ValueError`: if the card's metadata cannot be read.
    """
    path, manifest = Path(path), without_local_folders(manifest)
    counts = manifest["selection"]
    rows, too_long = counts["rows"], manifest.get("too_long") or 0
    trained = counts.get("kept", rows) - too_long
    source_id = hub_id(manifest)
    facts = [
        ("Data", str(manifest["data"])),
        ("Rows before selection", _count(rows)),
        ("Rows trained on", Markdown(f"{_count(trained)} ({share(trained, rows)})")),
        *([("Rows selected whose prompts fill the length of training", _count(too_long))] if too_long else []),
        ("Rows without a score", _count(counts.get("skipped", 0))),
        ("Rows left out by curation", _count(counts.get("dropped", 0))),
        *_selection_facts(manifest),
    ]
    metadata = {"tags": _TAGS, "datasets": [source_id] if source_id else None}
    words = {"also": choice_in_words(manifest), "method": method_of(manifest)}
    rendered = render(ModelCard, "model", metadata, facts=facts, **words)
    save_card(amend(read_card(path, ModelCard), rendered), path)


def _selection_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    k, least = (manifest.get("options", {}).get(name) for name in ("k", "threshold"))
    threshold = manifest["selection"].get("threshold")
    amount = "all rows" if k is None else f"{k:,} rows" if isinstance(k, int) else f"{k:.4g} of the rows"
    prefiltered = audit_in_words(manifest["selection"].get("prefilter"))
    return [
        *ranker_facts(manifest),
        ("k", amount) if least is None else ("Threshold", Markdown(f"{least:.6g}")),
        *([("Prefilter", prefiltered)] if prefiltered else []),
        ("Lowest score kept", Markdown("-" if threshold is None else f"{threshold:.4f}")),
        ("scar-hf", str(manifest["versions"]["scar-hf"])),
    ]


def _outcomes(counts: Mapping[str, Any], reasons: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, str]]:
    rows, kept = counts["rows"], counts["kept"]
    skipped, dropped = counts.get("skipped", 0), counts.get("dropped", 0)
    lines = [("before selection", rows), ("kept", kept), ("not chosen", max(0, rows - kept - skipped - dropped))]
    lines += _reasons("left out by curation", dropped, reasons.get("dropped", {}))
    lines += _reasons("no score", skipped, reasons.get("skipped", {}))
    return [(words, _count(count), share(count, rows)) for words, count in lines]


def _reasons(words: str, count: int, reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return table rows with the most frequent reasons, and one for the others."""
    first = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:_MOST_REASONS]
    rest = count - sum(number for _, number in first)
    lines: list[tuple[str, int]] = [(Markdown(f"{words}: {escape(reason)}"), number) for reason, number in first]
    return [*lines, (f"{words}: other reasons" if first else words, rest)] if rest > 0 else lines


def _groups(counts: Mapping[str, tuple[int | None, int]], kept: int) -> list[tuple[str, ...]]:
    names = sorted(counts, key=lambda name: (-(counts[name][0] or counts[name][1]), name))
    shown: list[tuple[str, int | None, int]] = [(Markdown(escape(name, 80)), *counts[name]) for name in names[:_MOST_GROUPS]]
    if len(names) > _MOST_GROUPS:
        others = [counts[name] for name in names[_MOST_GROUPS:]]
        before = None if any(n is None for n, _ in others) else sum(n or 0 for n, _ in others)
        shown.append((f"{len(others):,} others", before, sum(n for _, n in others)))
    dash = Markdown("-")
    return [
        (name, *((dash, _count(n), dash) if before is None else (_count(before), _count(n), share(n, before))), share(n, kept))
        for name, before, n in shown
    ]


def _style(consistency: Any) -> dict[str, Any]:
    values = consistency if isinstance(consistency, Mapping) else consistency.to_dict()
    # A measure without spread carries no information.
    shown = [m for m in values["measures"].values() if m["spread_before"] or m["spread_after"]]
    names = [name for name in ("random", "same_lengths") if any(m.get(name) for m in shown)]
    return {
        "rows_before": _count(values["rows_before"]),
        "rows_after": _count(values["rows_after"]),
        "baselines": names,
        "draws": values.get("draws"),
        "measures": [
            (
                m["title"],
                *(_number(m[name]) for name in ("mean_before", "mean_after", "spread_before", "spread_after")),
                _percent(m["spread_change"]),
                _span(m["low"], m["high"]),
                *(_draws(m.get(name)) for name in names),
            )
            for m in shown
        ],
        "notes": values.get("notes", ()),
    }


def _number(value: float | None) -> Markdown:
    return Markdown("-" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}")


def _percent(value: float | None) -> Markdown:
    return Markdown("-" if value is None else f"{100 * value:+.0f} %")


def _span(low: float | None, high: float | None) -> Markdown:
    return Markdown("-" if low is None else f"{_percent(low)} to {_percent(high)}")


def _draws(found: Mapping[str, float] | None) -> Markdown:
    return Markdown("-" if not found else f"{_percent(found['change'])} ({_span(found['low'], found['high'])})")


def _count(number: int) -> Markdown:
    return Markdown(f"{number:,}")


def _licence(metadata: Mapping[str, Any]) -> str:
    name = metadata.get("license_name") or metadata.get("license") or ""
    return ", ".join(map(str, name)) if isinstance(name, list) else str(name)


def _commands(manifest: Mapping[str, Any]) -> str:
    version = str(manifest["versions"]["scar-hf"])
    # Readers copy this into a shell, and a manifest may come from anybody.
    pinned = f"scar-hf=={version}" if re.fullmatch(r"[\w.+!-]+", version, re.ASCII) else "scar-hf"
    again = select_command({**manifest, "data": hub_id(manifest) or manifest["data"]}, "selected.parquet")
    return f"pip install {pinned}\n{again}"


def _point_to(card: DatasetCard, data_files: Sequence[str]) -> None:
    """Name the data files in the configuration "default" without changing other configurations."""
    path = data_files[0] if len(data_files) == 1 else list(data_files)
    ours = {"config_name": "default", "data_files": [{"split": "train", "path": path}]}
    others = [found for found in card.data.get("configs", []) if found.get("config_name", "default") != "default"]
    card.data["configs"] = [ours, *others]
    # The old entry describes the rows that these files replace.
    infos = card.data.get("dataset_info", [])
    left = [info for info in ([infos] if isinstance(infos, dict) else infos) if info.get("config_name", "default") != "default"]
    card.data["dataset_info"] = left or None
