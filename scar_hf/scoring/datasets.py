"""Scores datasets: in `ds.map`, in slices, and shard by shard."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset, Value
from tqdm.auto import tqdm

from ..rows.batches import score_column
from ..rows.pairs import RowPairs, check_rows, reasons_in_words
from ..rows.source import RowSource
from .cache import ScoreCache
from .chunks import Chunk, cut_chunks
from .scorer import NOT_FINITE, SCORE_COLUMN, ScarScorer
from .settings import BUNDLED_RANKER, with_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prefilter:
    """
    What stands behind the missing scores of rows that only the fast ranker has scored.

    Args:
        scores (`np.ndarray` of shape `(n,)`, float32): scores of the fast ranker.
        report (`dict`): what was scored, and what may be missing, as in a manifest; see docs/cascade.md.
    """

    scores: np.ndarray
    report: dict[str, Any]


@dataclass
class ScoredRows:
    """
    The scores of n rows.

    Args:
        scores (`np.ndarray` of shape `(n,)`, float32): NaN for rows without a score.
        truncated (`np.ndarray` of shape `(n,)`, bool): whether a text of the row was truncated to `max_length`.
        hashes (`np.ndarray` of shape `(n,)`, uint64): a short hash of each row's scored texts.
        skipped (`dict[int, str]`): the reasons of the rows that cannot be scored, by row number.
        prefilter ([`Prefilter`], *optional*): why other rows have no score.
    """

    scores: np.ndarray
    truncated: np.ndarray
    hashes: np.ndarray
    skipped: dict[int, str] = field(default_factory=dict)
    prefilter: Prefilter | None = None

    @property
    def is_unscored(self) -> np.ndarray:
        """Whether each row could have a score and has none, as only the fast ranker has scored it; bool of shape `(n,)`."""
        if self.prefilter is None:
            return np.zeros(len(self.scores), dtype=bool)
        unscored = np.isnan(self.scores)
        unscored[list(self.skipped)] = False
        return unscored


def join(parts: Sequence[ScoredRows]) -> ScoredRows:
    """Return the scores of all shards as one."""
    prefilters = [part.prefilter for part in parts if part.prefilter is not None]
    return ScoredRows(
        _joined([part.scores for part in parts], np.float32),
        _joined([part.truncated for part in parts], np.bool_),
        _joined([part.hashes for part in parts], np.uint64),
        {number: reason for part in parts for number, reason in part.skipped.items()},
        Prefilter(np.concatenate([found.scores for found in prefilters]), prefilters[0].report) if prefilters else None,
    )


@with_settings
def scar_score(model: str = BUNDLED_RANKER, **settings: Any) -> ScarScorer:
    """
    Create a function for `ds.map` that adds the column `scar_score`.

    Args:
        {settings}

    Returns:
        [`ScarScorer`].

    Example:

    ```python
    >>> ds = ds.map(scar_score(), batched=True)
    ```
    """
    return ScarScorer(model, **settings)


def score_rows(
    scorer: ScarScorer,
    rows: Iterable[RowPairs],
    cache: ScoreCache | None = None,
    bar: tqdm | None = None,
    start: int = 0,
) -> ScoredRows:
    """
    Score a stream of rows, with only a few chunks in memory.

    Args:
        scorer ([`ScarScorer`]): the scorer. If it is strict, rows that cannot be scored raise an error.
        rows (`Iterable[RowPairs]`): n rows, read one by one.
        cache ([`~scar_hf.scoring.cache.ScoreCache`], *optional*): the score cache.
        bar (`tqdm`, *optional*): a progress bar that counts rows.
        start (`int`, *optional*, defaults to 0): number of the first row, for messages and `skipped`.

    Returns:
        [`ScoredRows`].

    Raises:
        `ValueError`: if the scorer is strict and rows cannot be scored; the message lists them.
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


def score_each(scorer: ScarScorer, source: RowSource, cache: ScoreCache | None, bar: tqdm | None) -> list[ScoredRows]:
    """
    Score the shards of a source, one after the other.

    Args:
        scorer, cache, bar: see [`score_rows`].
        source ([`~scar_hf.rows.source.RowSource`]): the rows, which its watchers see, too.

    Returns:
        `list[ScoredRows]`: one for each shard, row numbers counted over all of them.
    """
    parts: list[ScoredRows] = []
    for part in source.parts():
        start = sum(len(found.scores) for found in parts)
        parts.append(score_rows(scorer, (row for rows, _ in part for row in rows), cache, bar, start))
    return parts


def with_scores(ds: Dataset, scores: np.ndarray) -> Dataset:
    """Add the scores as the column `scar_score`, float32, null for rows without a score."""
    return ds.add_column(SCORE_COLUMN, score_column(scores).to_pylist(), feature=Value("float32"))


def report_skipped(scored: ScoredRows, max_length: int) -> None:
    """Log how many rows have no score and how many were truncated."""
    n = len(scored.scores)
    if scored.skipped:
        logger.warning("%d of %d rows have no score: %s.", len(scored.skipped), n, reasons_in_words(scored.skipped))
    if scored.truncated.any():
        text = "%d of %d rows have texts that were truncated to %d tokens; truncation=False reads them in full."
        logger.warning(text, int(scored.truncated.sum()), n, max_length)


def _joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
