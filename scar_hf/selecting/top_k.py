"""Picks the best rows by score."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from ..rows.pairs import kind_of_reason, reasons_in_words
from .criteria import count_of


def order_of(scores: np.ndarray) -> np.ndarray:
    """Return the numbers of all rows, best first. Ties keep the input order; rows without a score come last."""
    return np.argsort(-scores, kind="stable")


def eligible_scores(scores: np.ndarray, dropped: Iterable[int]) -> np.ndarray:
    """Return the scores, NaN for the rows with these numbers, which curation drops."""
    eligible = scores.copy()
    eligible[list(dropped)] = np.nan
    return eligible


def top_indices(scores: np.ndarray, k: float) -> np.ndarray:
    """
    Return the numbers of the best rows, ascending. Ties go to the earlier row.

    Args:
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score.
        k (`float` or `int`): a share or a count, as in [`count_of`].

    Returns:
        `np.ndarray`: int64; fewer than requested only if fewer rows have a score.
    """
    count = min(count_of(k, len(scores)), int(np.count_nonzero(~np.isnan(scores))))
    return np.sort(order_of(scores)[:count])


def threshold_of(scores: np.ndarray, kept: np.ndarray) -> float:
    """Return the lowest score kept, or NaN if nothing was kept."""
    return float(scores[kept].min()) if len(kept) else math.nan


def check_selected(kept: np.ndarray, n: int, skipped: Mapping[int, str], dropped: Mapping[int, str] | None = None) -> None:
    """
    Check that at least one row was selected.

    Args:
        kept (`np.ndarray`): numbers of the kept rows.
        n (`int`): number of input rows.
        skipped, dropped (`Mapping[int, str]`): reasons of the rows without a score and of the rows that curation dropped.

    Raises:
        `ValueError`: if none of `n` rows was selected; the message counts the reasons.
    """
    if len(kept) or not n:
        return
    reasons = {i: kind_of_reason(reason) for i, reason in [*skipped.items(), *(dropped or {}).items()]}
    raise ValueError(
        f"Nothing can be selected from {n:,} rows: {len(skipped):,} have no score, {len(dropped or {}):,} were dropped "
        f"({reasons_in_words(reasons)}). Check `columns` and `turn`, or relax the curation."
    )
