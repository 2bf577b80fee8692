"""Decides which rows to keep: applies curation, then score, quotas and diversity. Every entry point calls `decide`."""

from collections.abc import Mapping, Sequence
from functools import cached_property
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
from .quotas import Grouping, Groups
from .top_k import eligible_scores, top_indices


class Choice:
    """
    The criteria applied to rows whose scores may still change. Curation and the column of quotas are read once: a choice that
    watches its source sees them while the rows are scored; otherwise it reads them when they are needed.

    Args:
        source ([`~scar_hf.rows.source.RowSource`]): n rows.
        criteria ([`Criteria`]): the selection criteria.
    """

    def __init__(self, source: RowSource, criteria: Criteria) -> None:
        self.source, self.criteria = source, criteria
        self._start()

    def _start(self) -> None:
        by = self.criteria.stratify_by
        self._grouping = None if by is None else Grouping(*read_stratify_by(by))
        self._curation = Curation([step.fresh() for step in self.criteria.curation])
        self._seen = 0

    @property
    def needs_rows(self) -> bool:
        """Whether the criteria need more of the rows than their scores."""
        return bool(self.criteria.curation) or self._grouping is not None

    @property
    def columns(self) -> Sequence[str]:
        """The column of quotas, if there are any."""
        return () if self._grouping is None else (self._grouping.name,)

    def see(self, rows: Sequence[RowPairs], values: Mapping[str, list[Any]]) -> None:
        """Look at further rows; see [`~scar_hf.rows.source.Watcher`]."""
        self._seen += len(rows)
        self._curation.add(rows)
        if self._grouping is not None:
            self._grouping.add(values.get(self._grouping.name, [None] * len(rows)))

    def _read(self) -> None:
        """Read what the criteria need, unless all rows were seen while they were scored."""
        if not self.needs_rows or self._seen == len(self.source):
            return
        self._start()
        if self.criteria.curation:
            for _, columns, values in self.source.batches(self.columns):
                self.see(self.source.reader.read(columns), values)
        elif self._grouping is not None:
            self._grouping.add(self.source.column(self._grouping.name))
            self._seen = len(self.source)

    @cached_property
    def groups(self) -> Groups:
        """The groups of `stratify_by`; without it, one of all rows."""
        self._read()
        if self._grouping is None:
            return Groups(np.zeros(len(self.source), dtype=np.int64), [None], [1])
        return self._grouping.groups()

    def curated(self, scores: np.ndarray) -> dict[int, str]:
        """Return the reasons of the rows that curation drops, by row number."""
        self._read()
        return self._curation.dropped(scores)

    def eligible(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores, NaN where curation drops the row."""
        return eligible_scores(scores, self.curated(scores))

    def quotas(self, eligible: np.ndarray) -> np.ndarray:
        """Return the number of rows to keep of each group, given the scores of all rows."""
        has_score = ~np.isnan(eligible)
        assert self.criteria.k is not None
        return self.groups.quotas(min(count_of(self.criteria.k, len(eligible)), int(np.count_nonzero(has_score))), has_score)

    def rankable(self, scores: np.ndarray) -> np.ndarray:
        """Return the numbers of the rows with a score that curation does not drop, whatever the scores of others are."""
        self._read()
        steps = [step for step in self._curation.steps if not isinstance(step, NearDuplicates)]
        return np.flatnonzero(~np.isnan(eligible_scores(scores, Curation(steps).dropped(scores))))

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
    choice: Choice, scores: np.ndarray, scorer: ScarScorer | None = None, progress: bool = False
) -> tuple[np.ndarray, dict[int, str]]:
    """
    Choose the rows to keep. Rows are read again for diversity (the pool), and for curation and quotas (one column) unless the
    choice saw them while they were scored.

    Args:
        choice ([`Choice`]): the criteria, and n rows.
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score. Such rows are kept only if neither `k` nor a
            threshold is given, in which case every row that passes curation is kept.
        scorer ([`ScarScorer`], *optional*): its vectors of rows are compared; required for `diversity`.
        progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar while rows are compared.

    Returns:
        `tuple(np.ndarray, dict[int, str])`: the numbers of the kept rows, ascending, and the reasons of the rows that
        curation dropped, by number.

    Raises:
        `ValueError`: if the column does not exist, or `diversity` is set without `scorer`.
    """
    criteria = choice.criteria
    if criteria.diversity and scorer is None:
        raise ValueError(
            "`diversity` compares rows by the ranker's vectors, but this ranking has no scorer to compute them. Rank the data "
            "with scar_rank, or pass ScarRanking(..., scorer=...)."
        )
    curated = choice.curated(scores)
    eligible = eligible_scores(scores, curated)
    if criteria.threshold is not None:
        return np.flatnonzero(eligible >= criteria.threshold), curated
    if criteria.k is None:
        return np.setdiff1d(np.arange(len(scores)), list(curated)), curated
    if criteria.by_score_alone:
        return top_indices(eligible, criteria.k), curated

    def embed(numbers: np.ndarray) -> np.ndarray:
        assert scorer is not None, "without diversity, nothing asks for vectors"
        with tqdm(total=len(numbers), desc="Comparing", unit="row", disable=hidden(progress)) as bar:
            return scorer.encode_rows(choice.source.rows(numbers), bar)[:, :2]

    device = "cpu" if scorer is None else scorer.device
    return choose(eligible, choice.quotas(eligible), choice.groups.labels, criteria.diversity, embed, device), curated
