"""Verifies an output against its manifest, and lists the entries that cannot be recomputed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import RepoCard

from ..files import columns_of, file_named, open_shards
from ..manifest.parsing import parse_manifest
from ..manifest.replacing import CARD, IMAGES, MANIFEST, files_in, side_paths
from ..manifest.sidecars import find_manifest, hash_file, seal_of
from ..scoring.checkpoints import checkpoint_identity, resolve_checkpoint
from ..scoring.scorer import SCORE_COLUMN
from ..selecting.criteria import count_of

# Files that the Hub and its tools add to a folder.
_FOREIGN = (".gitattributes", ".cache/", f"{IMAGES}/", CARD)
_DAMAGED = (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True)
class Check:
    """
    One check of [`verify_manifest`].

    Args:
        what (`str`): the object of the check.
        passed (`bool`, *optional*): whether it matches the manifest; `None` if it could not be checked.
        detail (`str`): the finding.
    """

    what: str
    passed: bool | None
    detail: str = ""


def verify_manifest(path: str | Path) -> list[Check]:
    """
    Verify an output against its manifest. Its files, lists and inputs must have the recorded hashes, there must be no other
    files, and counts, threshold and ranker must match.

    Args:
        path (`str` or `Path`): the output, or its manifest.

    Returns:
        `list[Check]`.

    Raises:
        `ValueError`: if there is no manifest, or it is damaged.
    """
    file = find_manifest(path)
    if file is None and Path(path).is_file() and (beside := side_paths(Path(path))[0]).is_file():
        parse_manifest(beside)  # raises an error that describes the damage
    if file is None:
        raise ValueError(f"{path} has no manifest: expected {MANIFEST} in it or next to it, as scar-hf score and select write.")
    try:
        return list(_checks(parse_manifest(file), file))
    except _DAMAGED as error:
        raise ValueError(f"{file} is not a manifest of scar-hf, or is damaged: {error!r}.") from error


def _checks(manifest: Mapping[str, Any], file: Path) -> Iterator[Check]:
    folder, output, inputs = file.parent, manifest["output"], manifest["inputs"]
    seal = manifest.get("seal")
    yield Check("manifest", seal_of(manifest) == seal if seal else None, "its seal" if seal else "has no seal")
    for entry in output["files"]:
        yield _check_file("output", file_named(folder, entry["name"]), entry["sha256"])
    if not output["files"]:
        yield Check("output", False, "the manifest names no files")
    yield from _check_rows(folder, manifest)
    yield from _check_lists(folder, manifest)
    if file.name == MANIFEST:
        yield from _check_folder(folder, manifest)
    for entry in inputs:
        yield _check_input(entry, folder)
    if not inputs:
        yield Check("input", False, "the manifest names no inputs")
    if manifest["parent"]:
        yield _check_input(manifest["parent"], folder, "parent manifest")
    yield _check_ranker(manifest["ranker"])
    yield Check("scores", None, "of rows that were left out, settings and versions are not recomputed")


def _check_rows(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Check]:
    """Count the rows, and compare the counts with each other and with the criteria."""
    output, selection, k = manifest["output"], manifest["selection"], manifest["options"].get("k")
    data = folder if (folder.name == output["name"] and (folder / MANIFEST).is_file()) else file_named(folder, output["name"])
    scores: list[Any] = []
    try:
        for shard in open_shards(str(data)):
            for batch in shard.batches():
                columns = columns_of(batch)
                scores += columns.get(SCORE_COLUMN, [None] * len(batch))
    except (ValueError, OSError) as error:
        yield Check("rows", False, str(error))
        return
    yield Check("rows", len(scores) == output["rows"], f"{len(scores):,} of {output['rows']:,}")
    rows, scored, unscored = selection["rows"], selection["scored"], selection.get("unscored") or 0
    added = rows == scored + unscored + selection["skipped"]
    left = f", {unscored:,} left to the fast ranker" if unscored else ""
    yield Check("counts", added, f"{scored:,} scored{left} and {selection['skipped']:,} skipped of {rows:,}")
    if "kept" not in selection or manifest["options"].get("all_rows"):
        return
    kept, dropped = selection["kept"], selection.get("dropped") or 0
    asked = rows if k is None else count_of(k, rows)
    fits = kept == len(scores) and kept <= asked and (kept == asked or kept <= scored)
    if not manifest["options"].get("stratify_by"):
        fits = fits and kept >= min(asked, scored - dropped)
    yield Check("selection", fits, f"{kept:,} rows kept with k={k!r}")
    values = np.array([np.nan if score in (None, "") else float(score) for score in scores], dtype=np.float32)
    lowest = float(np.nanmin(values)) if np.isfinite(values).any() else None
    threshold = selection["threshold"]
    same = threshold is None or lowest is None or abs(threshold - lowest) <= 1e-6 * max(1.0, abs(lowest))
    yield Check("threshold", same and (threshold is None) == (lowest is None), f"the lowest score is {lowest}")


def _check_lists(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Check]:
    hashes = manifest.get("lists") or {}
    for key, count in (("skipped_rows", "skipped"), ("dropped_rows", "dropped")):
        expected, name = manifest["selection"].get(count) or 0, manifest.get(key)
        if not name:
            if expected:
                yield Check(f"{count} rows", None, f"{expected:,}, of which there is no list")
            continue
        path = file_named(folder, name)
        if not path.is_file():
            yield Check(f"list {path}", False, "is missing")
            continue
        lines = sum(len(batch) for shard in open_shards(path) for batch in shard.batches())
        same = name not in hashes or hash_file(path) == hashes[name]
        yield Check(f"list {path}", same and lines == expected, f"SHA-256, and {lines:,} rows of {expected:,}")


def _check_folder(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Check]:
    """Look for files that the manifest does not list, and for a card that lists the wrong files as rows."""
    names = [entry["name"] for entry in manifest["output"]["files"]]
    known = {MANIFEST, *names, *(manifest[key] for key in ("skipped_rows", "dropped_rows") if manifest.get(key))}
    other = sorted(name for name in files_in(folder) if name not in known and not name.startswith(_FOREIGN))
    yield Check(
        "folder", not other, f"holds what the manifest does not name: {', '.join(other[:5])}" if other else "no other files"
    )
    card = folder / CARD
    if not card.is_file() or (folder / "state.json").is_file():
        return
    try:
        configs = RepoCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=False).data.get("configs") or []
        default: Mapping[str, Any] = next(
            (config for config in configs if config.get("config_name") == "default"), {"data_files": []}
        )
        listed = [path for files in default["data_files"] for path in _listed(files["path"])]
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        yield Check(f"card {card}", False, f"its metadata cannot be read: {error}")
        return
    yield Check(f"card {card}", sorted(listed) == sorted(names), "names the rows")


def _listed(paths: Any) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths)


def _check_file(kind: str, path: Path, digest: str) -> Check:
    if not path.is_file():
        return Check(f"{kind} {path}", False, "is missing")
    return Check(f"{kind} {path}", hash_file(path) == digest, "SHA-256")


def _check_input(entry: Mapping[str, Any], folder: Path, kind: str = "input") -> Check:
    """Check an input. An input that was moved or deleted is reported, but the output does not fail."""
    if "sha256" not in entry:
        return Check(f"{kind} {entry['path']}", None, "is on the Hub and was not downloaded")
    named = Path(entry["path"])
    path = next((p for p in (named, folder / named, folder / named.name) if p.is_file()), None)
    if path is None:
        return Check(f"{kind} {named}", None, "is not there any more")
    return Check(f"{kind} {path}", hash_file(path) == entry["sha256"], "SHA-256")


def _check_ranker(ranker: Mapping[str, Any]) -> Check:
    """Compare the ranker with the folder of that name, if it exists; for a ranker on the Hub, only the commit is known."""
    name, weights = ranker["model"], ranker.get("weights")
    if name is None and weights is None:
        return Check("ranker", None, "none, or only in memory: another method scored the rows")
    folder = Path(resolve_checkpoint(str(name)))
    if not weights or not folder.is_dir():
        return Check(f"ranker {name}", None, "is not here")
    return Check(f"ranker {name}", checkpoint_identity(str(folder)) == weights, "SHA-256")
