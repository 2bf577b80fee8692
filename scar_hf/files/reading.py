"""Finds the shards of a file, a folder or a dataset on the Hub, and reads their rows in batches."""

import functools
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from .batches import (
    MAX_ROW,
    Batch,
    LongRow,
    batch_bytes,
    check_columns,
    columns_of,
    conform,
    merge_schemas,
    no_rows,
    rechunk,
    schema_of,
    select_columns,
    take,
)
from .parquet import bad_parquet, parquet_batches
from .streams import INPUT_FORMATS, INPUT_SUFFIXES, import_zstandard, suffix_of
from .text import csv_header, text_batches

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NOT_DATA = ("manifest.json", "skipped.jsonl", "dropped.jsonl", "README.md")
NOT_DATA_ENDINGS = (
    ".manifest.json",
    ".skipped.jsonl",
    ".dropped.jsonl",
    ".completions.jsonl",
    ".rejected.jsonl",
    ".unrated.jsonl",
)


@dataclass(frozen=True)
class Shard:
    """
    A part of the data that can be read separately: a file, an Arrow folder, or a dataset on the Hub.

    Args:
        name (`str`): the path within the folder of shards, with `/`; the name of the file or folder; or the id on the Hub.
        path (`Path`, *optional*): the file or the Arrow folder; `None` for a dataset on the Hub or in memory.
        dataset ([`~datasets.Dataset`], *optional*): the rows, except for files.
        numbers (`np.ndarray`, *optional*): numbers of the rows to read, ascending; by default all.
    """

    name: str
    path: Path | None
    dataset: Dataset | None = field(default=None, repr=False, compare=False)
    _lines: int | None = field(default=None, init=False, repr=False, compare=False)
    numbers: np.ndarray | None = field(default=None, repr=False, compare=False)

    def only(self, numbers: np.ndarray) -> "Shard":
        """Return a copy of the shard that reads only the rows with these numbers (ascending)."""
        return replace(self, numbers=numbers)

    def files(self) -> list[Path]:
        """
        Return the files that hold the rows.

        Returns:
            `list[Path]`: the file, the .arrow and .json files of an Arrow folder, or nothing for a dataset on the Hub.
        """
        if self.path is None or not self.path.is_dir():
            return [] if self.path is None else [self.path]
        return sorted(file for file in self.path.iterdir() if file.suffix in (".arrow", ".json"))

    def column_names(self) -> list[str] | None:
        """
        Return the column names, if they are known without reading rows.

        Returns:
            `list[str]` or `None`: `None` for JSON, where each row may have different columns.

        Raises:
            `ValueError`: if the file is damaged.
        """
        if self.dataset is not None:
            return self.dataset.column_names
        assert self.path is not None
        if self.path.suffix == ".parquet":
            try:
                return pq.read_schema(self.path).names
            except (pa.ArrowException, OSError) as error:
                raise bad_parquet(self.path, error) from error
        return csv_header(self.path) if self.path.suffix == ".csv" else None

    def count_rows(self) -> int | None:
        """Return the number of rows if it can be found quickly; blank lines may be counted."""
        if self.numbers is not None:
            return len(self.numbers)
        if self.dataset is not None:
            return len(self.dataset)
        assert self.path is not None
        if self.path.suffix == ".parquet":
            return pq.read_metadata(self.path).num_rows
        if self.path.suffix != ".jsonl":
            return None
        if self._lines is None:
            self.hashes()
        return self._lines

    def hashes(self) -> dict[Path, str]:
        """Return the SHA-256 of each file, in hexadecimal. The same pass counts the lines of JSON Lines files."""
        found = {}
        for file in self.files():
            digest, lines = sha256(), 0
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
                    lines += block.count(b"\n") if file.suffix == ".jsonl" else 0
            found[file] = digest.hexdigest()
            object.__setattr__(self, "_lines", lines)
        return found

    def batches(self, rows: int = 1000, columns: Sequence[str] | None = None) -> Iterator[Batch]:
        """
        Read the rows in order, with no more than a few batches in memory.

        Args:
            rows (`int`, *optional*, defaults to 1000): number of rows per batch; the last may have fewer.
            columns (`Sequence[str]`, *optional*): the columns to read; ignored for JSON and CSV.

        Returns:
            `Iterator[Batch]`: lists of objects for JSON and CSV, otherwise tables. Columnar data without rows yields one empty
            table with its schema. A batch has fewer rows if they are long, and a [`~scar_hf.files.LongRow`] in place of a
            row that is too long for memory.

        Raises:
            `ValueError`: if the data is damaged or cut off, or a column of `columns` does not exist.
        """
        if rows < 1:
            raise ValueError(f"`rows` must be 1 or more, got {rows}.")
        every = self._batches(rows, columns)
        return every if self.numbers is None else _picked(every, self.numbers)

    def _batches(self, rows: int, columns: Sequence[str] | None) -> Iterator[Batch]:
        if self.dataset is not None:
            return _dataset_batches(self.dataset, rows, columns, self.path)
        assert self.path is not None
        if self.path.suffix == ".parquet":
            return parquet_batches(self.path, rows, columns)
        return text_batches(self.path, rows)


def open_shards(data: str | Path, split: str | None = None) -> list[Shard]:
    """
    Find the shards of a dataset.

    Args:
        data (`str` or `Path`):
            A file, a folder of files of one kind (in the order of their paths; names that begin with `.` or `_`,
            manifests, lists of skipped rows and README.md are left out), a folder written by `Dataset.save_to_disk`, or
            the id of a dataset on the Hub if no such path exists.
        split (`str`, *optional*): the split of a saved `DatasetDict` or of a dataset on the Hub (by default `"train"`).

    Returns:
        `list[Shard]`: at least one.

    Raises:
        `ValueError`: if the path does not exist, or is not readable data.
    """
    path = Path(data)
    if path.is_dir():
        return _open_folder(path, split)
    if not path.exists():
        if isinstance(data, str) and _HUB_ID.fullmatch(data) and suffix_of(data) not in INPUT_SUFFIXES:
            return [Shard(data, None, _load_from_hub(data, split or "train"))]
        raise ValueError(f"{path} does not exist. Expected {INPUT_FORMATS}.")
    suffix = suffix_of(path)
    if suffix not in INPUT_SUFFIXES:
        raise ValueError(f"{path} ends in {suffix!r}; expected {INPUT_FORMATS}.")
    _check_no_split(path, split)
    _check_suffix(suffix)
    return [Shard(path.name, path)]


def read_dataset(
    path: str | Path, split: str | None = None, *, max_rows: int | None = None, max_bytes: int | None = None
) -> Dataset:
    """
    Read an instruction set with all its columns.

    Args:
        path (`str` or `Path`): see [`open_shards`].
        split (`str`, *optional*): see [`open_shards`].
        max_rows (`int`, *optional*): maximum number of rows to read from files, approximately.
        max_bytes (`int`, *optional*): maximum size of the decompressed texts.

    Returns:
        [`~datasets.Dataset`]: in the order of the data.

    Raises:
        `ValueError`: if the data does not exist, has an unknown format, is damaged or cut off (with the line), or is larger
        than `max_bytes`.
    """
    return dataset_of(open_shards(path, split), path, max_rows=max_rows, max_bytes=max_bytes)


def dataset_of(
    shards: Sequence[Shard], name: str | Path, *, max_rows: int | None = None, max_bytes: int | None = None
) -> Dataset:
    """
    Read shards into one dataset with all columns.

    Args:
        shards (`Sequence[Shard]`): from [`open_shards`].
        name (`str` or `Path`): the name of the data, for messages.
        max_rows, max_bytes: see [`read_dataset`].

    Returns:
        [`~datasets.Dataset`]: in the order of the data.

    Raises:
        `ValueError`: see [`read_dataset`].
    """
    if shards[0].dataset is not None:
        return shards[0].dataset
    batches: list[Batch] = []
    rows = size = 0
    for batch in (batch for shard in shards for batch in shard.batches(1000 if max_rows else 10_000)):
        batches.append(batch)
        rows += len(batch)
        if max_bytes is not None and (size := size + batch_bytes(batch)) > max_bytes:
            raise ValueError(f"{name} holds more than {max_bytes / 1e6:,.0f} MB of text when decompressed.")
        if max_rows is not None and rows >= max_rows:
            break
    if any(isinstance(row, LongRow) for batch in batches if isinstance(batch, list) for row in batch):
        raise ValueError(f"{name} has a row longer than {MAX_ROW:,} bytes, the limit for a row. Remove it.")
    if batches and not isinstance(batches[0], list):
        try:
            schema = functools.reduce(merge_schemas, map(schema_of, batches), None)
            return Dataset(pa.concat_tables(conform(batch, schema) for batch in batches))
        except ValueError as error:
            raise ValueError(f"{name}: {error}.") from error
    columns = columns_of(list(itertools.chain.from_iterable(batches)))
    try:
        return Dataset.from_dict(columns or {name: [] for name in shards[0].column_names() or []})
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: a column has values of different types, which a table cannot hold: {error}") from error


def is_arrow_folder(path: Path) -> bool:
    """Return whether `Dataset.save_to_disk` wrote the folder."""
    return (path / "state.json").is_file() and (path / "dataset_info.json").is_file()


def _open_folder(path: Path, split: str | None) -> list[Shard]:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(child.name for child in path.iterdir() if is_arrow_folder(child))
        if split is None:
            example = path / splits[0] if splits else path
            raise ValueError(f"{path} holds the splits {splits}: name one of them, or pass its folder, such as {example}.")
        if split not in splits:
            raise ValueError(f"{path} has no split {split!r}; it holds the splits {splits}.")
        path, split = path / split, None
    if is_arrow_folder(path):
        _check_no_split(path, split)
        return [Shard(path.name, path, _load_from_disk(path))]
    files = _data_files(path)
    if not files:
        raise ValueError(
            f"{path} is a folder, but not one written by `Dataset.save_to_disk`, and has no data files. "
            f"Expected {INPUT_FORMATS}."
        )
    kinds = Counter(suffix_of(file) for file in files)
    if len(kinds) > 1:
        examples = "; ".join(f"{count:,} of {kind!r}, such as {_first(files, kind, path)}" for kind, count in kinds.items())
        raise ValueError(
            f"{path} is not a folder of shards of one kind: it has {examples}. Move other files elsewhere, or put '_' "
            "before its name."
        )
    suffix = suffix_of(files[0])
    if suffix not in INPUT_SUFFIXES:
        raise ValueError(f"{path} is a folder of files that end in {suffix!r}; expected {INPUT_FORMATS}.")
    _check_no_split(path, split)
    _check_suffix(suffix)
    return [Shard(file.relative_to(path).as_posix(), file) for file in files]


def _data_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise ValueError(f"{Path(parent) / name} is a link to another folder; pass that folder, or copy it here.")
        found += [
            Path(parent) / name
            for name in names
            if name[0] not in "._" and name not in NOT_DATA and not name.endswith(NOT_DATA_ENDINGS)
        ]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _first(files: list[Path], kind: str, folder: Path) -> str:
    return next(file for file in files if suffix_of(file) == kind).relative_to(folder).as_posix()


def _check_no_split(path: Path, split: str | None) -> None:
    if split is not None:
        raise ValueError(
            f"{path} has no splits, but the split {split!r} was asked for. Leave it out, or pass that split's file."
        )


def _check_suffix(suffix: str) -> None:
    if suffix.endswith(".zst"):
        import_zstandard()  # fail before any work is done


def _load_from_disk(path: Path) -> Dataset:
    try:
        return load_from_disk(str(path))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _bad_arrow(path, error) from error


def _load_from_hub(name: str, split: str) -> Dataset:
    try:
        dataset = load_dataset(name, split=split)
    except (DatasetsError, OSError, ValueError) as error:
        raise ValueError(
            f"{name} is not a path on this machine and could not be loaded as split {split!r} of a dataset on the Hub: {error} "
            f"Check the id, the split and the network, or pass a file. Expected {INPUT_FORMATS}."
        ) from error
    if not isinstance(dataset, Dataset):
        raise ValueError(f"{name}: expected one dataset for the split {split!r}, got {type(dataset).__name__}.")
    return dataset


def _picked(batches: Iterator[Batch], numbers: np.ndarray) -> Iterator[Batch]:
    """Yield the rows with these numbers, and stop reading after the last of them."""
    start = 0
    for batch in batches:
        first, last = np.searchsorted(numbers, [start, start + len(batch)])
        if first < last:
            yield take(batch, numbers[first:last] - start)
        start += len(batch)
        if last == len(numbers):
            return


def _dataset_batches(dataset: Dataset, rows: int, columns: Sequence[str] | None, folder: Path | None) -> Iterator[pa.Table]:
    schema = dataset.features.arrow_schema
    check_columns(columns, schema, folder or "The dataset")
    if not len(dataset):
        tables = iter([no_rows(schema)])
    elif folder is None:
        part = dataset if columns is None else dataset.select_columns(list(columns))
        tables = part.with_format("arrow").iter(rows)
        schema = part.features.arrow_schema
    else:
        tables = rechunk(_arrow_tables(folder, [file["filename"] for file in dataset.cache_files]), rows)
    for table in tables:
        table = table.cast(schema)
        yield table if columns is None else select_columns(table, columns)


def _arrow_tables(folder: Path, files: list[str]) -> Iterator[pa.Table]:
    """Read files instead of mapping them, because every mapped page that was read would count as used memory."""
    try:
        for file in files:
            with pa.OSFile(file) as source, pa.ipc.open_stream(source) as stream:
                yield from (pa.Table.from_batches([batch]) for batch in stream)
    except (pa.ArrowException, OSError) as error:
        raise _bad_arrow(folder, error) from error


def _bad_arrow(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: the Arrow files are damaged or cut off: {error}")
