"""Reads the sizes of a Parquet file's decompressed pages from their headers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

# Thrift's compact protocol: field types, and the numbers of the fields read from a page header.
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)
_UNCOMPRESSED, _COMPRESSED = 2, 3
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class ColumnPages:
    """
    The sizes of the pages of some columns of a row group.

    Args:
        total (`int`): decompressed bytes of all pages.
        longest (`int`): sum over columns of the bytes of the longest page, an upper bound for a row.
    """

    total: int
    longest: int


def measure_pages(path: Path, group: pq.RowGroupMetaData, columns: list[int]) -> ColumnPages:
    """
    Sum the sizes of pages. The footer also has sizes, but pages are decompressed according to their own headers.

    Args:
        path (`Path`): the file.
        group (`pq.RowGroupMetaData`): one of its row groups.
        columns (`list[int]`): numbers of its columns.

    Returns:
        [`ColumnPages`].

    Raises:
        `ValueError`: if a header cannot be read.
    """
    total = longest = 0
    with path.open("rb") as file:
        for number in columns:
            column = group.column(number)
            start = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset:
                start = min(start, column.dictionary_page_offset)
            sizes = list(_page_sizes(file, start, column.total_compressed_size))
            total += sum(sizes)
            longest += max(sizes, default=0)
    return ColumnPages(total, longest)


def _page_sizes(file: BinaryIO, start: int, length: int) -> Iterator[int]:
    file.seek(start)
    while file.tell() < start + length:
        header = _read_struct(file)
        size, stored = header.get(_UNCOMPRESSED), header.get(_COMPRESSED)
        if size is None or stored is None or size < 0 or stored < 0:
            raise ValueError("a page has no readable header")
        yield size
        file.seek(stored, 1)


def _read_struct(file: BinaryIO, depth: int = 0) -> dict[int, int]:
    """Return the integers of a struct by field, and skip all other fields."""
    if depth > _DEEPEST:
        raise ValueError("a page header is nested too deeply")
    values: dict[int, int] = {}
    number = 0
    while (first := _byte(file)) & 0x0F != _STOP:
        number = number + (first >> 4) if first >> 4 else _zigzag(file)
        value = _read_value(file, first & 0x0F, depth)
        if value is not None:
            values[number] = value
    return values


def _read_value(file: BinaryIO, kind: int, depth: int, in_list: bool = False) -> int | None:
    if kind in (_I16, _I32, _I64):
        return _zigzag(file)
    if kind in (_TRUE, _FALSE):
        file.seek(int(in_list), 1)
    elif kind == _BYTE:
        file.seek(1, 1)
    elif kind == _DOUBLE:
        file.seek(8, 1)
    elif kind == _BINARY:
        file.seek(_varint(file), 1)
    elif kind in (_LIST, _SET):
        first = _byte(file)
        for _ in range(first >> 4 if first >> 4 != 15 else _varint(file)):
            _read_value(file, first & 0x0F, depth + 1, in_list=True)
    elif kind == _STRUCT:
        _read_struct(file, depth + 1)
    else:
        raise ValueError("a page header has a field of an unknown type")
    return None


def _byte(file: BinaryIO) -> int:
    data = file.read(1)
    if not data:
        raise ValueError("the file ends within a page header")
    return data[0]


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = _byte(file)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
        if shift > 63:
            raise ValueError("a page header has a number that is too long")


def _zigzag(file: BinaryIO) -> int:
    value = _varint(file)
    return (value >> 1) ^ -(value & 1)
