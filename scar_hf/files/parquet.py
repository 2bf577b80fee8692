"""Reads Parquet files within bounded memory: a file of a few kilobytes may decompress to gigabytes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import batches as bounds
from .batches import Batch, LongRow, check_columns, no_rows, row_bytes, select_columns
from .parquet_pages import measure_pages

_DICTIONARY = {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}
# Encodings that repeat the beginning of the previous value: like dictionaries, they may expand many times.
_PREFIXES = "DELTA_BYTE_ARRAY"


def parquet_batches(path: Path, rows: int, columns: Sequence[str] | None) -> Iterator[Batch]:
    """
    Read a file in tables with a limited number of rows and bytes.

    Args:
        path (`Path`): the file.
        rows (`int`): number of rows per table, fewer if they are long.
        columns (`Sequence[str]`, *optional*): the columns to read, by default all.

    Returns:
        `Iterator[Batch]`: tables, with a [`LongRow`] in place of each row that is too long for memory.

    Raises:
        `ValueError`: if the file is damaged or cut off, or has no such column.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            leaves = [i for i in range(metadata.num_columns) if _is_wanted(file.schema.column(i).path, columns)]
            repeated = _repeated(file, leaves)
        if len(set(schema.names)) < len(schema.names):
            raise ValueError(f"{path} has two columns of the same name; its columns: {schema.names}.")
        check_columns(columns, schema, path)
        wanted = schema if columns is None else select_columns(no_rows(schema), columns).schema
        if not metadata.num_rows:
            yield no_rows(wanted)
            return
        # With a buffer, the pages of a row group are read one by one instead of all at once.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False, read_dictionary=repeated) as file:
            yield from _rechunk(_pieces(path, file, rows, columns, leaves, set(repeated), wanted), rows)
    except ValueError as error:
        raise error if str(path) in str(error) else bad_parquet(path, error) from error
    except (pa.ArrowException, OSError) as error:
        raise bad_parquet(path, error) from error


def bad_parquet(path: Path, error: Exception) -> ValueError:
    """Return the error for a file that cannot be read."""
    return ValueError(f"{path}: not a readable Parquet file, or cut off: {error}")


def _is_wanted(leaf: str, columns: Sequence[str] | None) -> bool:
    return columns is None or any(leaf == name or leaf.startswith(f"{name}.") for name in columns)


def _repeated(file: pq.ParquetFile, leaves: Sequence[int]) -> list[str]:
    """Return the columns to read as dictionaries, which hold repeated texts once."""
    found = []
    groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    views = any("view" in str(kind) for kind in file.schema_arrow.types)
    for leaf in leaves:
        encodings = {name for group in groups for name in group.column(leaf).encodings}
        text = file.schema.column(leaf).physical_type == "BYTE_ARRAY"
        if text and not views and encodings & _DICTIONARY and not any(name.startswith("DELTA") for name in encodings):
            found.append(file.schema.column(leaf).path)
    return found


def _pieces(
    path: Path,
    file: pq.ParquetFile,
    rows: int,
    columns: Sequence[str] | None,
    leaves: list[int],
    repeated: set[str],
    schema: pa.Schema,
) -> Iterator[tuple[pa.Table | LongRow, int]]:
    """Yield tables that fit into memory, with their size in bytes, and placeholders for rows that do not fit."""
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        pages = measure_pages(path, group, leaves)
        at_once = rows
        if pages.total > bounds.BATCH_BYTES or _may_grow(file, group, leaves, repeated):
            at_once = max(1, min(rows, bounds.BATCH_BYTES // max(1, pages.longest)))
        for batch in file.iter_batches(batch_size=at_once, row_groups=[number], columns=columns):
            table = pa.Table.from_batches([batch])
            table = table if columns is None else table.select(list(columns))
            sizes, start = row_bytes(table), 0
            for stop, is_long in _cuts(sizes):
                if is_long:
                    yield LongRow(), 0
                else:
                    yield table.slice(start, stop - start).cast(schema), int(sizes[start:stop].sum())
                start = stop


def _may_grow(file: pq.ParquetFile, group: pq.RowGroupMetaData, leaves: list[int], repeated: set[str]) -> bool:
    """Return whether a column may expand beyond the size of its pages when it is read."""
    for leaf in leaves:
        encodings = set(group.column(leaf).encodings)
        if _PREFIXES in encodings or (encodings & _DICTIONARY and file.schema.column(leaf).path not in repeated):
            return True
    return False


def _cuts(sizes: np.ndarray) -> Iterator[tuple[int, bool]]:
    """Yield the end of each piece, and whether it is a single row that does not fit into memory."""
    if sizes.sum() <= min(bounds.BATCH_BYTES, bounds.MAX_ROW):
        yield len(sizes), False
        return
    start, held = 0, 0
    for i, size in enumerate(sizes.tolist()):
        if i > start and (size > bounds.MAX_ROW or held + size > bounds.BATCH_BYTES):
            yield i, False
            start, held = i, 0
        if size > bounds.MAX_ROW:
            yield i + 1, True
            start = i + 1
        else:
            held += size
    if start < len(sizes):
        yield len(sizes), False


def _rechunk(pieces: Iterator[tuple[pa.Table | LongRow, int]], rows: int) -> Iterator[Batch]:
    """Join small tables up to `rows` rows, as long as they fit into memory."""
    held: list[pa.Table] = []
    size = 0
    for piece, more in pieces:
        if held and (isinstance(piece, LongRow) or size + more > bounds.BATCH_BYTES):
            yield pa.concat_tables(held)
            held, size = [], 0
        if isinstance(piece, LongRow):
            yield [piece]
            continue
        held.append(piece)
        size += more
        while (count := sum(map(len, held))) >= rows:
            rest = len(held[-1]) - (count - rows)
            yield pa.concat_tables([*held[:-1], held[-1].slice(0, rest)])
            held = [held[-1].slice(rest)] if rest < len(held[-1]) else []
            size = more if held else 0
    if held:
        yield pa.concat_tables(held)
