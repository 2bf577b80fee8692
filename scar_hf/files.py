"""Instruction sets on disk: JSON Lines, JSON, CSV and Parquet in, the same formats out."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_from_disk

INPUT_FORMATS = ".jsonl, .json, .parquet or a folder written by `Dataset.save_to_disk`"
OUTPUT_FORMATS = ".jsonl, .json, .parquet, or a folder"


def read_dataset(path: str | Path) -> Dataset:
    """
    Read an instruction set, all columns as they are.

    Args:
        path (`str` or `Path`): a .jsonl, .json (one list of objects) or .parquet file, or an Arrow folder.

    Returns:
        [`~datasets.Dataset`]: in the order of the file.

    Raises:
        `ValueError`: if the file does not exist, is of another kind, damaged or cut off; with the line where that shows.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist. Expected {INPUT_FORMATS}.")
    if path.is_dir():
        return _read_folder(path)
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path} ends in {path.suffix!r}; expected {INPUT_FORMATS}.")
    return readers[path.suffix](path)


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """
    Check that an output can be written before any work goes into it.

    Args:
        path (`str` or `Path`): a .jsonl, .json or .parquet file, or a folder.
        overwrite (`bool`, *optional*, defaults to `False`): whether it may exist.

    Returns:
        `Path`: the same path.

    Raises:
        `ValueError`: if it exists and `overwrite` is false, or its name ends in something else.
    """
    path = Path(path)
    if path.suffix not in ("", ".jsonl", ".json", ".parquet"):
        raise ValueError(f"The output {path} ends in {path.suffix!r}; expected {OUTPUT_FORMATS}.")
    if path.exists() and not overwrite:
        raise ValueError(f"The output {path} exists. Pass --overwrite to replace it, or another path.")
    return path


def write_dataset(ds: Dataset, path: str | Path, overwrite: bool = False) -> Path:
    """
    Write an instruction set in the format that the path's suffix names. The file appears whole or not at all.

    Args:
        ds ([`~datasets.Dataset`]): the rows.
        path (`str` or `Path`): a .jsonl, .json or .parquet file, or a folder (`Dataset.save_to_disk`).
        overwrite (`bool`, *optional*, defaults to `False`): whether to replace what exists.

    Returns:
        `Path`: where it was written.

    Raises:
        `ValueError`: as [`check_output`].
    """
    path = check_output(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix == ".parquet":
            ds.to_parquet(str(part))
        elif path.suffix:
            _write_json(ds, part, lines=path.suffix == ".jsonl")
        else:
            ds.save_to_disk(str(part))
            if path.is_dir():
                shutil.rmtree(path)
        os.replace(part, path)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)
    return path


def read_json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """
    Read the objects of a JSON Lines file one by one.

    Raises:
        `ValueError`: with the line, if one is no JSON object or the file is cut in the middle.
    """
    with path.open(encoding="utf-8") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}.")
                    yield row
        except json.JSONDecodeError as error:
            cut = " The file ends there: it is cut off." if not line.endswith("\n") else ""
            raise ValueError(f"{path}, line {number}: not valid JSON ({error}).{cut}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, after line {number}: not UTF-8 text ({error}).") from error


def _read_jsonl(path: Path) -> Dataset:
    return _from_rows(list(read_json_rows(path)), path)


def _read_json(path: Path) -> Dataset:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not valid JSON ({error}). Cut off, or JSON Lines? The latter must be named .jsonl."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a list of objects, got {type(rows).__name__}.")
    return _from_rows(rows, path)


def _from_rows(rows: list[dict[str, Any]], path: Path) -> Dataset:
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a column has values of different types, which a table cannot hold: {error}") from error


def _read_parquet(path: Path) -> Dataset:
    try:
        return Dataset(pq.read_table(path, memory_map=True))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file, or cut off: {error}") from error


def _read_folder(path: Path) -> Dataset:
    try:
        ds = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is a folder, but not one written by `Dataset.save_to_disk`. Expected {INPUT_FORMATS}."
        ) from error
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: the Arrow files are damaged or cut off: {error}") from error
    if not isinstance(ds, Dataset):
        raise ValueError(f"{path} holds the splits {list(ds)}: pass the folder of one of them, {path / next(iter(ds))}.")
    return ds


def _write_json(ds: Dataset, path: Path, lines: bool) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.write("" if lines else "[")
        for number, row in enumerate(ds):
            text = json.dumps(row, ensure_ascii=False, default=str)
            out.write(f"{text}\n" if lines else (",\n" if number else "") + text)
        out.write("" if lines else "]\n")
