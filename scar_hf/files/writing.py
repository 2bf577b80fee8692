"""Writes files atomically, with the same bytes for the same rows."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from .batches import Batch, conform, rechunk, rows_of
from .reading import NOT_DATA, NOT_DATA_ENDINGS, Shard
from .streams import (
    OUTPUT_FORMATS,
    OUTPUT_SUFFIXES,
    OutputFile,
    atomic_write,
    compressed,
    import_zstandard,
    suffix_of,
)
from .text import format_rows

_ROW_GROUP = 5000  # rows per Parquet row group; one group is in memory at a time


def check_output(path: str | Path, overwrite: bool = False) -> Path:
    """
    Check that an output can be written, before any work is done.

    Args:
        path (`str` or `Path`): a .jsonl, .jsonl.gz, .jsonl.zst, .json, .csv or .parquet file, or a folder.
        overwrite (`bool`, *optional*, defaults to `False`): whether the output may exist.

    Returns:
        `Path`: the same path.

    Raises:
        `ValueError`: if it exists and `overwrite` is false, its suffix is unknown, or its name is reserved.
        `ImportError`: if its compression needs a library that is not installed.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in ("", *OUTPUT_SUFFIXES):
        raise ValueError(f"The output {path} ends in {suffix!r}; expected {OUTPUT_FORMATS}.")
    if path.name in NOT_DATA or path.name.endswith(NOT_DATA_ENDINGS):
        raise ValueError(f"The output {path} has a name that scar-hf reserves for files next to an output. Choose another.")
    if suffix.endswith(".zst"):
        import_zstandard()
    if path.exists() and not overwrite:
        raise ValueError(f"The output {path} exists. Pass --overwrite to replace it, or another path.")
    return path


def write_dataset(ds: Dataset, path: str | Path, overwrite: bool = False) -> Path:
    """
    Write an instruction set in the format of the path's suffix, atomically.

    Args:
        ds ([`~datasets.Dataset`]): the rows.
        path (`str` or `Path`): a file; see [`check_output`]. To write a folder, use `Dataset.save_to_disk`.
        overwrite (`bool`, *optional*, defaults to `False`): whether to replace an existing file.

    Returns:
        `Path`: the same path.

    Raises:
        `ValueError`: if the path is a folder, and see [`check_output`] and [`write_shard`].
    """
    if not suffix_of(Path(path)):
        raise ValueError(f"The output {path} is a folder; expected a file: {OUTPUT_FORMATS}. Or use `Dataset.save_to_disk`.")
    path = check_output(path, overwrite)
    write_shard(path, Shard(path.name, None, ds).batches(), ds.features.arrow_schema)
    return path


def write_shard(path: Path, batches: Iterable[Batch], schema: pa.Schema | None = None, safe_csv: bool = False) -> str:
    """
    Write a file in the format of its suffix, atomically, replacing an existing one. Its bytes depend only on the rows.

    Args:
        path (`Path`): a .jsonl, .jsonl.gz, .jsonl.zst, .json, .csv or .parquet file.
        batches (`Iterable[Batch]`): the rows.
        schema (`pa.Schema`, *optional*):
            The column types of a Parquet file; required for objects, by default those of the first table. For CSV, its names
            are the header; by default the columns of the first row. JSON writes the columns of each row.
        safe_csv (`bool`, *optional*, defaults to `False`): as for [`~scar_hf.files.text.format_rows`].

    Returns:
        `str`: SHA-256 of the file, in hexadecimal.

    Raises:
        `ValueError`: if the format cannot hold the rows, or the suffix is unknown.
        `OSError`: if the disk is full or the path is not writable.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"The output {path} ends in {suffix!r}; expected {', '.join(OUTPUT_SUFFIXES)}.")
    with atomic_write(path) as output:
        if suffix == ".parquet":
            _write_parquet(path, output, batches, schema)
        else:
            _write_text(path, output, batches, schema, safe_csv)
    return output.sha256


def _write_text(path: Path, output: OutputFile, batches: Iterable[Batch], schema: pa.Schema | None, safe_csv: bool) -> None:
    suffix = suffix_of(path)
    header = None if schema is None else schema.names
    if suffix == ".csv" and header is None:
        first, batches = _peek(batches)
        header = None if first is None or isinstance(first, list) else first.column_names
    rows = itertools.chain.from_iterable(map(rows_of, batches))
    with compressed(output, suffix) as stream:
        for data in format_rows(path, rows, header, safe_csv):
            stream.write(data)


def _write_parquet(path: Path, output: OutputFile, batches: Iterable[Batch], schema: pa.Schema | None) -> None:
    first, batches = _peek(batches)
    if schema is None:
        if first is None or isinstance(first, list):
            raise ValueError(f"The output {path} needs a schema, because rows of JSON or CSV have no types.")
        schema = first.schema
    try:
        with pq.ParquetWriter(pa.PythonFile(output, mode="w"), schema) as writer:
            for table in rechunk(_tables(path, batches, schema), _ROW_GROUP):
                writer.write_table(_one_chunk(table), row_group_size=_ROW_GROUP)
    except pa.ArrowException as error:
        raise ValueError(f"The output {path}: Parquet cannot hold these rows ({error}). Write .jsonl instead.") from error


def _one_chunk(table: pa.Table) -> pa.Table:
    """Return the table in one piece with rebuilt dictionaries, so that the bytes do not depend on how it was read."""
    table = table.combine_chunks()
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(i).cast(field.type.value_type).combine_chunks()
            table = table.set_column(i, field, values.dictionary_encode().cast(field.type))
    return table


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
