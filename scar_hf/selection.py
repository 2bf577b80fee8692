"""Scores -> which rows are kept, and why."""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from .criteria import count_of
from .pairs import RowPairs, check_rows
from .planning import Chunk, cut_chunks
from .score_cache import ScoreCache
from .scoring import NOT_FINITE, ScarScorer

logger = logging.getLogger(__name__)
# Where the part of a reason begins that differs from row to row.
_OWN_PART = re.compile(r" of row \d|: row \d| \(")
EXPLANATION_COLUMNS = RANK_COLUMN, DECISION_COLUMN, REASON_COLUMN = "scar_rank", "scar_decision", "scar_reason"


@dataclass
class ScoredRows:
    """
    The scores of n rows.

    Args:
        scores (`np.ndarray` of shape `(n,)`, float32): NaN where a row has none.
        truncated (`np.ndarray` of shape `(n,)`, bool): whether a text of the row was truncated to `max_length`.
        hashes (`np.ndarray` of shape `(n,)`, uint64): what was scored, in short.
        skipped (`dict[int, str]`): why a row has no score, by its number.
    """

    scores: np.ndarray
    truncated: np.ndarray
    hashes: np.ndarray
    skipped: dict[int, str] = field(default_factory=dict)


def score_rows(
    scorer: ScarScorer,
    rows: Iterable[RowPairs],
    cache: ScoreCache | None = None,
    bar: tqdm | None = None,
    start: int = 0,
) -> ScoredRows:
    """
    Score a stream of rows, holding no more of it than a few chunks.

    Args:
        scorer ([`ScarScorer`]): with what. If it is strict, rows that cannot be scored are an error.
        rows (`Iterable[RowPairs]`): n rows, read one by one.
        cache ([`~scar_hf.score_cache.ScoreCache`], *optional*): where scores are kept and found again.
        bar (`tqdm`, *optional*): a progress bar of rows.
        start (`int`, *optional*, defaults to 0): number of the first row, for messages and `skipped`.

    Returns:
        [`ScoredRows`].

    Raises:
        `ValueError`: if the scorer is strict and rows cannot be scored; with their numbers.
    """

    def checked(chunks: Iterable[Chunk]) -> Iterable[Chunk]:
        seen = start
        for chunk in chunks:
            if scorer.settings.strict:
                check_rows(chunk.rows, seen)
            seen += len(chunk.rows)
            yield chunk

    scores, truncated, hashes, skipped, number = [], [], [], {}, start
    for chunk, result in scorer.score_chunks(checked(cut_chunks(rows)), cache, bar):
        scores.append(result.scores)
        truncated.append(result.truncated)
        hashes.append(chunk.row_hashes)
        for i in np.flatnonzero(np.isnan(result.scores)):
            skipped[number + int(i)] = chunk.rows[i].problem or NOT_FINITE
        number += len(chunk.rows)
    return ScoredRows(_joined(scores, np.float32), _joined(truncated, np.bool_), _joined(hashes, np.uint64), skipped)


def order_of(scores: np.ndarray) -> np.ndarray:
    """Numbers of all rows from best to worst, ties in the order of the input, rows without a score last."""
    return np.argsort(-scores, kind="stable")


def top_indices(scores: np.ndarray, k: float) -> np.ndarray:
    """
    Numbers of the best rows, ascending. Ties go to the earlier row.

    Args:
        scores (`np.ndarray` of shape `(n,)`): NaN where a row has none.
        k (`float` or `int`): as for [`count_of`].

    Returns:
        `np.ndarray`: int64; fewer than asked for only where fewer rows have a score.
    """
    count = min(count_of(k, len(scores)), int(np.count_nonzero(~np.isnan(scores))))
    return np.sort(order_of(scores)[:count])


def threshold_of(scores: np.ndarray, kept: np.ndarray) -> float:
    """The lowest score kept; NaN where there is nothing to keep."""
    return float(scores[kept].min()) if len(kept) else math.nan


class Explainer:
    """
    Says of rows where they stand, and why they were kept or not.

    Args:
        scored ([`ScoredRows`]): n rows.
        kept (`np.ndarray`, *optional*): numbers of the rows kept; without it there are only ranks.
        max_length (`int`): tokens that were read of each text.
        dropped (`Mapping[int, str]`, *optional*): why rows were left out whatever their score, by their number.
        criteria (`str`, *optional*): what decided besides the score, in words.
    """

    def __init__(
        self,
        scored: ScoredRows,
        kept: np.ndarray | None,
        max_length: int,
        dropped: Mapping[int, str] | None = None,
        criteria: str = "",
    ):
        n = len(scored.scores)
        self.scored, self.max_length, self.dropped, self.criteria = scored, max_length, dropped or {}, criteria
        self.ranks = np.empty(n, dtype=np.int64)
        self.ranks[order_of(scored.scores)] = np.arange(1, n + 1)
        self.counted = int(np.count_nonzero(~np.isnan(scored.scores)))
        self.kept_count = None if kept is None else len(kept)
        self.is_kept = np.zeros(n, dtype=bool)
        if kept is not None:
            self.is_kept[kept] = True
            self.threshold = threshold_of(scored.scores, kept)

    def columns(self, start: int, stop: int) -> dict[str, pa.Array]:
        """
        Explain rows as columns.

        Args:
            start, stop (`int`): the rows' numbers, `stop` not included.

        Returns:
            `dict[str, pa.Array]`: `scar_rank` (1 is the best, null without a score) and, where rows were selected,
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
        """What became of a row: "kept", "dropped" or "skipped"."""
        if np.isnan(self.scored.scores[i]):
            return "skipped"
        return "kept" if self.is_kept[i] else "dropped"

    def reason(self, i: int) -> str:
        """Why, in a sentence."""
        score = self.scored.scores[i]
        if np.isnan(score):
            return self.scored.skipped.get(i, NOT_FINITE)
        if i in self.dropped:
            return self.dropped[i]
        tied = not self.criteria and not self.is_kept[i] and score >= self.threshold
        tie = "; an earlier row with the same score comes first" if tied else ""
        note = f"; only {self.max_length} tokens of a text were read" if self.scored.truncated[i] else ""
        count = f"{self.kept_count:,}"
        kept = f"{count} are kept, by score and {self.criteria}" if self.criteria else f"the best {count} are kept"
        return (
            f"score {score:.4f}, number {self.ranks[i]:,} of {self.counted:,}; {kept}, down to {self.threshold:.4f}{tie}{note}"
        )


def report_skipped(scored: ScoredRows, max_length: int) -> None:
    """Log how many rows have no score, and of how many only the beginning was read."""
    n = len(scored.scores)
    if scored.skipped:
        logger.warning("%d of %d rows have no score: %s.", len(scored.skipped), n, reasons_in_words(scored.skipped))
    if scored.truncated.any():
        text = "Of %d of %d rows only the first %d tokens of a text were read; truncation=False reads all."
        logger.warning(text, int(scored.truncated.sum()), n, max_length)


def check_selected(kept: np.ndarray, n: int, skipped: Mapping[int, str], dropped: Mapping[int, str] | None = None) -> None:
    """
    Check that something was selected.

    Args:
        kept (`np.ndarray`): numbers of the rows kept.
        n (`int`): number of rows that came in.
        skipped, dropped (`Mapping[int, str]`): why rows have no score, and why others were left out.

    Raises:
        `ValueError`: if none of `n` rows was, with the reasons and their counts.
    """
    if len(kept) or not n:
        return
    reasons = {i: kind_of_reason(reason) for i, reason in [*skipped.items(), *(dropped or {}).items()]}
    raise ValueError(
        f"Nothing can be selected from {n:,} rows: {len(skipped):,} have no score, {len(dropped or {}):,} were left out "
        f"({reasons_in_words(reasons)}). See which columns and which `turn` are read, or loosen the curation."
    )


def kind_of_reason(reason: str) -> str:
    """A reason without what is each row's own, such as the number of the row that it repeats."""
    return _OWN_PART.split(reason, maxsplit=1)[0]


def reasons_in_words(skipped: Mapping[int, str]) -> str:
    """Reasons with their counts, the most frequent first."""
    return "; ".join(f"{count:,} × {reason}" for reason, count in Counter(skipped.values()).most_common(10))


def _joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
