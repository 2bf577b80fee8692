"""Computes ranks of scores. Equal scores share their mean rank."""

import numpy as np
import pandas as pd


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """
    Rank scores.

    Args:
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score.

    Returns:
        `np.ndarray` of shape `(n,)`, float64: 1 for the lowest score; NaN for rows without a score.
    """
    return pd.Series(scores).rank().to_numpy()


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """
    Compute Spearman's rank correlation over the rows that have both scores.

    Args:
        first, second (`np.ndarray` of shape `(n,)`): NaN for rows without a score.

    Returns:
        `float`: in [-1, 1]; NaN for fewer than three such rows, or if all scores in one of the arrays are equal.
    """
    both = np.isfinite(first) & np.isfinite(second)
    ranks = np.stack([mean_ranks(first[both]), mean_ranks(second[both])])
    if both.sum() < 3 or (np.ptp(ranks, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])
