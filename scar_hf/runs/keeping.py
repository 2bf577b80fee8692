"""Which rows of the shards are kept: those that curation leaves, by score, quotas and diversity."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..diversity import choose
from ..files import Shard, columns_of
from ..pairs import PairReader, RowPairs
from ..quotas import Groups, group_values
from ..scoring import ScarScorer
from ..selection import count_of, top_indices

if TYPE_CHECKING:
    from ..curation import Curation

_ROWS = 1000


def columns_of_shard(shard: Shard, reader: PairReader, extra: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, list[Any]]]]:
    """
    Read what a shard's rows are read from, and of columnar files no other columns.

    Args:
        shard (`Shard`): a part of the data.
        reader ([`~scar_hf.pairs.PairReader`]): what says which columns are needed.
        extra (`Sequence[str]`): columns wanted besides, where the shard has them.

    Returns:
        `Iterator` of numbers of rows, at most a thousand, and their columns by name, `None` where a row has no value.
    """
    names = shard.column_names()
    needed = reader.needed(names) if names else None
    if needed is not None:
        needed = list(dict.fromkeys([*needed, *(name for name in extra if name in (names or ()))]))
    seen: dict[str, None] = {}
    for batch in shard.batches(_ROWS, needed):
        columns = columns_of(batch)
        if not columns:
            continue
        # Objects may lack a key: what some row before had, this one has without a value.
        seen.update(dict.fromkeys(columns))
        yield len(batch), {name: columns.get(name, [None] * len(batch)) for name in seen}


def rows_of_shard(shard: Shard, reader: PairReader) -> Iterator[RowPairs]:
    """Read what is scored of each row of a shard."""
    for _, columns in columns_of_shard(shard, reader):
        yield from reader.read(columns)


def leave_out(curation: "Curation", shards: Sequence[Shard], reader: PairReader, scores: np.ndarray) -> dict[int, str]:
    """Read all rows once more and have them curated: why rows are left out, by their number over all shards."""
    for shard in shards:
        curation.add(rows_of_shard(shard, reader))
    return curation.dropped(scores)


def keep(
    shards: Sequence[Shard],
    scorer: ScarScorer,
    scores: np.ndarray,
    k: float | None,
    dropped: Mapping[int, str],
    stratify_by: str | None = None,
    diversity: float = 0.0,
) -> np.ndarray:
    """
    Choose the rows to keep.

    Args:
        shards (`Sequence[Shard]`): what was scored; read again for quotas and for diversity.
        scorer ([`ScarScorer`]): with what, whose vectors say which rows are alike.
        scores (`np.ndarray` of shape `(n,)`): of all rows; NaN where a row has none.
        k (`float` or `int`, *optional*): a share of all rows or a count; without it all are kept that are not dropped.
        dropped (`Mapping[int, str]`): rows that curation leaves out.
        stratify_by (`str`, *optional*): a column whose values keep their shares of the data.
        diversity (`float`, *optional*, defaults to 0.0): as for [`~scar_hf.ScarRanking.indices`].

    Returns:
        `np.ndarray`: their numbers over all shards, ascending.
    """
    if k is None:
        return np.setdiff1d(np.arange(len(scores)), list(dropped))
    if stratify_by is None and not diversity:
        return best_of(scores, k, dropped)
    eligible = _without(scores, dropped)
    has_score = ~np.isnan(eligible)
    count = min(count_of(k, len(scores)), int(np.count_nonzero(has_score)))
    if stratify_by is None:
        groups = Groups(np.zeros(len(scores), dtype=np.int64), [None], [1])
    else:
        groups = group_values(_values(shards, stratify_by), stratify_by)

    def embed(numbers: np.ndarray) -> np.ndarray:
        wanted = np.zeros(len(scores), dtype=bool)
        wanted[numbers] = True
        every = (row for shard in shards for row in rows_of_shard(shard, scorer.reader))
        return scorer.embed_rows(row for row, is_wanted in zip(every, wanted, strict=True) if is_wanted)

    return choose(eligible, groups.quotas(count, has_score), groups.labels, diversity, embed, scorer.device)


def best_of(scores: np.ndarray, k: float, dropped: Mapping[int, str]) -> np.ndarray:
    """Numbers of the best `k` by score alone, of those that are not dropped."""
    return top_indices(_without(scores, dropped), k)


def _without(scores: np.ndarray, dropped: Mapping[int, str]) -> np.ndarray:
    eligible = scores.copy()
    eligible[list(dropped)] = np.nan
    return eligible


def _values(shards: Sequence[Shard], name: str) -> Iterator[Any]:
    for shard in shards:
        for batch in shard.batches(_ROWS):
            yield from columns_of(batch).get(name, [None] * len(batch))
