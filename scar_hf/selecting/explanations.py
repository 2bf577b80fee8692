"""Explains for each row why it was kept or dropped."""

import logging
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from ..scoring.datasets import ScoredRows
from ..scoring.scorer import NOT_FINITE
from .top_k import order_of, threshold_of

logger = logging.getLogger(__name__)
EXPLANATION_COLUMNS = RANK_COLUMN, DECISION_COLUMN, REASON_COLUMN = "scar_rank", "scar_decision", "scar_reason"


class Explainer:
    """
    Gives each row's rank, decision and reason.

    Args:
        scored ([`ScoredRows`]): n rows.
        kept (`np.ndarray`, *optional*): numbers of the kept rows; without it, only ranks are given.
        max_length (`int`): number of tokens read per text.
        dropped (`Mapping[int, str]`, *optional*): reasons of the rows that curation dropped, by row number.
        criteria (`str`, *optional*): the criteria other than the score, in words.
    """

    def __init__(
        self,
        scored: ScoredRows,
        kept: np.ndarray | None,
        max_length: int,
        dropped: Mapping[int, str] | None = None,
        criteria: str = "",
    ) -> None:
        n = len(scored.scores)
        self.scored, self.max_length, self.dropped, self.criteria = scored, max_length, dropped or {}, criteria
        self.ranks = np.empty(n, dtype=np.int64)
        self.ranks[order_of(scored.scores)] = np.arange(1, n + 1)
        self.counted = int(np.count_nonzero(~np.isnan(scored.scores)))
        self.is_unscored = scored.is_unscored
        self.kept_count = None if kept is None else len(kept)
        self.is_kept = np.zeros(n, dtype=bool)
        if kept is not None:
            self.is_kept[kept] = True
            self.threshold = threshold_of(scored.scores, kept)

    def columns(self, start: int, stop: int) -> dict[str, pa.Array]:
        """
        Explain a range of rows as columns.

        Args:
            start, stop (`int`): row numbers, `stop` excluded.

        Returns:
            `dict[str, pa.Array]`: `scar_rank` (1 is the best, null without a score) and, after a selection,
            `scar_decision` ("kept", "dropped" or "skipped") and `scar_reason`.
        """
        without = np.isnan(self.scored.scores[start:stop])
        columns = {RANK_COLUMN: pa.array(self.ranks[start:stop], mask=without)}
        if self.kept_count is None:
            return columns
        decisions = [self.decision(i) for i in range(start, stop)]
        reasons = [self.reason(i) for i in range(start, stop)]
        return columns | {DECISION_COLUMN: pa.array(decisions, pa.string()), REASON_COLUMN: pa.array(reasons, pa.string())}

    def decision(self, i: int) -> str:
        """Return "kept", "dropped" or "skipped"."""
        if np.isnan(self.scored.scores[i]):
            return "dropped" if self.is_unscored[i] else "skipped"
        return "kept" if self.is_kept[i] else "dropped"

    def reason(self, i: int) -> str:
        """Return the reason in words."""
        score = self.scored.scores[i]
        prefilter = self.scored.prefilter
        if prefilter is not None and self.is_unscored[i]:
            fast = f"score {prefilter.scores[i]:.4f} by {prefilter.report['model']}"
            return self.dropped.get(i, f"{fast}, too low to be scored by the ranker")
        if np.isnan(score):
            return self.scored.skipped.get(i, NOT_FINITE)
        if i in self.dropped:
            return self.dropped[i]
        tied = not self.criteria and not self.is_kept[i] and score >= self.threshold
        tie = "; an earlier row with the same score comes first" if tied else ""
        note = f"; only the first {self.max_length} tokens were read" if self.scored.truncated[i] else ""
        count = f"{self.kept_count:,}"
        kept = f"{count} kept by score and {self.criteria}" if self.criteria else f"best {count} kept"
        return f"score {score:.4f}, rank {self.ranks[i]:,} of {self.counted:,}; {kept}, down to {self.threshold:.4f}{tie}{note}"
