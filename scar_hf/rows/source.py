"""Rows to read: a dataset in memory and shards on disk look alike to scoring, quotas, diversity and curation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from datasets import ClassLabel, Dataset

from ..files import Batch, LongRow, Shard, columns_of
from .pairs import PairReader, RowPairs

_ROWS = 1000
# A single column is small: fewer, larger slices.
_COLUMN_ROWS = 10_000


class RowSource(Protocol):
    """n rows that can be read again and again, in the same order."""

    def __len__(self) -> int: ...

    def column_names(self) -> list[str]:
        """The columns; of files of objects those of the first rows."""
        ...

    def rows(self, numbers: np.ndarray | None = None) -> Iterator[RowPairs]:
        """Read instruction and response of all rows, or of those of these numbers, ascending."""
        ...

    def column(self, name: str) -> Iterator[Any]:
        """Read one column, a value for each row, `None` where it has none; class labels by their names."""
        ...


class DatasetRows:
    """
    The rows of a [`~datasets.Dataset`], whatever output format is set on it.

    Args:
        ds ([`~datasets.Dataset`]): n rows.
        reader ([`~scar_hf.rows.pairs.PairReader`]): how they are read.
    """

    def __init__(self, ds: Dataset, reader: PairReader):
        self.ds, self.reader = ds, reader

    def __len__(self) -> int:
        return len(self.ds)

    def column_names(self) -> list[str]:
        """The columns."""
        return self.ds.column_names

    def rows(self, numbers: np.ndarray | None = None) -> Iterator[RowPairs]:
        """Read instruction and response of all rows, or of those of these numbers, ascending."""
        return rows_of(self.ds if numbers is None else self.ds.select(numbers), self.reader)

    def column(self, name: str) -> Iterator[Any]:
        """Read one column, a value for each row; class labels by their names."""
        return _dataset_column(self.ds, name)


class ShardRows:
    """
    The rows of shards, a thousand at a time; of columnar files no other columns than those needed.

    Args:
        shards (`Sequence[Shard]`): from [`~scar_hf.files.open_shards`].
        reader ([`~scar_hf.rows.pairs.PairReader`]): how their rows are read.
        count (`int`): how many rows they have, as counted when they were scored.
    """

    def __init__(self, shards: Sequence[Shard], reader: PairReader, count: int):
        self.shards, self.reader, self.count = shards, reader, count

    def __len__(self) -> int:
        return self.count

    def column_names(self) -> list[str]:
        """The columns; of files of objects those of the first rows."""
        known = (list(columns_of(batch)) for batch in self.shards[0].batches(_ROWS))
        return next((names for names in known if names), [])

    def rows(self, numbers: np.ndarray | None = None) -> Iterator[RowPairs]:
        """Read instruction and response of all rows, or of those of these numbers, ascending."""
        every = (row for shard in self.shards for row in rows_of_shard(shard, self.reader))
        if numbers is None:
            return every
        wanted = np.zeros(self.count, dtype=bool)
        wanted[numbers] = True
        return (row for row, is_wanted in zip(every, wanted, strict=True) if is_wanted)

    def embedded_by(self, scorer: Any) -> Callable[[np.ndarray], np.ndarray]:
        """A function from numbers of rows to their vectors, as `diversity` compares them."""
        return lambda numbers: scorer.embed_rows(self.rows(numbers))

    def column(self, name: str) -> Iterator[Any]:
        """Read one column, a value for each row, `None` where it has none; class labels by their names."""
        for shard in self.shards:
            if shard.dataset is not None and name in shard.dataset.column_names:
                yield from _dataset_column(shard.dataset, name)
                continue
            names = shard.column_names()
            for batch in shard.batches(_ROWS, [name] if names and name in names else None):
                yield from columns_of(batch).get(name, [None] * len(batch))


def rows_of(ds: Dataset, reader: PairReader) -> Iterator[RowPairs]:
    """Read all rows of a dataset, a slice and the columns needed at a time, whatever output format is set on it."""
    if not ds.column_names:  # a file without rows has no columns that could be wrong
        return
    needed = reader.needed(ds.column_names)
    plain = ds.with_format(None) if needed is None else ds.with_format(None).select_columns(needed)
    for start in range(0, len(ds), _ROWS):
        yield from reader.read(plain[start : start + _ROWS])


def columns_of_shard(shard: Shard, reader: PairReader, extra: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """
    Read what a shard's rows are read from, and of columnar files no other columns.

    Args:
        shard (`Shard`): a part of the data.
        reader ([`~scar_hf.rows.pairs.PairReader`]): what says which columns are needed.
        extra (`Sequence[str]`): further columns, where the shard has them.

    Returns:
        `Iterator` of numbers of rows, at most a thousand, and their columns by name, `None` where a row has no value, and a
        [`~scar_hf.files.LongRow`] where it is too long to be read.
    """
    names = shard.column_names()
    needed = reader.needed(names) if names else None
    if needed is not None:
        needed = list(dict.fromkeys([*needed, *(name for name in extra if name in (names or ()))]))
    # Objects may lack a key: what some row before had, this one has without a value.
    seen = dict.fromkeys(needed or names or ())
    waiting: list[LongRow | None] = []  # rows from before the first key, which are empty or too long
    for batch in shard.batches(_ROWS, needed):
        columns = columns_of(batch)
        seen.update(dict.fromkeys(columns))
        if not seen:
            waiting += _long_rows(batch)
            continue
        yield from _without_values(waiting, seen, extra)
        waiting = []
        if len(batch):
            yield len(batch), _filled(batch, columns, seen, extra)
    yield from _without_values(waiting, _names_for(reader), extra)


def read_batch(batch: Batch, reader: PairReader, seen: dict[str, None]) -> list[RowPairs]:
    """
    Read some rows of a shard.

    Args:
        batch (`Batch`): n rows, such as `Shard.batches` gives.
        reader ([`~scar_hf.rows.pairs.PairReader`]): how they are read.
        seen (`dict[str, None]`): the columns of batches before, to which those of this one are added.

    Returns:
        `list[RowPairs]`: n rows.
    """
    columns = columns_of(batch)
    seen.update(dict.fromkeys(columns))
    return reader.read(_filled(batch, columns, seen or _names_for(reader)))


def _names_for(reader: PairReader) -> list[str]:
    """Columns to read from rows that have none at all."""
    return list(reader.columns or ("instruction", "response"))


def _filled(
    batch: Batch, columns: Mapping[str, list[Any]], names: Iterable[str], extra: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """All columns named, `None` where there is no value, and a long row for each value of its own."""
    filled = {name: columns.get(name, [None] * len(batch)) for name in names}
    marks = _long_rows(batch)
    if any(mark is not None for mark in marks):
        for name in filled.keys() - set(extra):
            filled[name] = [value if mark is None else mark for value, mark in zip(filled[name], marks, strict=True)]
    return filled


def _long_rows(batch: Batch) -> list[LongRow | None]:
    if not isinstance(batch, list):
        return [None] * len(batch)
    return [row if isinstance(row, LongRow) else None for row in batch]


def _without_values(
    rows: Sequence[LongRow | None], names: Iterable[str], extra: Sequence[str]
) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    for start in range(0, len(rows), _ROWS):
        part = list(rows[start : start + _ROWS])
        yield len(part), {name: [None] * len(part) if name in extra else part for name in names}


def rows_of_shard(shard: Shard, reader: PairReader) -> Iterator[RowPairs]:
    """Read what is scored of each row of a shard."""
    for _, columns in columns_of_shard(shard, reader):
        yield from reader.read(columns)


def _dataset_column(ds: Dataset, name: str) -> Iterator[Any]:
    feature, plain = ds.features[name], ds.with_format(None).select_columns([name])
    for start in range(0, len(ds), _COLUMN_ROWS):
        values = plain[start : start + _COLUMN_ROWS][name]
        if isinstance(feature, ClassLabel):
            values = [None if value is None else feature.int2str(value) for value in values]
        yield from values
