"""Files and folders that appear whole or not at all, the same bytes for the same rows."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetInfo, Features

from .batches import Batch, conform, rechunk, rows_of
from .reading import NOT_DATA, NOT_DATA_ENDINGS, Shard, is_arrow_folder
from .streams import (
    OUTPUT_FORMATS,
    OUTPUT_SUFFIXES,
    OutputFile,
    atomic_write,
    compressed,
    import_zstandard,
    part_of,
    suffix_of,
    sync_folder,
)
from .text import format_rows

_ROW_GROUP = 5000  # rows of a Parquet row group, which is what is held in memory
_ARROW_BATCH = 1000  # rows, as `datasets` has it
_ARROW_FILE = 500_000_000  # bytes after which an Arrow folder begins its next file, as `datasets` has it


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """
    Check that an output can be written before any work goes into it.

    Args:
        path (`str` or `Path`): a .jsonl, .jsonl.gz, .jsonl.zst, .json, .csv or .parquet file, or a folder.
        overwrite (`bool`, *optional*, defaults to `False`): whether it may exist.

    Returns:
        `Path`: the same path.

    Raises:
        `ValueError`: if it exists and `overwrite` is false, or its name ends in something else or is one of ours.
        `ImportError`: if its compression needs a library that is not installed.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in ("", *OUTPUT_SUFFIXES):
        raise ValueError(f"The output {path} ends in {suffix!r}; expected {OUTPUT_FORMATS}.")
    if path.name in NOT_DATA or path.name.endswith(NOT_DATA_ENDINGS):
        raise ValueError(f"The output {path} has a name that scar-hf gives to what goes with an output. Choose another.")
    if suffix.endswith(".zst"):
        import_zstandard()
    if path.exists() and not overwrite:
        raise ValueError(f"The output {path} exists. Pass --overwrite to replace it, or another path.")
    return path


def write_dataset(ds: Dataset, path: str | Path, overwrite: bool = False) -> Path:
    """
    Write an instruction set in the format that the path's suffix names. The file appears whole or not at all.

    Args:
        ds ([`~datasets.Dataset`]): the rows.
        path (`str` or `Path`): as for [`check_output`]; a folder is written as `Dataset.save_to_disk` would.
        overwrite (`bool`, *optional*, defaults to `False`): whether to replace what exists.

    Returns:
        `Path`: where it was written.

    Raises:
        `ValueError`: as [`check_output`], [`write_shard`] and [`write_arrow_folder`].
    """
    path = check_output(path, overwrite)
    schema = ds.features.arrow_schema
    batches = Shard(path.name, None, ds).batches()
    if path.suffix:
        write_shard(path, batches, schema)
    else:
        write_arrow_folder(path, batches, schema, like=ds)
    return path


def write_shard(path: Path, batches: Iterable[Batch], schema: pa.Schema | None = None) -> str:
    """
    Write one file in the format of its suffix. It appears whole or not at all, replacing what is there, and its bytes
    depend on nothing but the rows.

    Args:
        path (`Path`): a .jsonl, .jsonl.gz, .jsonl.zst, .json, .csv or .parquet file.
        batches (`Iterable[Batch]`): the rows.
        schema (`pa.Schema`, *optional*):
            The types of a Parquet file's columns, by default those of the first table; objects need it. For CSV its names
            are the header, by default those of the first row. JSON writes what each row has.

    Returns:
        `str`: SHA-256 of the file, in hexadecimal.

    Raises:
        `ValueError`: if the format cannot hold the rows, or another suffix is asked for.
        `OSError`: if the disk is full, or does not let one write there.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"The output {path} ends in {suffix!r}; expected {', '.join(OUTPUT_SUFFIXES)}.")
    with atomic_write(path) as output:
        if suffix == ".parquet":
            _write_parquet(path, output, batches, schema)
        else:
            _write_text(path, output, batches, schema)
    return output.sha256


def write_arrow_folder(path: Path, batches: Iterable[Batch], schema: pa.Schema, like: Dataset | None = None) -> None:
    """
    Write a folder as `Dataset.save_to_disk` would. It appears whole or not at all, replacing one that is there.

    Args:
        path (`Path`): the folder.
        batches (`Iterable[Batch]`): the rows.
        schema (`pa.Schema`): the types of the columns.
        like ([`~datasets.Dataset`], *optional*): a dataset whose description and split are kept.

    Raises:
        `ValueError`: if the rows do not fit the schema, or there is a folder that `Dataset.save_to_disk` did not write.
        `OSError`: if the disk is full, or does not let one write there.
    """
    path = Path(path)
    _check_arrow_folder(path)
    features = Features.from_arrow_schema(schema)
    part = part_of(path)
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed and had this number
    part.mkdir(parents=True)
    try:
        hashes = _write_arrow_files(path, part, _tables(path, batches, features.arrow_schema), features.arrow_schema)
        info = like.info.copy() if like is not None else DatasetInfo()
        info.features = features
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in hashes],
            "_fingerprint": hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": str(like.split) if like is not None and like.split is not None else None,
        }
        for name, content in (("state.json", state), ("dataset_info.json", asdict(info))):
            with atomic_write(part / name, path) as output:
                output.write(json.dumps(content, indent=2, sort_keys=name == "state.json").encode())
        _put_in_place(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_arrow_folder(path: Path) -> None:
    """Replace a folder only if `Dataset.save_to_disk` wrote each of its files, or `datasets` cached something there."""
    if not path.is_dir() or not any(path.iterdir()):
        return
    known = {"state.json", "dataset_info.json"}
    if is_arrow_folder(path):
        try:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            known |= {str(file["filename"]) for file in state["_data_files"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass
    other = [file.name for file in sorted(path.iterdir()) if file.name not in known and not file.match("cache-*.arrow")]
    if other or not is_arrow_folder(path):
        raise ValueError(
            f"The output {path} is a folder that `Dataset.save_to_disk` did not write, so it is not replaced: it "
            f"holds {', '.join(other[:5])}. Remove it, or pass another path."
        )


def _write_text(path: Path, output: OutputFile, batches: Iterable[Batch], schema: pa.Schema | None) -> None:
    suffix = suffix_of(path)
    header = None if schema is None else schema.names
    if suffix == ".csv" and header is None:
        first, batches = _peek(batches)
        header = None if first is None or isinstance(first, list) else first.column_names
    rows = itertools.chain.from_iterable(map(rows_of, batches))
    with compressed(output, suffix) as stream:
        for data in format_rows(path, rows, header):
            stream.write(data)


def _write_parquet(path: Path, output: OutputFile, batches: Iterable[Batch], schema: pa.Schema | None) -> None:
    first, batches = _peek(batches)
    if schema is None:
        if first is None or isinstance(first, list):
            raise ValueError(f"The output {path} needs a schema: rows of JSON or CSV do not tell the types of all columns.")
        schema = first.schema
    try:
        with pq.ParquetWriter(pa.PythonFile(output, mode="w"), schema) as writer:
            for table in rechunk(_tables(path, batches, schema), _ROW_GROUP):
                writer.write_table(_one_chunk(table), row_group_size=_ROW_GROUP)
    except pa.ArrowException as error:
        raise ValueError(f"The output {path}: Parquet cannot hold these rows ({error}). Write .jsonl instead.") from error


def _one_chunk(table: pa.Table) -> pa.Table:
    """The table in one piece, dictionaries built anew: else how it was read would show in the pages."""
    table = table.combine_chunks()
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(i).cast(field.type.value_type).combine_chunks()
            table = table.set_column(i, field, values.dictionary_encode().cast(field.type))
    return table


def _write_arrow_files(path: Path, folder: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> dict[str, str]:
    """Write files of about the size that `datasets` has, and give their hashes by name."""
    chunks = rechunk(tables, _ARROW_BATCH)
    hashes: dict[str, str] = {}
    last = False
    while not last:
        part = folder / f"{len(hashes)}.arrow"
        with atomic_write(part, path) as output:
            last = _write_arrow_stream(output, chunks, schema)
        hashes[part.name] = output.sha256
    names = [f"data-{i:05d}-of-{len(hashes):05d}.arrow" for i in range(len(hashes))]
    for part_name, name in zip(hashes, names, strict=True):
        os.replace(folder / part_name, folder / name)
    return dict(zip(names, hashes.values(), strict=True))


def _write_arrow_stream(output: OutputFile, tables: Iterator[pa.Table], schema: pa.Schema) -> bool:
    """Write one file, and return whether it took the last of the tables."""
    with pa.ipc.new_stream(pa.PythonFile(output, mode="w"), schema) as stream:
        for table in tables:
            stream.write_table(table.combine_chunks())
            if output.tell() >= _ARROW_FILE:
                return False
    return True


def _tables(path: Path, batches: Iterable[Batch], schema: pa.Schema) -> Iterator[pa.Table]:
    for batch in batches:
        try:
            yield conform(batch, schema)
        except ValueError as error:
            raise ValueError(f"The output {path}: {error}.") from error


def _peek(batches: Iterable[Batch]) -> tuple[Batch | None, Iterator[Batch]]:
    iterator = iter(batches)
    first = next(iterator, None)
    return first, iterator if first is None else itertools.chain([first], iterator)


def _put_in_place(part: Path, path: Path) -> None:
    """Give a folder its name; what had that name is removed last, so that a crash loses neither."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.replace(path, old)
    sync_folder(part)
    os.replace(part, path)
    sync_folder(path.parent)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
