"""Decides which rows to keep: applies curation, then score, quotas and diversity. Every entry point calls `decide`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..curation import Curation, NearDuplicates
from ..progress import hidden
from ..rows.pairs import RowPairs
from ..rows.source import RowSource
from ..scoring.scorer import ScarScorer
from .criteria import Criteria, count_of, read_stratify_by
from .diversity import best_of_groups, choose
from .quotas import Groups, group_values
from .top_k import top_indices


class Choice:
    """
    The criteria applied to rows whose scores may still change. Curation and the column of quotas are read once.

    Args:
        source ([`~scar_hf.rows.source.RowSource`]): n rows.
        criteria ([`Criteria`]): the selection criteria.

    Attributes:
        groups ([`~scar_hf.selecting.quotas.Groups`]): the groups of `stratify_by`; without it, one of all rows.
    """

    def __init__(self, source: RowSource, criteria: Criteria) -> None:
        self.criteria, self.count = criteria, len(source)
        column, shares = (None, None) if criteria.stratify_by is None else read_stratify_by(criteria.stratify_by)
        self._curation: Curation | None = None
        values: list[Any] = []
        if criteria.curation:
            self._curation = Curation([step.fresh() for step in criteria.curation])
            self._curation.add(source.rows() if column is None else _rows_and_values(source, column, values))
        if column is None:
            self.groups = Groups(np.zeros(self.count, dtype=np.int64), [None], [1])
        else:
            self.groups = group_values(values if criteria.curation else source.column(column), column, shares)

    def curated(self, scores: np.ndarray) -> dict[int, str]:
        """Return the reasons of the rows that curation drops, by row number."""
        return self._curation.dropped(scores) if self._curation is not None else {}

    def eligible(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores, NaN where curation drops the row."""
        eligible = scores.copy()
        eligible[list(self.curated(scores))] = np.nan
        return eligible

    def quotas(self, eligible: np.ndarray) -> np.ndarray:
        """Return the number of rows to keep of each group, given the scores of all rows."""
        has_score = ~np.isnan(eligible)
        assert self.criteria.k is not None
        return self.groups.quotas(min(count_of(self.criteria.k, self.count), int(np.count_nonzero(has_score))), has_score)

    def rankable(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers of the rows with a score that curation does not drop, whatever the scores of others are."""
        steps = [] if self._curation is None else [s for s in self._curation.steps if not isinstance(s, NearDuplicates)]
        able = ~np.isnan(scores)
        able[list(Curation(steps).dropped(scores))] = False
        return np.flatnonzero(able)

    def thresholds(self, scores: np.ndarray, wanted: np.ndarray | None) -> np.ndarray:
        """Return the lowest score in each group's best `wanted` rows; minus infinity if it has fewer."""
        if self.criteria.threshold is not None or wanted is None:
            return np.full(len(self.groups.names), self.criteria.threshold)
        eligible = self.eligible(scores)
        best = best_of_groups(eligible, wanted, self.groups.labels)
        found = np.full(len(wanted), np.inf)
        np.minimum.at(found, self.groups.labels[best], eligible[best])
        return np.where(np.bincount(self.groups.labels[best], minlength=len(wanted)) < wanted, -np.inf, found)


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
    choice = Choice(source, criteria)
    curated = choice.curated(scores)
    eligible = scores.copy()
    eligible[list(curated)] = np.nan
    if criteria.threshold is not None:
        return np.flatnonzero(eligible >= criteria.threshold), curated
    if criteria.k is None:
        return np.setdiff1d(np.arange(len(scores)), list(curated)), curated
    if criteria.by_score_alone:
        return top_indices(eligible, criteria.k), curated

    def embed(numbers: np.ndarray) -> np.ndarray:
        assert scorer is not None, "without diversity, nothing asks for vectors"
        with tqdm(total=len(numbers), desc="Comparing", unit="row", disable=hidden(progress)) as bar:
            return scorer.embed_rows(source.rows(numbers), bar)

    device = "cpu" if scorer is None else scorer.device
    return choose(eligible, choice.quotas(eligible), choice.groups.labels, criteria.diversity, embed, device), curated


def _rows_and_values(source: RowSource, column: str, values: list[Any]) -> Iterator[RowPairs]:
    """Read the pairs of all rows, and append their values of a column to `values`."""
    for _, count, columns in source.batches([column]):
        values += columns.get(column, [None] * count)
        yield from source.reader.read(columns)
