"""Rows of JSON Lines, JSON and CSV, one at a time in both directions."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .streams import open_input, suffix_of

# What `json.loads` raises: its own errors, numbers of more than 4,300 digits, brackets nested by the thousand.
_JSON_ERRORS = (ValueError, RecursionError)
_CHUNK = 1 << 16
# Bytes (of JSON lists and CSV: characters) of one row. No instruction is as long; a compressed file of some kilobytes can be.
MAX_ROW = 64_000_000


def text_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a text file in the format of its suffix."""
    suffix = suffix_of(path)
    if suffix.startswith(".jsonl"):
        return read_json_rows(path)
    return _read_json_list(path) if suffix.startswith(".json") else _read_csv(path)


def read_json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """
    Read the objects of a JSON Lines file one by one.

    Args:
        path (`Path`): a .jsonl, .jsonl.gz or .jsonl.zst file.

    Returns:
        `Iterator[dict]`: the objects as they are; blank lines are left out.

    Raises:
        `ValueError`: with the line, if one is no JSON object or the file is cut in the middle.
    """
    with open_input(path) as lines:
        for number, line in enumerate(_lines_of(path, lines), start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                row = json.loads(text)
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8 text ({error}).") from error
            except _JSON_ERRORS as error:
                cut = " The file ends there: it is cut off." if not line.endswith(b"\n") else ""
                raise ValueError(f"{path}, line {number}: not valid JSON ({error}).{cut}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}.")
            yield row


def _lines_of(path: Path, file: Any) -> Iterator[Any]:
    """The lines of a file, of bytes or of text, none of them longer than memory should hold."""
    number = 0
    while line := file.readline(MAX_ROW + 1):
        number += 1
        if len(line) > MAX_ROW:
            raise ValueError(f"{path}, line {number}: longer than {MAX_ROW:,} bytes, which no row of text is. Remove it.")
        yield line


def _read_json_list(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of one list, parsed one after the other so that a large file needs little memory."""
    with open_input(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        try:
            yield from _JsonList(path, text.read).rows()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error}).") from error


class _JsonList:
    """A window on the text of a JSON list that moves from object to object."""

    def __init__(self, path: Path, read: Callable[[int], str]):
        self.path = path
        self.read = read
        self.text = ""
        self.at = 0

    def rows(self) -> Iterator[dict[str, Any]]:
        first = self._next_character()
        if first == "{":
            raise ValueError(f"{self.path}: expected a list of objects, got dict. JSON Lines must be named .jsonl.")
        if first != "[":
            raise self._invalid(f"it begins with {first!r}" if first else "it is empty")
        self.at += 1
        number = 0
        if self._next_character() == "]":
            self.at += 1
        else:
            while True:
                number += 1
                self._next_character()
                row = self._value(number)
                if not isinstance(row, dict):
                    kind = type(row).__name__
                    raise ValueError(f"{self.path}: expected a list of objects, got a list whose item {number} is {kind}.")
                yield row
                separator = self._next_character()
                self.at += 1
                if separator == "]":
                    break
                if separator != ",":
                    raise self._invalid(f"{separator!r} after item {number}, expected a comma")
        if rest := self._next_character():
            raise self._invalid(f"{rest!r} after the end of the list")

    def _value(self, number: int) -> Any:
        size = _CHUNK
        while True:
            try:
                row, self.at = json.JSONDecoder().raw_decode(self.text, self.at)
                return row
            except _JSON_ERRORS as error:
                more = self.read(size)
                if not more:
                    raise self._invalid(f"item {number}: {getattr(error, 'msg', error)}") from error
                self.text, self.at = self.text[self.at :] + more, 0
                if len(self.text) > MAX_ROW:
                    raise self._too_long(number) from error
                size = len(self.text)  # to double keeps the work of a large object linear

    def _next_character(self) -> str:
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            self.text, self.at = self.read(_CHUNK), 0
            if not self.text:
                return ""

    def _too_long(self, number: int) -> ValueError:
        return ValueError(
            f"{self.path}: item {number} is longer than {MAX_ROW:,} characters, which no row of text is. Remove it."
        )

    def _invalid(self, what: str) -> ValueError:
        return ValueError(f"{self.path}: not valid JSON ({what}). Cut off, or JSON Lines? The latter must be named .jsonl.")


def csv_header(path: Path) -> list[str]:
    """The names of a CSV file's columns; none if the file is empty."""
    with open_input(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        return next(_csv_cells(path, _lines_of(path, text)), (0, []))[1]


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    """Every cell stays the text it is: neither 007 nor an empty cell turns into something else."""
    with open_input(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        cells = _csv_cells(path, _lines_of(path, text))
        _, header = next(cells, (0, []))
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise ValueError(f"{path}: the header names {twice!r} twice; every column needs a name of its own.")
        for number, row in cells:
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {number}: expected {len(header)} cells as in the header, got {len(row)}. Cells with a comma "
                    "or a line break must be in quotes; if the file ends there, it is cut off."
                )
            yield dict(zip(header, row, strict=True))


def _csv_cells(path: Path, text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))  # 131,072 characters by default, shorter than some chats
    reader = csv.reader(text, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        cut = " The file ends within quotes: it is cut off." if "unexpected end of data" in str(error) else ""
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error}).{cut}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 text ({error}).") from error


def format_rows(path: Path, rows: Iterable[dict[str, Any]], header: Sequence[str] | None = None) -> Iterator[bytes]:
    """
    The bytes of a text file, row by row.

    Args:
        path (`Path`): of the file, for its suffix and for errors.
        rows (`Iterable[dict]`): the rows.
        header (`Sequence[str]`, *optional*): the columns of a CSV file, by default those of the first row.

    Returns:
        `Iterator[bytes]`: what to write.
    """
    suffix = suffix_of(path)
    if suffix.startswith(".jsonl"):
        return (_json_text(row) + b"\n" for row in rows)
    return _json_list(rows) if suffix.startswith(".json") else _csv_lines(path, rows, header)


def _json_text(row: Any) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape and UTF-8 cannot encode
        return json.dumps(row, default=str).encode("ascii")


def _json_list(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    yield b"["
    for number, row in enumerate(rows):
        yield (b",\n" if number else b"") + _json_text(row)
    yield b"]\n"


def _csv_lines(path: Path, rows: Iterable[dict[str, Any]], header: Sequence[str] | None) -> Iterator[bytes]:
    if header is not None:
        yield _csv_line(path, header)
    for number, row in enumerate(rows, start=1):
        if header is None:
            header = list(row)
            yield _csv_line(path, header)
        if extra := [name for name in row if name not in header]:
            raise ValueError(
                f"The output {path}: row {number} has a column {extra[0]!r}, but the header has only {list(header)}. Pass the "
                "schema of all rows, or write .jsonl."
            )
        yield _csv_line(path, [_cell(row.get(name)) for name in header])


def _cell(value: Any) -> Any:
    return _json_text(value).decode("utf-8") if isinstance(value, (dict, list)) else value


def _csv_line(path: Path, cells: Sequence[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # a terminator with both characters has each of them quoted
    try:
        return line.getvalue()[:-2].encode("utf-8") + b"\n"
    except UnicodeEncodeError as error:
        raise ValueError(f"The output {path}: UTF-8 cannot encode a text ({error}). Write .jsonl, which escapes it.") from error
