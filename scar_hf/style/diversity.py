"""Lexical diversity of many texts at once: TTR, moving-average TTR and MTLD."""

import numpy as np

MATTR_WINDOW = 50
# MTLD's threshold 0.72 = 18/25 in integers: a factor ends when 25 types <= 18 words.
_NEW, _KNOWN = 25 - 18, -18
_FACTOR_SHARE = 1 - 0.72


def lexical_diversity(ids: np.ndarray, lengths: np.ndarray, window: int = MATTR_WINDOW) -> dict[str, np.ndarray]:
    """
    Measure the lexical diversity of T texts.

    Args:
        ids (`np.ndarray` of shape `(W,)`, int64): word numbers from 0, one text after the other.
        lengths (`np.ndarray` of shape `(T,)`, int64): number of words in each text.
        window (`int`, *optional*, defaults to 50): window length of the moving average, in words.

    Returns:
        `dict[str, np.ndarray]`, each float64 of shape `(T,)`: `ttr`, distinct words over words, in (0, 1]; `mattr`, the mean
        TTR of all windows, NaN for shorter texts; `mtld`, the mean number of words in which TTR stays above 0.72 (McCarthy
        and Jarvis, 2010), at least 1. NaN for a text without words.
    """
    before, after = _neighbours(ids)
    starts = np.cumsum(lengths) - lengths
    own_start = np.repeat(starts, lengths)
    is_new = _running_sum(before < own_start)
    with np.errstate(invalid="ignore"):
        ttr = (is_new[starts + lengths] - is_new[starts]) / lengths
    return {
        "ttr": ttr,
        "mattr": _moving_average(before, after, starts, lengths, own_start, is_new, window),
        "mtld": np.array([_mtld(before[s : s + n] - s, after[s : s + n] - s) for s, n in zip(starts, lengths, strict=True)]),
    }


def _neighbours(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of the previous (-1: none) and next (W: none) occurrence of each word."""
    small = ids.astype(np.uint16) if ids.size and ids.max() < 2**16 else ids  # numpy sorts uint16 in linear time
    order = np.argsort(small, kind="stable")
    same = ids[order[1:]] == ids[order[:-1]]
    before, after = np.full(len(ids), -1), np.full(len(ids), len(ids))
    before[order[1:][same]] = order[:-1][same]
    after[order[:-1][same]] = order[1:][same]
    return before, after


def _running_sum(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)])


def _moving_average(
    before: np.ndarray,
    after: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    own_start: np.ndarray,
    is_new: np.ndarray,
    window: int,
) -> np.ndarray:
    result = np.full(len(lengths), np.nan)
    long = np.flatnonzero(lengths >= window)
    if not len(long):
        return result
    # Moving the window by one word adds a type if the entering word is new to it; removal works the same way.
    ends = np.arange(len(before))
    first = ends - window + 1
    left = np.maximum(first - 1, 0)
    moves = first > own_start
    change = np.where(moves, (before < first).astype(np.int64) - (after[left] >= ends), 0)
    types = np.cumsum(change)
    types_up_to = _running_sum(types)
    start, end = starts[long], starts[long] + lengths[long]
    first_end = start + window - 1
    windows = end - first_end
    first_types = is_new[start + window] - is_new[start]
    total = windows * (first_types - types[first_end]) + types_up_to[end] - types_up_to[first_end]
    result[long] = total / (windows * window)
    return result


def _mtld(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean of both directions; positions are relative to the start of the text."""
    n = len(before)
    if n == 0:
        return float("nan")
    return (n / _factors(before.tolist()) + n / _factors((n - 1 - after[::-1]).tolist())) / 2


def _factors(before: list[int]) -> float:
    """Count factors: how often TTR falls to the threshold and restarts, plus a fraction for the remainder."""
    start, factors, balance = 0, 0, 0
    for i, position in enumerate(before):
        if position < start:
            balance += _NEW
        else:
            balance += _KNOWN
            if balance <= 0:  # 25 types - 18 words since the start
                start, factors, balance = i + 1, factors + 1, 0
    words = len(before) - start
    if words:
        types = (balance + 18 * words) // 25
        partial = (1 - types / words) / _FACTOR_SHARE
        return factors + partial or 1.0  # no word is repeated: the whole text is one factor
    return float(factors)
