"""Scores -> the best rows."""

import math
from collections.abc import Mapping

import numpy as np

from ..rows.pairs import kind_of_reason, reasons_in_words
from .criteria import count_of


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
