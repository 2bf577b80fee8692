"""Lets the fast ranker score all rows, and the ranker those that may be selected and a sample that tells what is missed."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..progress import hidden
from ..rows.source import RowSource
from ..scoring.datasets import Prefilter, ScoredRows, join, report_skipped
from ..scoring.scorer import ScarScorer
from ..scoring.settings import FAST_RANKER
from .audit import CONFIDENCE, expected_missing, sample_size, upper_bound
from .choice import Choice
from .diversity import best_of_groups, pool_sizes
from .top_k import order_of

logger = logging.getLogger(__name__)
# Scores the shards of a source in this process or elsewhere: one result for each shard.
Engine = Callable[[RowSource, ScarScorer], list[ScoredRows]]
# If the bound does not hold, the ranker scores this many times more rows.
_WIDEN = 1.5
# "auto" begins with this many rows for each row to select, and at least this share.
_FIRST, _FIRST_SHARE = 2.0, 0.02
# Without `min_recall`, the sample is large enough to show that this share is missing at most, but at most one row in this many.
_MISSING, _MOST_AUDITED = 0.05, 20


def score_for(choice: Choice, scorer: ScarScorer, engine: Engine) -> list[ScoredRows]:
    """
    Score all rows, or with `criteria.prefilter` only those that may be selected. The choice sees the rows in the same pass, if
    this process reads them.

    With it, the fast ranker scores all rows. The ranker scores the best share of them by the fast ranker, in each group of
    `stratify_by` in proportion to its quota, and a random sample of all. The rows of the sample outside the best share tell
    how many rows there would be selected: a row counts if it scores at least as high as the last row selected from the best
    share. As more scores only raise that threshold, the count bounds the number of missing rows. With `criteria.min_recall`
    the best share grows until the bound is low enough. All bounds come from one sample, so each may fail with an equal part
    of the probability that any does.

    Args:
        choice ([`~scar_hf.selecting.choice.Choice`]): the criteria of the selection, and the rows.
        scorer ([`ScarScorer`]): the ranker.
        engine (`Callable`): scores the shards of a source with a scorer.

    Returns:
        `list[ScoredRows]`: one for each shard; with a prefilter, scores are NaN where the ranker did not look, and `prefilter`
        says what that means.

    Raises:
        `ValueError`: if another method than a ranker scores, or the share is smaller than the selection.
    """
    source, is_cascade = choice.source, choice.criteria.prefilter is not None
    if is_cascade and scorer.method != "scar":
        raise ValueError(f"`prefilter` needs a ranker, got the method {scorer.method!r}. Leave one of them out.")
    source.watchers += [choice] if choice.needs_rows else []
    parts = engine(source, fast_scorer(scorer) if is_cascade else scorer)
    source.watchers.clear()  # rows that other machines read were shown to nobody
    counts = [len(part.scores) for part in parts]
    source.count = sum(counts)
    if not is_cascade:
        return parts
    cascade = _Cascade(choice, counts, join(parts), scorer, engine)
    return cascade.parts(cascade.run())


def score_all(
    choice: Choice,
    score: Callable[[ScarScorer, RowSource, bool, tqdm], list[ScoredRows]],
    scorer: ScarScorer,
    cache: bool = True,
    progress: bool = False,
) -> ScoredRows:
    """
    Score rows in this process as [`score_for`] does, and log how many were skipped and truncated.

    Args:
        choice ([`~scar_hf.selecting.choice.Choice`]): the criteria of the selection, and n rows.
        score (`Callable`): scores the shards of a source, given the scorer, the source, `cache` and a progress bar.
        scorer ([`ScarScorer`]): the ranker.
        cache (`bool`, *optional*, defaults to `True`): whether to cache scores on disk.
        progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar.

    Returns:
        [`~scar_hf.scoring.datasets.ScoredRows`]: n scores.
    """

    def engine(source: RowSource, by: ScarScorer) -> list[ScoredRows]:
        with tqdm(total=len(source), desc="Scoring", unit="row", disable=hidden(progress)) as bar:
            return score(by, source, cache, bar)

    scored = join(score_for(choice, scorer, engine))
    if len(scored.scores):
        report_skipped(scored, scorer.read_length)
    return scored


def fast_scorer(scorer: ScarScorer) -> ScarScorer:
    """Return the scorer of the fast ranker that reads rows as another scorer does."""
    settings = scorer.settings.as_dict() | {"model": FAST_RANKER, "revision": None, "dtype": "auto", "backend": "torch"}
    settings |= {"device": "cpu", "attn_implementation": None, "tokens_per_batch": None}
    if settings["max_length"] is not None:
        settings["max_length"] = min(settings["max_length"], ScarScorer(FAST_RANKER).read_length)
    return ScarScorer(**settings)


@dataclass(frozen=True)
class _Look:
    """What is known after the ranker has scored a share of the rows."""

    rescored: np.ndarray
    audited: np.ndarray
    hits: int
    expected: float
    bound: float


class _Cascade:
    """The state of a run: which rows the ranker has scored, and its scores."""

    def __init__(self, choice: Choice, counts: Sequence[int], fast: ScoredRows, scorer: ScarScorer, engine: Engine) -> None:
        self.choice, self.criteria, self.fast, self.scorer, self.engine = choice, choice.criteria, fast, scorer, engine
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.labels = self.choice.groups.labels
        self.able = self.choice.rankable(fast.scores)
        able = np.full(len(fast.scores), np.nan, dtype=np.float32)
        able[self.able] = fast.scores[self.able]
        self.ranked = able
        # Rows of each group that the choice is made from. How many exceed a threshold is not known beforehand.
        self.wanted = None if self.criteria.k is None else pool_sizes(choice.quotas(able), self.criteria.diversity)
        self.scores = np.full(len(fast.scores), np.nan, dtype=np.float32)
        self.truncated = fast.truncated.copy()
        self.seen = np.zeros(len(fast.scores), dtype=bool)
        self.problems: dict[int, str] = {}

    def run(self) -> dict[str, Any]:
        """Let the ranker score rows until the criteria are met; return the account for a manifest."""
        n, target = len(self.able), self.criteria.recall_target
        shares = self._shares()
        count = int(self.wanted.sum()) if self.wanted is not None else math.ceil(shares[0] * n / _FIRST)
        size = sample_size(count, n, _MISSING if target is None else 1 - target, len(shares))
        if target is None:
            size = min(size, max(1, n // _MOST_AUDITED))
        sample = np.sort(np.random.default_rng(self.criteria.audit_seed).permutation(self.able)[:size])
        look = _Look(self.able, sample, 0, 0.0, 0.0)
        for share in shares:
            rescored = self._best(share)
            self._score(np.union1d(rescored, sample))
            look = self._look(rescored, sample, 1 - (1 - CONFIDENCE) / len(shares))
            if target is None or look.bound <= 1 - target + 1e-12:
                break
            logger.info("The ranker scored %.1f%% of the rows; up to %.1f%% may be missing.", 100 * share, 100 * look.bound)
        return {
            "model": FAST_RANKER,
            "weights": fast_scorer(self.scorer).identity()["weights"],
            "rows": n,
            "rescored": len(look.rescored),
            "audited": len(look.audited),
            "hits": look.hits,
            "expected_missing": round(look.expected, 6),
            "missing_bound": round(look.bound, 6),
            "confidence": CONFIDENCE,
        }

    def _shares(self) -> list[float]:
        """The shares to try; if a bound must hold, the last is all rows."""
        n, wanted = max(1, len(self.able)), 0 if self.wanted is None else int(self.wanted.sum())
        first = self.criteria.prefilter
        if isinstance(first, str):
            first = min(1.0, max(_FIRST_SHARE, _FIRST * wanted / n)) if wanted else 0.1
        assert first is not None
        if math.ceil(round(first * n, 9)) < wanted:
            raise ValueError(
                f"`prefilter` must not be smaller than the selection: {first!r} of {n:,} rows are less than the {wanted:,} "
                "to select from. Pass a larger share, or 'auto'."
            )
        shares = [float(first)]
        while self.criteria.recall_target is not None and shares[-1] < 1:
            shares.append(min(1.0, shares[-1] * _WIDEN))
        return shares

    def _best(self, share: float) -> np.ndarray:
        """The best rows by the fast ranker, in each group the same number for each row to select."""
        if share >= 1:
            return self.able
        if self.wanted is None:
            return order_of(self.ranked)[: math.ceil(round(share * len(self.able), 9))]
        sizes = np.ceil(np.round(self.wanted * (share * len(self.able) / max(1, int(self.wanted.sum()))), 9))
        return best_of_groups(self.ranked, sizes.astype(np.int64), self.labels)

    def _score(self, rows: np.ndarray) -> None:
        """Score rows that the ranker has not seen."""
        rows = rows[~self.seen[rows]]
        self.seen[rows] = True
        parts = self.engine(self._picked(rows), self.scorer) if len(rows) else []
        start = 0
        for part in parts:
            numbers = rows[start : start + len(part.scores)]
            self.scores[numbers], self.truncated[numbers] = part.scores, part.truncated
            self.problems |= {int(rows[i]): reason for i, reason in part.skipped.items()}
            start += len(part.scores)

    def _picked(self, rows: np.ndarray) -> RowSource:
        """The same source, of which only these rows are read."""
        edges = np.searchsorted(rows, self.starts)
        shards = enumerate(self.choice.source.shards)
        picked = [shard.only(rows[edges[i] : edges[i + 1]] - self.starts[i]) for i, shard in shards]
        return RowSource(picked, self.scorer.reader)

    def _look(self, rescored: np.ndarray, sample: np.ndarray, confidence: float) -> _Look:
        """Count the audited rows that would be selected, and bound the number of rows that are missed."""
        outside = np.setdiff1d(self.able, rescored, assume_unique=True)
        audited = np.intersect1d(sample, outside, assume_unique=True)
        left = len(outside) - len(audited)
        if not left:
            return _Look(rescored, audited, 0, 0.0, 0.0)
        inside = np.full(len(self.scores), np.nan, dtype=np.float32)
        inside[rescored] = self.scores[rescored]
        # The sample has no part in the thresholds, or the count would not be that of a random sample.
        thresholds = self.choice.thresholds(inside, self.wanted)
        eligible = self.choice.eligible(self.scores)
        hits = int(np.count_nonzero(eligible[audited] >= thresholds[self.labels[audited]]))
        bound = upper_bound(hits, len(audited), len(outside), confidence) - hits if len(audited) else left
        weight = left / max(1, len(audited))
        if self.wanted is None:
            count, expected = int(np.count_nonzero(eligible >= thresholds[self.labels])), hits * weight
            return _Look(rescored, audited, hits, expected / max(1.0, count + expected), bound / max(1, count + bound))
        count = int(self.wanted.sum())
        expected = expected_missing(eligible, audited, weight, self.labels, self.wanted)
        return _Look(rescored, audited, hits, min(1.0, expected / count), min(1.0, bound / count))

    def parts(self, report: dict[str, Any]) -> list[ScoredRows]:
        """The scores by shard."""
        skipped = self.fast.skipped | self.problems
        found = []
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            rows = slice(int(start), int(stop))
            mine = {row: why for row, why in skipped.items() if start <= row < stop}
            prefilter = Prefilter(self.fast.scores[rows], report)
            found.append(ScoredRows(self.scores[rows], self.truncated[rows], self.fast.hashes[rows], mine, prefilter))
        return found
