"""Gathers the files of a Hub repository for a selection or ranker, including card and figures."""

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import RepoCard

from ..files import (
    atomic_write,
    file_named,
    open_shards,
    read_dataset,
    suffix_of,
    without_local_folders,
    write_dataset,
)
from ..manifest.parsing import parse_manifest
from ..manifest.sidecars import find_manifest, hash_file, sealed
from ..modeling import ScarConfig
from ..report.figures import draw, score_histogram
from ..rows.counting import count_values
from ..rows.pairs import PairReader
from ..rows.source import RowSource
from ..scoring.checkpoints import load_ranker, resolve_checkpoint
from ..scoring.scorer import SCORE_COLUMN
from ..selecting.explanations import DECISION_COLUMN
from .metadata import count_reasons, license_metadata, source_metadata
from .push import PushReport, push
from .ranker_card import ranker_card
from .sections import save_card
from .selection_card import selection_card

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..modeling import ScarModel
    from ..selection import Selection

CARD, MANIFEST = "README.md", "manifest.json"
# Names that begin with an underscore are ignored when a folder is read as data.
IMAGES = "_images"
# Required sections of a manifest.
_PARTS = {"data", "inputs", "ranker", "settings", "options", "selection", "output"}
_ROWS_FOLDER = "data"
_ONE_FILE = "train-00000-of-00001.parquet"
_CAPTIONS = {
    "scores": "The scores, and the lowest score kept",
    "spreads": "Change of the spread of each measure of style, with 95 % intervals: blue is narrower, orange wider, grey "
    "unclear; the grey bands and diamonds are draws of the same number of rows, at random and with the same lengths",
    "calibration": "The share of the reference data that a threshold keeps",
}
# Files to upload; others in the folder, such as checkpoints and optimizer states, are not.
_RANKER_FILES = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|tokenizer(_config)?\.json|special_tokens_map\.json|"
    r"added_tokens\.json|vocab\.(txt|json)|merges\.txt|(spiece|sentencepiece\.bpe|tokenizer)\.model|chat_template\.jinja|"
    r"metrics\.json|(LICENSE|NOTICE)(\.txt|\.md)?"
)


def selection_contents(
    output: str | Path, folder: str | Path, *, data: str | Path | None = None, token: str | None = None, **card: Any
) -> dict[str, Path]:
    """
    Gather the files of a repository for a selection: its rows as Parquet, `manifest.json`, the lists of rows left out, the
    card and the figures.

    Args:
        output (`str` or `Path`): the output of `scar-hf select`, a file or a folder.
        folder (`str` or `Path`): folder for created files.
        data (`str` or `Path`, *optional*): the source of the selection, if it was moved.
        token (`str`, *optional*): token to read the card of a private source on the Hub.
        card: see [`selection_card`]; by default, the output's README.md is updated.

    Returns:
        `dict[str, Path]`: the files by their paths in the repository.

    Raises:
        `ValueError`: if there is no manifest, or the rows differ from those in the manifest.
    """
    output, folder = Path(output), Path(folder)
    path, manifest = selection_manifest(output)
    named = [file["name"] for file in manifest["output"]["files"]]
    for name, entry in zip(named, manifest["output"]["files"], strict=True):
        place = file_named(path.parent, name)
        if not place.is_file() or hash_file(place) != entry["sha256"]:
            raise ValueError(
                f"{place} is missing or has changed since it was written: run the selection again before you push it."
            )
    if all(suffix_of(name) == ".parquet" for name in named):
        rows = {f"{_ROWS_FOLDER}/{name}": path.parent / name for name in named}
    else:
        rows = _as_parquet(read_dataset(output), folder)
    contents, reasons = dict(rows), {}
    manifest["lists"] = hashes = {}
    for key, name in (("skipped_rows", "skipped.jsonl"), ("dropped_rows", "dropped.jsonl")):
        if manifest.get(key):
            contents[name] = file_named(path.parent, manifest[key])
            manifest[key] = name
            hashes[name] = hash_file(contents[name])
            lines = contents[name].read_text(encoding="utf-8").splitlines()
            reasons[name.removesuffix(".jsonl")] = count_reasons(json.loads(line)["reason"] for line in lines)
    scores = np.array(list(_column(output, SCORE_COLUMN)), dtype=np.float32)
    own_card = file_named(output, CARD) if output.is_dir() else None
    card = {"card": own_card, "source": source_metadata(manifest, data, token), "reasons": reasons} | card
    return contents | _described(manifest, rows, folder, scores, _kept_of(output, scores, manifest), card)


def ranking_contents(selection: "Selection", folder: str | Path, **card: Any) -> dict[str, Path]:
    """
    Gather the files of a repository for a selection in memory, as [`selection_contents`] does.

    Args:
        selection ([`~scar_hf.selection.Selection`]): from `ScarRanking.select`.
        folder (`str` or `Path`): folder for created files.
        card: see [`selection_card`].

    Returns:
        `dict[str, Path]`: the files by their paths in the repository.
    """
    folder, manifest = Path(folder), selection.manifest
    rows = _as_parquet(selection.dataset, folder)
    source = source_metadata(manifest) or license_metadata(selection.all_rows.info.license)
    reasons = {"skipped": selection.scored.skipped, "dropped": selection.curated}
    counts = {name: count_reasons(found.values()) for name, found in reasons.items() if found or name == "skipped"}
    scores = selection.scored.scores
    return rows | _described(manifest, rows, folder, scores, selection.indices, {"source": source, "reasons": counts} | card)


def ranker_contents(ranker: str | Path, folder: str | Path, **card: Any) -> dict[str, Path]:
    """
    Gather the files of a repository for a ranker: weights, tokenizer, config, the code that loads the ranker without
    scar-hf, metrics, card and calibration plot.

    Args:
        ranker (`str` or `Path`): a folder, or the bundled ranker's name.
        folder (`str` or `Path`): folder for created files.
        card: see [`ranker_card`].

    Returns:
        `dict[str, Path]`: the files by their paths in the repository.

    Raises:
        `ValueError`: if it is not a ranker, or its weights are damaged.
    """
    source, folder = Path(resolve_checkpoint(str(ranker))), Path(folder)
    if not source.is_dir():
        raise ValueError(f"No ranker {str(ranker)!r}: expected 'scar-ranker' or a folder with a ranker.")
    calibration = load_ranker(str(source)).config.calibration
    config = ScarConfig.from_pretrained(source)
    config.training = without_local_folders(config.training)
    config.save_pretrained(folder)
    names = sorted(file.name for file in source.iterdir() if _RANKER_FILES.fullmatch(file.name))
    contents = {name: path for name in names if (path := file_named(source, name)).is_file()}
    contents |= {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    pictures = draw_pictures(folder, {"calibration": calibration["quantiles"]}) if calibration else []
    contents |= {name: folder / name for name, _ in pictures}
    written = ranker_card(ranker, **({"pictures": pictures} | card))
    return contents | {CARD: _save(written, folder)}


def push_model(
    model: "ScarModel",
    repo_id: str,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    commit_message: str | None = None,
    card: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> PushReport:
    """
    Upload a ranker in one commit: weights, config, the code that loads it without scar-hf, card and calibration plot.
    [`ScarModel.push_to_hub`] calls this if scar-hf is installed.

    Args:
        model ([`ScarModel`]): the ranker.
        repo_id (`str`): its id on the Hub, such as `"me/my-ranker"`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            Uploaded with the ranker, which cannot be used without one.
        commit_message (`str`, *optional*): the commit message.
        card (`Mapping`, *optional*): arguments of [`~scar_hf.hub_cards.ranker_card`], such as `license`.
        kwargs: see [`~scar_hf.hub_cards.push`]: `private`, `revision`, `token`, `dry_run`, `overwrite`.

    Returns:
        [`PushReport`].

    Raises:
        `ValueError`, `OSError`: see [`~scar_hf.hub_cards.push`].

    Example:

    ```python
    >>> model.push_to_hub("me/my-ranker", tokenizer=tokenizer, private=True)
    ```
    """

    def build(repo_id: str, found: str | None, folder: Path) -> Mapping[str, Path]:
        saved, made = folder / "model", folder / "made"
        model.save_pretrained(saved)
        if tokenizer is not None:
            tokenizer.save_pretrained(saved)
        return ranker_contents(saved, made, **{"repo_id": repo_id, "card": found, **(card or {})})

    return push(build, repo_id, "model", message=commit_message, **kwargs)


def selection_manifest(output: str | Path) -> tuple[Path, dict[str, Any]]:
    """
    Find and read the manifest of a selection.

    Args:
        output (`str` or `Path`): the output of `scar-hf select`.

    Returns:
        `tuple(Path, dict)`: its path and its content.

    Raises:
        `ValueError`: if there is none, or it does not describe a selection.
    """
    path = find_manifest(output)
    if path is None:
        raise ValueError(
            f"{output} has no manifest: expected an output of `scar-hf select`, with {MANIFEST} in it or next to it."
        )
    manifest = parse_manifest(path)
    missing = sorted(_PARTS - set(manifest))
    if missing or not {"files", "rows"} <= set(manifest["output"]):
        raise ValueError(
            f"{path} is not a manifest of scar-hf, or is damaged: it has no {', '.join(missing) or '`output.files`'}."
        )
    if "kept" in manifest["selection"] and manifest["output"]["files"]:
        return path, manifest
    raise ValueError(f"{path} describes scores, not a selection: expected an output of `scar-hf select`.")


def count_groups(column: str, output: str | Path, data: str | Path | None = None) -> dict[str, tuple[int | None, int]]:
    """
    Count rows by the values of a column.

    Args:
        column (`str`): the column.
        output (`str` or `Path`): the selection.
        data (`str` or `Path`, *optional*): its source, if available.

    Returns:
        `dict[str, tuple(int or None, int)]`: rows before (`None` without `data`) and after selection, by value.

    Raises:
        `ValueError`: if there is no such column.
    """
    kept = count_values(_column(output, column))
    came = None if data is None else count_values(_column(data, column))
    return {name: (None if came is None else came[name], kept[name]) for name in kept | (came or {})}


def draw_pictures(folder: Path, numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """
    Draw the figures of a card, the same as in a report, if matplotlib is installed.

    Args:
        folder (`Path`): the output folder; figures are written to a subfolder.
        numbers (`Mapping`): see [`~scar_hf.report.figures.draw`].

    Returns:
        `list[tuple(str, str)]`: path in `folder` and caption of each figure.
    """
    if find_spec("matplotlib") is None:
        return []
    pictures = []
    for name, image in draw(numbers, "png").items():
        path = f"{IMAGES}/{name}.png"
        with atomic_write(folder / path) as out:
            out.write(image)
        pictures.append((path, _CAPTIONS[name]))
    return pictures


def _kept_of(output: Path, scores: np.ndarray, manifest: Mapping[str, Any]) -> np.ndarray | None:
    """Return the numbers of the kept rows of an output; `None` if it holds only kept rows."""
    selection = manifest["selection"]
    if selection.get("kept") in (None, len(scores)) or selection.get("threshold") is None:
        return None
    if manifest.get("options", {}).get("explain"):
        return np.flatnonzero([decision == "kept" for decision in _column(output, DECISION_COLUMN)])
    return np.flatnonzero(scores >= np.float32(selection["threshold"]))


def _described(
    manifest: dict[str, Any],
    rows: Mapping[str, Path],
    folder: Path,
    scores: np.ndarray,
    kept: np.ndarray | None,
    card: Mapping[str, Any],
) -> dict[str, Path]:
    """Create the manifest, the figures and the card."""
    files = [{"name": name, "sha256": hash_file(path)} for name, path in rows.items()]
    manifest = without_local_folders(manifest)
    count = manifest["output"]["rows"] if "output" in manifest else manifest["selection"]["kept"]
    manifest["output"] = {"name": _ROWS_FOLDER, "rows": count, "files": files}
    with atomic_write(folder / MANIFEST) as out:
        out.write(sealed(manifest))
    consistency = card.get("consistency")
    numbers: dict[str, Any] = {"scores": score_histogram(scores, kept)}
    if consistency is not None:
        numbers["style"] = consistency if isinstance(consistency, Mapping) else consistency.to_dict()
    pictures = draw_pictures(folder, numbers)
    options: dict[str, Any] = {"pictures": pictures, "data_files": list(rows)} | dict(card)
    written = selection_card(manifest, **options)
    return {
        MANIFEST: folder / MANIFEST,
        **{name: folder / name for name, _ in pictures},
        CARD: _save(written, folder),
    }


def _as_parquet(ds: Any, folder: Path) -> dict[str, Path]:
    path = folder / _ROWS_FOLDER / _ONE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(ds, path, overwrite=True)
    return {f"{_ROWS_FOLDER}/{_ONE_FILE}": path}


def _column(data: str | Path, name: str) -> Iterator[Any]:
    source = RowSource(open_shards(data), PairReader(), name=str(data))
    if name not in (names := source.column_names()):
        raise ValueError(f"{source.name} has no column {name!r}: it has {names}.")
    return source.column(name)


def _save(card: RepoCard, folder: Path) -> Path:
    save_card(card, folder / CARD)
    return folder / CARD
