"""Stores the selection of a run in its checkpoints, restores it, and compares selections."""

import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from ..manifest.description import dataset_source
from ..ranking import ScarRanking
from ..rows.source import rows_of
from ..scoring.chunks import short_hash
from ..scoring.datasets import with_scores
from ..scoring.scorer import NOT_FINITE, ScarScorer
from ..selection import Selection

logger = logging.getLogger(__name__)

SELECTION_FILE, SCORES_FILE = "scar_selection.json", "scar_scores.safetensors"
# Sections of the manifest that must be equal to resume a run.
_SAME = ("inputs", "ranker", "settings", "options", "selection")
# Values in them that may differ even if the rows are the same.
_IRRELEVANT = ("fingerprint", "backend", "conversion", "dtype", "threshold")


def write_selection(folder: Path, manifest: dict[str, Any], selection: Selection | None = None) -> None:
    """
    Store a selection in a checkpoint.

    Args:
        folder (`Path`): the checkpoint.
        manifest (`dict`): the manifest of the selection.
        selection ([`~scar_hf.selection.Selection`], *optional*):
            Stored as well: its scores, five bytes per row, and a hash of the numbers of the rows kept.
    """
    if selection is not None:
        scored = selection.scored
        skipped = {str(row): reason for row, reason in scored.skipped.items()}
        metadata = {"skipped": json.dumps(skipped), "kept": _hash_of(selection.indices)}
        save_file({"scores": scored.scores, "truncated": scored.truncated}, folder / SCORES_FILE, metadata=metadata)
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    (folder / SELECTION_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_selection(path: str | Path) -> dict[str, Any]:
    """
    Read a selection's manifest.

    Args:
        path (`str` or `Path`): the manifest, or a checkpoint with one.

    Returns:
        `dict`.

    Raises:
        `ValueError`: if there is none, or it is damaged.
    """
    path = Path(path)
    file = path / SELECTION_FILE if path.is_dir() else path
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        manifest["selection"]["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not the manifest of a selection: {error!r}.") from error
    return manifest


def stored_ranking(checkpoint: str | Path, ds: Dataset, scorer: ScarScorer) -> ScarRanking | None:
    """
    Restore the ranking of a dataset from a checkpoint if the rows and the ranker are the same.

    Args:
        checkpoint (`str` or `Path`): a checkpoint.
        ds ([`~datasets.Dataset`]): the rows.
        scorer ([`ScarScorer`]): the scorer.

    Returns:
        [`ScarRanking`]; `None` if none is stored, or if the rows or the ranker differ.
    """
    folder = Path(checkpoint)
    if not (folder / SELECTION_FILE).is_file() or not (folder / SCORES_FILE).is_file():
        return None
    try:
        manifest = read_selection(folder)
        stored_rows = load_file(folder / SCORES_FILE)
        scores, truncated = stored_rows["scores"], stored_rows["truncated"]
        skipped = json.loads(_metadata(folder / SCORES_FILE).get("skipped", "{}"))
    except (ValueError, KeyError, SafetensorError) as error:
        logger.warning("The selection in %s cannot be read (%s); the data is ranked again.", folder, error)
        return None
    hashes = np.array([short_hash(row) for row in rows_of(ds, scorer.reader)], dtype=np.uint64)
    digest = sha256(hashes.tobytes()).hexdigest()
    settings = scorer.describe()
    if manifest["selection"].get("prefilter"):
        return None  # only the rows that its criteria needed were scored
    same = manifest["inputs"][0].get("pairs_sha256") == digest and len(scores) == len(ds)
    stored = {**manifest.get("ranker", {}), **manifest.get("settings", {})}
    if not same or _comparable(stored) != _comparable(settings):
        return None
    logger.info("The selection in %s is of the same rows and ranker: nothing is scored again.", folder)
    reasons = {int(row): skipped.get(str(row), NOT_FINITE) for row in np.flatnonzero(np.isnan(scores))}
    return ScarRanking(with_scores(ds, scores), scores, reasons, truncated, settings, dataset_source(ds, digest))


def check_same_selection(checkpoint: str | Path, manifest: dict[str, Any], kept: np.ndarray) -> None:
    """
    Compare the selection of a checkpoint with the current one.

    Args:
        checkpoint (`str` or `Path`): a checkpoint.
        manifest (`dict`): the manifest of the current selection.
        kept (`np.ndarray`): numbers of the rows that it keeps.

    Raises:
        `ValueError`: if they differ; the message lists the differences.
    """
    if not (Path(checkpoint) / SELECTION_FILE).is_file():
        logger.warning("%s has no %s, so it is unknown whether it was trained on the same rows.", checkpoint, SELECTION_FILE)
        return
    stored = read_selection(checkpoint)
    differing = [name for name in _SAME if _comparable(stored.get(name)) != _comparable(manifest.get(name))]
    shown = "; ".join(f"{name}: {stored.get(name)} then, {manifest.get(name)} now" for name in differing)
    if not differing and _metadata(Path(checkpoint) / SCORES_FILE).get("kept") not in (None, _hash_of(kept)):
        # For example, if a column changed that is the method, or that has quotas.
        shown = "the same counts, but other rows"
    if shown:
        raise ValueError(
            f"{checkpoint} was trained on another selection ({shown}). Resume with the same data and settings, or start "
            "a new run with another output_dir."
        )


def _comparable(part: Any) -> Any:
    if isinstance(part, (list, tuple)):  # JSON turns tuples into lists
        return [_comparable(entry) for entry in part]
    if isinstance(part, dict):
        return {name: _comparable(value) for name, value in part.items() if name not in _IRRELEVANT}
    return part


def _hash_of(kept: np.ndarray) -> str:
    return sha256(np.asarray(kept, dtype=np.int64).tobytes()).hexdigest()


def _metadata(path: Path) -> dict[str, str]:
    """Return the metadata of stored scores; none if the file is missing or damaged."""
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}
