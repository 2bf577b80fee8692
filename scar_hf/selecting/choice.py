"""Decides which rows to keep: applies curation, then score, quotas and diversity. Every entry point calls `decide`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..curation import Curation
from ..progress import hidden
from ..rows.pairs import RowPairs
from ..rows.source import RowSource
from ..scoring.scorer import ScarScorer
from .criteria import Criteria, count_of, read_stratify_by
from .diversity import choose
from .quotas import Groups, group_values
from .top_k import top_indices


def decide(
    source: RowSource,
    scores: np.ndarray,
    criteria: Criteria,
    scorer: ScarScorer | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, dict[int, str]]:
    """
    Choose the rows to keep. Rows are read again only if the criteria need it: all of them for curation, one column for
    quotas (together with curation in one pass), the pool for diversity.

    Args:
        source ([`~scar_hf.rows.source.RowSource`]): n rows.
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score. Such rows are kept only if neither `k` nor a
            threshold is given, in which case every row that passes curation is kept.
        criteria ([`Criteria`]): the selection criteria.
        scorer ([`ScarScorer`], *optional*): its vectors of rows are compared; required for `diversity`.
        progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar while rows are compared.

    Returns:
        `tuple(np.ndarray, dict[int, str])`: the numbers of the kept rows, ascending, and the reasons of the rows that
        curation dropped, by number.

    Raises:
        `ValueError`: if the column does not exist, or `diversity` is set without `scorer`.
    """
    if criteria.diversity and scorer is None:
        raise ValueError(
            "`diversity` compares rows by the ranker's vectors, but this ranking has no scorer to compute them. Rank the data "
            "with scar_rank, or pass ScarRanking(..., scorer=...)."
        )
    column, shares = (None, None) if criteria.stratify_by is None else read_stratify_by(criteria.stratify_by)
    curated: dict[int, str] = {}
    values: list[Any] = []
    if criteria.curation:
        curation = Curation([step.fresh() for step in criteria.curation])
        curation.add(source.rows() if column is None else _rows_and_values(source, column, values))
        curated = curation.dropped(scores)
    eligible = scores.copy()
    eligible[list(curated)] = np.nan
    if criteria.threshold is not None:
        return np.flatnonzero(eligible >= criteria.threshold), curated
    if criteria.k is None:
        return np.setdiff1d(np.arange(len(scores)), list(curated)), curated
    if criteria.by_score_alone:
        return top_indices(eligible, criteria.k), curated
    has_score = ~np.isnan(eligible)
    count = min(count_of(criteria.k, len(scores)), int(np.count_nonzero(has_score)))
    if column is None:
        groups = Groups(np.zeros(len(scores), dtype=np.int64), [None], [1])
    else:
        groups = group_values(values if criteria.curation else source.column(column), column, shares)

    def embed(numbers: np.ndarray) -> np.ndarray:
        assert scorer is not None, "without diversity, nothing asks for vectors"
        with tqdm(total=len(numbers), desc="Comparing", unit="row", disable=hidden(progress)) as bar:
            return scorer.embed_rows(source.rows(numbers), bar)

    device = "cpu" if scorer is None else scorer.device
    return choose(eligible, groups.quotas(count, has_score), groups.labels, criteria.diversity, embed, device), curated


def _rows_and_values(source: RowSource, column: str, values: list[Any]) -> Iterator[RowPairs]:
    """Read the pairs of all rows, and append their values of a column to `values`."""
    for _, count, columns in source.batches([column]):
        values += columns.get(column, [None] * count)
        yield from source.reader.read(columns)
