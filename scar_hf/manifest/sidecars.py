"""Files next to an output: the manifest, and the lists of skipped and dropped rows."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..files import Shard, atomic_write, file_named, write_shard
from .parsing import parse_manifest
from .replacing import CARD, IMAGES, LISTS, MANIFEST, amended_card, check_replaceable, output_name, plain_card, side_paths

logger = logging.getLogger(__name__)


def is_output_of(output: Path, run: Mapping[str, Any]) -> bool:
    """
    Check whether an output is complete, unchanged, and the result of this run.

    Args:
        output (`Path`): the existing output.
        run (`Mapping`): from [`describe_files`].

    Returns:
        `bool`: `False` also if there is no readable manifest.
    """
    file = find_manifest(output)
    try:
        manifest = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        asked = json.loads(json.dumps(run))
        found = {name: manifest.get(name) for name in asked}
        # Compared as text, because k=1 is one row and k=1.0 all rows, although 1 == 1.0.
        if json.dumps(found, sort_keys=True) != json.dumps(asked, sort_keys=True):
            return False
        folder = output if output.is_dir() else output.parent
        return all(hash_file(file_named(folder, entry["name"])) == entry["sha256"] for entry in manifest["output"]["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def reason_lines(reasons: Mapping[int, str], shards: Sequence[Shard], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows with a reason: shard, number within the shard (from 0), and reason."""
    places = places_of(sorted(reasons), shards, counts)
    return [{"shard": name, "row": row, "reason": reasons[number]} for number, (name, row) in places.items()]


def places_of(numbers: Sequence[int], shards: Sequence[Shard], counts: Sequence[int]) -> dict[int, tuple[str, int]]:
    """Map row numbers over all shards to the name of the shard and the number within it (from 0)."""
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    parts = (np.searchsorted(starts, np.asarray(numbers, dtype=np.int64), side="right") - 1).tolist()
    return {number: (shards[i].name, number - int(starts[i])) for number, i in zip(numbers, parts, strict=True)}


def write_sides(target: Path, output: Path, manifest: Mapping[str, Any], *lists: list[dict[str, Any]]) -> None:
    """
    Write the manifest and, if needed, the lists of skipped and dropped rows, into an output folder or next to an output
    file. They are written before the output, so the output never exists without them.

    Args:
        target (`Path`): the output at its temporary path.
        output (`Path`): the final path of the output.
        manifest (`Mapping`): from [`describe_files`], with the selection and the output.
        lists (`list[dict]`): from [`reason_lines`], for each name in `LISTS`.
    """
    check_replaceable(output)  # again, because files may have been added while rows were scored
    path, *list_paths = [target / name for name in (MANIFEST, *LISTS)] if target.is_dir() else side_paths(output)
    if target.is_dir():
        _write_card(target, output, manifest["output"]["files"])
    names: dict[str, Any] = {"lists": {}}
    for key, list_path, lines in zip(("skipped_rows", "dropped_rows"), list_paths, lists, strict=True):
        names[key] = list_path.name if lines else None
        if lines:
            names["lists"][list_path.name] = write_shard(list_path, [lines])
        else:
            list_path.unlink(missing_ok=True)
    with atomic_write(path) as out:
        out.write(sealed({**manifest, **names}))


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest, including a SHA-256 of its content that reveals edits."""
    content = {name: value for name, value in manifest.items() if name != "seal"}
    return f"{json.dumps({**content, 'seal': seal_of(content)}, indent=2, ensure_ascii=False)}\n".encode()


def seal_of(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest without its seal."""
    content = {name: value for name, value in manifest.items() if name != "seal"}
    return sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def find_manifest(path: str | Path) -> Path | None:
    """
    Find the manifest of an output.

    Args:
        path (`str` or `Path`): the output, or the manifest itself.

    Returns:
        `Path` or `None`.
    """
    path = Path(path)
    if path.is_dir():
        return path / MANIFEST if (path / MANIFEST).is_file() else None
    if (path.name == MANIFEST or path.name.endswith(f".{MANIFEST}")) and path.is_file():
        return path
    manifest = side_paths(path)[0]
    return manifest if output_name(manifest) == path.name else None


def _write_card(folder: Path, output: Path, files: Sequence[Mapping[str, Any]]) -> None:
    """
    Write the card of an output folder, which tells `load_dataset`, TRL and the Hub which of its files are rows. An edited
    card is kept, with its figures.
    """
    names = [file["name"] for file in files]
    data_files = [{"split": "train", "path": names[0] if len(names) == 1 else names}]
    configs = [{"config_name": "default", "data_files": data_files}]
    card, amended = plain_card(configs), amended_card(output)
    if amended is not None:
        amended.data["configs"] = configs
        card = str(amended)
        logger.warning("%s was edited and is kept; `scar-hf card %s` updates its numbers.", output / CARD, output)
    if (output / IMAGES).is_dir():
        shutil.copytree(output / IMAGES, folder / IMAGES, dirs_exist_ok=True)
    (folder / CARD).write_text(card, encoding="utf-8")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def manifest_of(output: str | Path) -> dict[str, Any] | None:
    """
    Read the manifest of a selection.

    Args:
        output (`str` or `Path`): the output of `scar-hf select`.

    Returns:
        `dict`: the manifest; `None` if there is none.

    Raises:
        `ValueError`: if it is damaged.
    """
    file = find_manifest(output)
    if file is None:
        return None
    manifest = parse_manifest(file)
    if "options" not in manifest or "inputs" not in manifest:
        raise ValueError(f"{file} is not a manifest of scar-hf, or is damaged: it has no `options` or no `inputs`.")
    return manifest
