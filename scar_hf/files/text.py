"""Reads and writes JSON Lines, JSON and CSV one row at a time."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import batches as bounds
from .batches import LongRow, batched
from .streams import open_input, suffix_of

# `json.loads` also raises a ValueError for numbers of more than 4,300 digits, and a RecursionError for deeply nested brackets.
_JSON_ERRORS = (ValueError, RecursionError)
_CHUNK = 1 << 16
# The characters that delimit JSON values, and the text between the delimiters of a CSV row.
_JSON_MARKS = re.compile(r'["\\\[\]{}]')
_CSV_TEXT = re.compile(r'[^",\r\n]+')
# Spreadsheets evaluate cells that start with these characters, unless they are numbers.
_FORMULA = re.compile(r"(?!\s*[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?\s*\Z)[=+\-@\t\r]")


def text_batches(path: Path, rows: int) -> Iterator[list[dict[str, Any]]]:
    """
    Read a text file in the format that its suffix names.

    Args:
        path (`Path`): a .jsonl, .jsonl.gz, .jsonl.zst, .json, .json.gz or .csv file.
        rows (`int`): maximum number of objects per batch; long objects make smaller batches.

    Returns:
        `Iterator[list[dict]]`: the objects; a [`LongRow`] replaces one that is too long for memory.

    Raises:
        `ValueError`: if the file is damaged or cut off.
    """
    suffix = suffix_of(path)
    if suffix.startswith(".jsonl"):
        return batched(_read_json_lines(path), rows)
    return batched(_read_json_list(path) if suffix.startswith(".json") else _read_csv(path), rows)


def read_json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """
    Read the objects of a JSON Lines file one by one.

    Args:
        path (`Path`): a .jsonl, .jsonl.gz or .jsonl.zst file.

    Returns:
        `Iterator[dict]`: the objects, unchanged; blank lines are skipped.

    Raises:
        `ValueError`: if a line is not a JSON object or is too long, or the file is cut off; the message names the line.
    """
    for number, (row, _) in enumerate(_read_json_lines(path), start=1):
        if isinstance(row, LongRow):
            raise ValueError(f"{path}, row {number}: {row.reason}. Remove the row.")
        yield row


def _read_json_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each object with the length of its line in bytes."""
    with open_input(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(bounds.MAX_ROW + 1), b""), start=1):
            if len(line) > bounds.MAX_ROW:
                _skip_line(file, line)
                yield LongRow(), 0
                continue
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
            yield row, len(line)


def _skip_line(file: Any, line: bytes) -> None:
    """Read the rest of a line."""
    while line and not line.endswith(b"\n"):
        line = file.readline(_CHUNK)


def _read_json_list(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Parse the objects of a list one by one, so that a large file needs little memory."""
    with open_input(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        try:
            yield from _JsonList(path, text.read).rows()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error}).") from error


class _JsonList:
    """A window on the text of a JSON list that moves from object to object."""

    def __init__(self, path: Path, read: Callable[[int], str]) -> None:
        self.path = path
        self.read = read
        self.text = ""
        self.at = 0

    def rows(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each object with its length in characters."""
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
                row, length = self._value(number)
                if not isinstance(row, dict):
                    kind = type(row).__name__
                    raise ValueError(f"{self.path}: expected a list of objects, got a list whose item {number} is {kind}.")
                yield row, length
                separator = self._next_character()
                self.at += 1
                if separator == "]":
                    break
                if separator != ",":
                    raise self._invalid(f"{separator!r} after item {number}, expected a comma")
        if rest := self._next_character():
            raise self._invalid(f"{rest!r} after the end of the list")

    def _value(self, number: int) -> tuple[Any, int]:
        size = _CHUNK
        while True:
            start = self.at
            try:
                row, self.at = json.JSONDecoder().raw_decode(self.text, start)
                return (LongRow(), 0) if self.at - start > bounds.MAX_ROW else (row, self.at - start)
            except _JSON_ERRORS as error:
                is_long = len(self.text) - start > bounds.MAX_ROW
                if is_long and self.text[start] == "{" and self._skip_object(number) > bounds.MAX_ROW:
                    return LongRow(), 0
                more = "" if is_long else self.read(size)
                if not more:
                    raise self._invalid(f"item {number}: {getattr(error, 'msg', error)}") from error
                self.text, self.at = self.text[start:] + more, 0
                size = len(self.text)  # doubling keeps the work linear in the size of an object

    def _skip_object(self, number: int) -> int:
        """Skip an object, keeping only one chunk in memory, and return its length."""
        depth, in_text, escaped, length = 0, False, -1, -self.at
        while True:
            for found in _JSON_MARKS.finditer(self.text, self.at):
                mark, place = found[0], found.start()
                if place == escaped:
                    continue
                if mark == "\\":
                    escaped = place + 1
                elif mark == '"':
                    in_text = not in_text
                elif not in_text:
                    depth += 1 if mark in "[{" else -1
                    if not depth:
                        self.at = place + 1
                        return length + self.at
            escaped, length = escaped - len(self.text), length + len(self.text)
            self.text, self.at = self.read(_CHUNK), 0
            if not self.text:
                raise self._invalid(f"item {number} does not end")

    def _next_character(self) -> str:
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            self.text, self.at = self.read(_CHUNK), 0
            if not self.text:
                return ""

    def _invalid(self, what: str) -> ValueError:
        return ValueError(f"{self.path}: not valid JSON ({what}). Is it cut off? JSON Lines must be named .jsonl.")


def csv_header(path: Path) -> list[str]:
    """Return the column names of a CSV file; an empty list for an empty file."""
    with open_input(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        return next(_csv_cells(path, _CsvLines(path, text)), (0, []))[1]


def _read_csv(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each row with its length in characters. Cells stay text: 007 does not become 7, and empty cells stay empty."""
    with open_input(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        lines = _CsvLines(path, text)
        cells = _csv_cells(path, lines)
        _, header = next(cells, (0, []))
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise ValueError(f"{path}: the header names {twice!r} twice. Give every column its own name.")
        for number, row in cells:
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {number}: expected {len(header)} cells as in the header, got {len(row)}. Cells with a comma "
                    "or a line break must be quoted. If the file ends there, it is cut off."
                )
            yield (LongRow(), 0) if lines.is_long else (dict(zip(header, row, strict=True)), lines.length)


class _CsvLines:
    """
    Feeds a CSV file to its reader line by line. If a row is too long for memory, it passes on only the delimiters and one
    character per cell, so that the reader still finds the end of the row.
    """

    def __init__(self, path: Path, text: io.TextIOBase) -> None:
        self.path, self.text = path, text
        self.length = self.number = self._kept = 0
        self._begins = True

    @property
    def is_long(self) -> bool:
        """Whether the last row is too long."""
        return self.length > bounds.MAX_ROW

    def end_row(self) -> None:
        """Mark the end of a row: the next line starts a new one."""
        self._begins = True

    def __iter__(self) -> Iterator[str]:
        while True:
            if self._begins:
                self.length, self._kept, self._begins = 0, 0, False
            line = self._line()
            if not line:
                return
            self.number += 1
            yield line

    def _line(self) -> str:
        kept: list[str] = []
        while piece := self.text.readline(_CHUNK):
            self.length += len(piece)
            kept.append(_CSV_TEXT.sub("x", piece) if self.is_long else piece)
            self._kept += len(kept[-1])
            if self._kept > 2 * bounds.MAX_ROW:
                raise ValueError(
                    f"{self.path}, line {self.number + 1}: a row has over {bounds.MAX_ROW:,} delimiters. Is this a CSV file?"
                )
            if piece.endswith(("\n", "\r")):
                break
        return "".join(kept)


def _csv_cells(path: Path, lines: _CsvLines) -> Iterator[tuple[int, list[str]]]:
    # The default of 131,072 characters is too short for some chats. Rows too long for memory are cut before they get here.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * bounds.MAX_ROW))
    reader = csv.reader(iter(lines), strict=True)
    try:
        for row in reader:
            lines.end_row()
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        cut = " The file ends within quotes: it is cut off." if "unexpected end of data" in str(error) else ""
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error}).{cut}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 text ({error}).") from error


def format_rows(
    path: Path, rows: Iterable[dict[str, Any]], header: Sequence[str] | None = None, safe_csv: bool = False
) -> Iterator[bytes]:
    """
    Encode rows as the bytes of a text file.

    Args:
        path (`Path`): path of the file, for its suffix and for error messages.
        rows (`Iterable[dict]`): the rows.
        header (`Sequence[str]`, *optional*): the columns of a CSV file; by default those of the first row.
        safe_csv (`bool`, *optional*, defaults to `False`):
            Put an apostrophe before CSV cells that a spreadsheet would evaluate as a formula.

    Returns:
        `Iterator[bytes]`: the contents of the file, in pieces.
    """
    suffix = suffix_of(path)
    if suffix.startswith(".jsonl"):
        return (_json_text(row) + b"\n" for row in rows)
    return _json_list(rows) if suffix.startswith(".json") else _csv_lines(path, rows, header, safe_csv)


def _json_text(row: Any) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which JSON can escape but UTF-8 cannot encode
        return json.dumps(row, default=str).encode("ascii")


def _json_list(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    yield b"["
    for number, row in enumerate(rows):
        yield (b",\n" if number else b"") + _json_text(row)
    yield b"]\n"


def _csv_lines(path: Path, rows: Iterable[dict[str, Any]], header: Sequence[str] | None, safe: bool) -> Iterator[bytes]:
    if header is not None:
        yield _csv_line(path, header, safe)
    for number, row in enumerate(rows, start=1):
        if header is None:
            header = list(row)
            yield _csv_line(path, header, safe)
        if extra := [name for name in row if name not in header]:
            raise ValueError(
                f"The output {path}: row {number} has a column {extra[0]!r}, but the header has only {list(header)}. Pass the "
                "schema of all rows, or write .jsonl."
            )
        yield _csv_line(path, [_cell(row.get(name)) for name in header], safe)


def _cell(value: Any) -> Any:
    return _json_text(value).decode("utf-8") if isinstance(value, (dict, list)) else value


def _csv_line(path: Path, cells: Sequence[Any], safe: bool) -> bytes:
    line = io.StringIO()
    if safe:
        cells = [f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for cell in cells]
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # with this terminator, cells with either character are quoted
    try:
        return line.getvalue()[:-2].encode("utf-8") + b"\n"
    except UnicodeEncodeError as error:
        raise ValueError(f"The output {path}: UTF-8 cannot encode a text ({error}). Write .jsonl, which escapes it.") from error
