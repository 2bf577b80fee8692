"""One interface to rows in datasets and files, for scoring, quotas, diversity, curation, reports and cards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict

from ..files import Batch, LongRow, Shard, columns_of, dataset_of
from .pairs import PairReader, RowPairs

_ROWS = 1000
# A single column is small, so larger slices are faster.
_COLUMN_ROWS = 10_000


class Watcher(Protocol):
    """Observes rows while they are read for another purpose."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns to see in addition to the pairs."""
        ...

    def see(self, rows: Sequence[RowPairs], values: Mapping[str, list[Any]]) -> None:
        """Observe the next n rows, and their values in the requested columns that exist."""
        ...


class RowSource:
    """
    n rows that can be read again and again, in the same order, a few thousand at a time. Only the columns needed are read from
    columnar data. The output format of a dataset does not matter.

    Args:
        data ([`~datasets.Dataset`] or `Sequence[Shard]`): a dataset, or shards from [`~scar_hf.files.open_shards`].
        reader ([`~scar_hf.rows.pairs.PairReader`]): reads the rows.
        name (`str`, *optional*, defaults to `"the data"`): the name of the data, for messages and reports.

    Attributes:
        count (`int`, *optional*): n, if it is known, for example from scoring; otherwise, rows are counted when needed.
        watchers (`list[Watcher]`): they observe the rows of the next call of [`RowSource.parts`] only.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from scar_hf.rows.pairs import PairReader
    >>> from scar_hf.rows.source import RowSource

    >>> ds = Dataset.from_dict({"instruction": ["2 + 2?"], "response": ["4"], "source": ["maths"]})
    >>> source = RowSource(ds, PairReader())
    >>> len(source), next(source.rows()).response, list(source.column("source"))
    (1, '4', ['maths'])
    ```
    """

    def __init__(self, data: Dataset | Sequence[Shard], reader: PairReader, name: str = "the data") -> None:
        self.shards = [Shard(name, None, data)] if isinstance(data, Dataset) else list(data)
        self.reader, self.name = reader, name
        self.count: int | None = None
        self.watchers: list[Watcher] = []

    def __len__(self) -> int:
        if self.count is None:
            self.count = sum(_rows_in(shard) for shard in self.shards)
        return self.count

    @cached_property
    def dataset(self) -> Dataset:
        """All rows as one dataset; files are read into memory."""
        return dataset_of(self.shards, self.name)

    def column_names(self) -> list[str]:
        """Return the column names; for JSON files, those of the first rows."""
        return first_columns(self.shards[0])[0]

    @property
    def in_memory(self) -> Dataset | None:
        """The dataset of the rows, for random access; `None` if the rows are in files."""
        return self.shards[0].dataset if self.shards[0].path is None else None

    def rows(self, numbers: np.ndarray | None = None) -> Iterator[RowPairs]:
        """Read the pairs of all rows, or of the rows with these numbers (ascending)."""
        every = chain.from_iterable(rows_of_shard(shard, self.reader) for shard in self.shards)
        if numbers is None:
            return every
        if self.in_memory is not None:
            return rows_of(self.in_memory.select(numbers), self.reader)
        wanted = np.zeros(len(self), dtype=bool)
        wanted[numbers] = True
        return (row for row, is_wanted in zip(every, wanted, strict=True) if is_wanted)

    def column(self, name: str) -> Iterator[Any]:
        """Read one column, one value per row, `None` for missing values; class labels as their names."""
        for shard in self.shards:
            names = shard.column_names()
            for batch in shard.batches(_COLUMN_ROWS, [name] if names and name in names else None):
                yield from values_of(batch, columns_of(batch), name)

    def parts(self, extra: Sequence[str] = ()) -> Iterator[Iterator[tuple[list[RowPairs], dict[str, list[Any]]]]]:
        """
        Read the pairs of all rows, shard by shard, and show them to the watchers.

        Args:
            extra (`Sequence[str]`): further columns to read.

        Returns:
            `Iterator` of shards, to be read to the end one after the other: the pairs of at most a thousand rows at a time,
            with their values in the further columns, as from [`columns_of_shard`].
        """
        watchers, self.watchers = self.watchers, []
        names = [*extra, *(name for watcher in watchers for name in watcher.columns)]

        def read(shard: Shard) -> Iterator[tuple[list[RowPairs], dict[str, list[Any]]]]:
            for _, columns, values in columns_of_shard(shard, self.reader, names):
                rows = self.reader.read(columns)
                for watcher in watchers:
                    watcher.see(rows, values)
                yield rows, values

        return map(read, self.shards)

    def batches(self, extra: Sequence[str] = ()) -> Iterator[tuple[range, dict[str, list[Any]], dict[str, list[Any]]]]:
        """
        Read rows a thousand at a time.

        Args:
            extra (`Sequence[str]`): further columns to read.

        Returns:
            `Iterator` of the numbers of the rows, the columns of the pairs, and the further columns, as from
            [`columns_of_shard`].
        """
        start = 0
        for shard in self.shards:
            for count, columns, values in columns_of_shard(shard, self.reader, extra):
                yield range(start, start + count), columns, values
                start += count


def check_dataset(ds: Any, taker: str, advice: str = "Load it with streaming=False.") -> None:
    """Raise a `TypeError`, with advice for streams, unless the function `taker` got a [`~datasets.Dataset`]."""
    if isinstance(ds, DatasetDict):
        raise TypeError(f"{taker} takes one datasets.Dataset, got a DatasetDict: pass one of its splits, {list(ds)}.")
    if isinstance(ds, (IterableDataset, IterableDatasetDict)):
        raise TypeError(f"{taker} takes a datasets.Dataset, got a stream. {advice}")
    if not isinstance(ds, Dataset):
        raise TypeError(f"{taker} takes a datasets.Dataset, got {type(ds).__name__}.")


def rows_of(ds: Dataset, reader: PairReader) -> Iterator[RowPairs]:
    """Read the pairs of all rows of a dataset."""
    return RowSource(ds, reader).rows()


def rows_of_shard(shard: Shard, reader: PairReader) -> Iterator[RowPairs]:
    """Read the pairs of all rows of a shard."""
    for _, columns, _ in columns_of_shard(shard, reader):
        yield from reader.read(columns)


def columns_of_shard(
    shard: Shard, reader: PairReader, extra: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, list[Any]], dict[str, list[Any]]]]:
    """
    Read the columns of a shard that contain its pairs. Other columns of columnar files are not loaded.

    Args:
        shard (`Shard`): a part of the data.
        reader ([`~scar_hf.rows.pairs.PairReader`]): determines the columns needed.
        extra (`Sequence[str]`): further columns to read, if the shard has them.

    Returns:
        `Iterator` of batches of at most a thousand rows: their count; the columns of the pairs by name, with `None` for
        missing values and a [`~scar_hf.files.LongRow`] for rows that are too long to read; and the further columns, class
        labels as their names. Further columns that the batch lacks are left out.
    """
    names = shard.column_names()
    needed = reader.needed(names) if names else None
    if needed is not None:
        needed = list(dict.fromkeys([*needed, *(name for name in extra if name in (names or ()))]))
    # JSON objects may lack keys: a column that an earlier batch had is filled with None.
    seen = dict.fromkeys(needed or names or ())
    waiting: list[LongRow | None] = []  # rows before the first key: empty or too long
    for batch in shard.batches(_ROWS, needed):
        columns = columns_of(batch)
        seen.update(dict.fromkeys(columns))
        if not seen:
            waiting += _long_rows(batch)
            continue
        yield from _without_values(waiting, seen)
        waiting = []
        if len(batch):
            values = {name: values_of(batch, columns, name) for name in extra if name in columns}
            yield len(batch), _filled(batch, columns, seen), values
    yield from _without_values(waiting, _names_for(reader))


def first_columns(shard: Shard) -> tuple[list[str], pa.Schema | None]:
    """Return the column names of a shard and, for columnar data, its schema; for JSON, the names in the first rows."""
    batches = shard.batches(_ROWS)
    first = next((batch for batch in batches if isinstance(batch, pa.Table) or columns_of(batch)), [])
    return (list(columns_of(first)), None) if isinstance(first, list) else (first.column_names, first.schema)


def read_batch(batch: Batch, reader: PairReader, seen: dict[str, None]) -> list[RowPairs]:
    """
    Read a batch of a shard's rows.

    Args:
        batch (`Batch`): n rows, as yielded by `Shard.batches`.
        reader ([`~scar_hf.rows.pairs.PairReader`]): reads the rows.
        seen (`dict[str, None]`): the columns of earlier batches; updated with those of this one.

    Returns:
        `list[RowPairs]`: n rows.
    """
    columns = columns_of(batch)
    seen.update(dict.fromkeys(columns))
    return reader.read(_filled(batch, columns, seen or _names_for(reader)))


def values_of(batch: Batch, columns: Mapping[str, list[Any]], name: str) -> list[Any]:
    """Return the values of one of the columns of a batch, `None` if it is missing; class labels as their names."""
    values = columns.get(name, [None] * len(batch))
    if not isinstance(batch, pa.Table) or name not in batch.column_names:
        return values
    # Only this field, because `datasets` lacks some types of Arrow, such as maps.
    feature = Features.from_arrow_schema(batch.select([name]).schema)[name]
    if not isinstance(feature, ClassLabel):
        return values
    return [None if value is None else feature.int2str(value) for value in values]


def _rows_in(shard: Shard) -> int:
    # A line of JSON or CSV is not always a row.
    count = None if shard.column_names() is None else shard.count_rows()
    return sum(map(len, shard.batches(_ROWS))) if count is None else count


def _names_for(reader: PairReader) -> list[str]:
    """Return the columns to assume for rows that have none."""
    return list(reader.columns or ("instruction", "response"))


def _filled(batch: Batch, columns: Mapping[str, list[Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    """Fill missing columns with `None`, and every value of a row that is too long with its [`LongRow`]."""
    filled = {name: columns.get(name, [None] * len(batch)) for name in names}
    marks = _long_rows(batch)
    if any(mark is not None for mark in marks):
        for name, values in filled.items():
            filled[name] = [value if mark is None else mark for value, mark in zip(values, marks, strict=True)]
    return filled


def _long_rows(batch: Batch) -> list[LongRow | None]:
    if not isinstance(batch, list):
        return [None] * len(batch)
    return [row if isinstance(row, LongRow) else None for row in batch]


def _without_values(
    rows: Sequence[LongRow | None], names: Iterable[str]
) -> Iterator[tuple[int, dict[str, list[Any]], dict[str, list[Any]]]]:
    for start in range(0, len(rows), _ROWS):
        part: list[Any] = list(rows[start : start + _ROWS])
        yield len(part), dict.fromkeys(names, part), {}
