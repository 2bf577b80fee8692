"""One interface to rows, so that scoring, quotas, diversity and curation treat datasets and shards on disk alike."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from datasets import ClassLabel, Dataset

from ..files import Batch, LongRow, Shard, columns_of
from .pairs import PairReader, RowPairs

_ROWS = 1000
# A single column is small, so larger slices are faster.
_COLUMN_ROWS = 10_000


class RowSource(Protocol):
    """n rows that can be read again and again, in the same order."""

    def __len__(self) -> int: ...

    def column_names(self) -> list[str]:
        """Return the column names; for JSON files, those of the first rows."""
        ...

    def rows(self, numbers: np.ndarray | None = None) -> Iterator[RowPairs]:
        """Read the pairs of all rows, or of the rows with these numbers (ascending)."""
        ...

    def column(self, name: str) -> Iterator[Any]:
        """Read one column, one value per row, `None` for missing values; class labels as their names."""
        ...


class DatasetRows:
    """
    The rows of a [`~datasets.Dataset`], independent of its output format.

    Args:
        ds ([`~datasets.Dataset`]): n rows.
        reader ([`~scar_hf.rows.pairs.PairReader`]): reads the rows.
    """

    def __init__(self, ds: Dataset, reader: PairReader):
        self.ds, self.reader = ds, reader

    def __len__(self) -> int:
        return len(self.ds)

    def column_names(self) -> list[str]:
        """Return the column names."""
        return self.ds.column_names

    def rows(self, numbers: np.ndarray | None = None) -> Iterator[RowPairs]:
        """Read the pairs of all rows, or of the rows with these numbers (ascending)."""
        return rows_of(self.ds if numbers is None else self.ds.select(numbers), self.reader)

    def column(self, name: str) -> Iterator[Any]:
        """Read one column, one value per row; class labels as their names."""
        return _dataset_column(self.ds, name)


class ShardRows:
    """
    The rows of shards, read a thousand at a time. Columnar files read only the columns needed.

    Args:
        shards (`Sequence[Shard]`): from [`~scar_hf.files.open_shards`].
        reader ([`~scar_hf.rows.pairs.PairReader`]): reads the rows.
        count (`int`): number of rows, as counted during scoring.
    """

    def __init__(self, shards: Sequence[Shard], reader: PairReader, count: int):
        self.shards, self.reader, self.count = shards, reader, count

    def __len__(self) -> int:
        return self.count

    def column_names(self) -> list[str]:
        """Return the column names; for JSON files, those of the first rows."""
        known = (list(columns_of(batch)) for batch in self.shards[0].batches(_ROWS))
        return next((names for names in known if names), [])

    def rows(self, numbers: np.ndarray | None = None) -> Iterator[RowPairs]:
        """Read the pairs of all rows, or of the rows with these numbers (ascending)."""
        every = (row for shard in self.shards for row in rows_of_shard(shard, self.reader))
        if numbers is None:
            return every
        wanted = np.zeros(self.count, dtype=bool)
        wanted[numbers] = True
        return (row for row, is_wanted in zip(every, wanted, strict=True) if is_wanted)

    def column(self, name: str) -> Iterator[Any]:
        """Read one column, one value per row, `None` for missing values; class labels as their names."""
        for shard in self.shards:
            if shard.dataset is not None and name in shard.dataset.column_names:
                yield from _dataset_column(shard.dataset, name)
                continue
            names = shard.column_names()
            for batch in shard.batches(_ROWS, [name] if names and name in names else None):
                yield from columns_of(batch).get(name, [None] * len(batch))


def rows_of(ds: Dataset, reader: PairReader) -> Iterator[RowPairs]:
    """Read all rows of a dataset in slices, loading only the columns needed, independent of its output format."""
    if not ds.column_names:  # an empty file has no columns to check
        return
    needed = reader.needed(ds.column_names)
    plain = ds.with_format(None) if needed is None else ds.with_format(None).select_columns(needed)
    for start in range(0, len(ds), _ROWS):
        yield from reader.read(plain[start : start + _ROWS])


def columns_of_shard(shard: Shard, reader: PairReader, extra: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """
    Read the columns of a shard that its rows are read from. Columnar files load no other columns.

    Args:
        shard (`Shard`): a part of the data.
        reader ([`~scar_hf.rows.pairs.PairReader`]): determines the columns needed.
        extra (`Sequence[str]`): further columns to read, if the shard has them.

    Returns:
        `Iterator` of batches of at most a thousand rows: their count, and columns by name, with `None` for missing values
        and a [`~scar_hf.files.LongRow`] for rows that are too long to read.
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
        yield from _without_values(waiting, seen, extra)
        waiting = []
        if len(batch):
            yield len(batch), _filled(batch, columns, seen, extra)
    yield from _without_values(waiting, _names_for(reader), extra)


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


def _names_for(reader: PairReader) -> list[str]:
    """Return the columns to assume for rows that have none."""
    return list(reader.columns or ("instruction", "response"))


def _filled(
    batch: Batch, columns: Mapping[str, list[Any]], names: Iterable[str], extra: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Fill missing columns with `None`, and every value of a row that is too long with its [`LongRow`]."""
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
    """Read the pairs to score from each row of a shard."""
    for _, columns in columns_of_shard(shard, reader):
        yield from reader.read(columns)


def _dataset_column(ds: Dataset, name: str) -> Iterator[Any]:
    feature, plain = ds.features[name], ds.with_format(None).select_columns([name])
    for start in range(0, len(ds), _COLUMN_ROWS):
        values = plain[start : start + _COLUMN_ROWS][name]
        if isinstance(feature, ClassLabel):
            values = [None if value is None else feature.int2str(value) for value in values]
        yield from values
