"""Protects the user's files: an output may be replaced only if its manifest lists all of its files."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import RepoCard

MANIFEST, CARD = "manifest.json", "README.md"
IMAGES = "_images"  # figures of a card
# Rows that could not be scored, and rows that curation left out.
LISTS = ("skipped.jsonl", "dropped.jsonl")
_LIST_KEYS = ("skipped_rows", "dropped_rows")
# An edited card and its figures are carried over rather than replaced.
_CARRIED = (CARD, f"{IMAGES}/")


def side_paths(output: Path) -> list[Path]:
    """Return the paths of the manifest and lists of an output file: next to it, prefixed with its name."""
    return [output.with_name(f"{output.name}.{name}") for name in (MANIFEST, *LISTS)]


def check_replaceable(output: Path, data: str | Path | None = None) -> None:
    """
    Check that replacing an output deletes only files that its manifest lists.

    Args:
        output (`Path`): a file or a folder that may exist.
        data (`str` or `Path`, *optional*): the input, which must not be replaced by the output.

    Raises:
        `ValueError`: if a folder has no manifest or holds other files, if another file has the path of the manifest or of a
        list, or if the output is the data.
    """
    if data is not None and output.exists() and Path(data).exists():
        source = Path(data).resolve()
        if output.resolve() in (source, *source.parents):
            raise ValueError(f"The output {output} is, or contains, the data {data}. Choose another output.")
    if output.is_dir():
        _check_folder(output)
    else:
        _check_sides(output)


def output_name(manifest: Path) -> str | None:
    """Return the name of the output that a manifest belongs to; `None` if the file is not a manifest."""
    return (_read(manifest) or {}).get("name")


def plain_card(configs: Any) -> str:
    """Return the card that a run writes to an output folder: metadata that lists the files of rows, without text."""
    return f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n"


def amended_card(folder: Path) -> RepoCard | None:
    """
    Read the card of an output folder if it was edited after the run.

    Args:
        folder (`Path`): an output that may exist.

    Returns:
        `RepoCard` or `None`.

    Raises:
        `ValueError`: if its metadata cannot be read.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        card = RepoCard(text, ignore_metadata_errors=False)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"The metadata of {path} cannot be read ({error}). Fix the file, or move it elsewhere.") from error
    return None if text == plain_card(card.data.get("configs")) else card


def _check_folder(folder: Path) -> None:
    found = sorted(files_in(folder))
    if not found:
        return
    output = _read(folder / MANIFEST)
    if output is None or output["name"] != folder.resolve().name:
        whose = f"belongs to {output['name']!r}" if output else "is missing"
        raise ValueError(
            f"The folder {folder} was not written by scar-hf, so it is not replaced: its {MANIFEST} {whose}. "
            "Choose another output."
        )
    named = {MANIFEST, *output["files"], *output["lists"]}
    other = [name for name in found if name not in named and not name.startswith(_CARRIED)]
    if other:
        shown = ", ".join(other[:5]) + (", ..." if len(other) > 5 else "")
        raise ValueError(
            f"The folder {folder} holds {len(other):,} files that its {MANIFEST} does not name ({shown}), so it is not "
            "replaced. Move them elsewhere, or choose another output."
        )
    amended_card(folder)


def _check_sides(output: Path) -> None:
    manifest, *lists = side_paths(output)
    found = _read(manifest)
    ours = found is not None and found["name"] == output.name
    named: Sequence[str] = found["lists"] if found is not None and ours else ()
    for path in (manifest, *lists):
        if path.exists() and not (ours if path == manifest else path.name in named):
            raise ValueError(f"{path} is in the place of a file of the output, but was not written with it. Move it elsewhere.")


def files_in(folder: Path) -> set[str]:
    """Return the paths of all files in a folder, with `/`; a link to a folder counts as a file."""
    found = set()
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found |= {(Path(parent) / name).relative_to(folder).as_posix() for name in (*names, *links)}
    return found


def _read(manifest: Path) -> dict[str, Any] | None:
    """Return the names in a manifest: the output, its files, and the lists."""
    try:
        values = json.loads(manifest.read_text(encoding="utf-8"))
        output = values["output"]
        names = [entry["name"] for entry in output["files"]]
        lists = [values[key] for key in _LIST_KEYS if values.get(key)]
        if not all(isinstance(name, str) for name in (output["name"], *names, *lists)):
            return None
        return {"name": output["name"], "files": names, "lists": lists}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
