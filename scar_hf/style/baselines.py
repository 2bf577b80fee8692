"""Baselines for the change of spread: random draws, and draws with the same lengths."""

from dataclasses import dataclass

import numpy as np

from .rows import StyleMeasures

BASELINES = {"random": "Random draw", "same_lengths": "Same lengths"}
DRAWS = 200
# Lengths are matched in this many quantile bins of the rows kept.
_LENGTH_BINS = 20
_LOW, _HIGH = 2.5, 97.5


@dataclass(frozen=True)
class Draws:
    """
    Change of one measure's spread in draws of the same number of rows as were kept.

    Args:
        change (`float`): mean over the draws of spread after over spread before, minus 1.
        low, high (`float`): bounds of the middle 95 % of the draws.
    """

    change: float
    low: float
    high: float


def draw_baselines(
    before: StyleMeasures, after: StyleMeasures, seed: int = 0, sampled: bool = False
) -> dict[str, dict[str, Draws]]:
    """
    Repeatedly draw the same number of rows as were kept, and measure how their spread differs from that of all rows.

    Args:
        before ([`StyleMeasures`]): measures of n rows.
        after ([`StyleMeasures`]): measures of the rows kept, at most n.
        seed (`int`, *optional*, defaults to 0): seed of the draws.
        sampled (`bool`, *optional*, defaults to `False`):
            Whether `before` is a sample that lacks some of the rows kept. Rows are then drawn with replacement: without it,
            draws of nearly as many rows as the sample has would hardly differ from the sample.

    Returns:
        `dict[str, dict[str, Draws]]`: by baseline, `"random"` or `"same_lengths"` (the same distribution of word counts as in
        the rows kept), then by measure. Measures that are the same in all rows are left out, and so is `"same_lengths"` if
        words are not measured. Empty if `after` has more rows than `before`, unless `sampled`.
    """
    names = [name for name in before.values if name in after.values]
    if len(after) < 2 or not len(before) or (len(after) > len(before) and not sampled) or not names:
        return {}
    matrix = np.stack([before[name] for name in names], axis=1)
    # Centre the values, so that sums of squares keep their precision.
    matrix -= np.nansum(matrix, axis=0) / np.maximum(1, (~np.isnan(matrix)).sum(axis=0))
    # The spread of equal values may be a rounding error instead of 0.
    spreads = np.where(np.fmin.reduce(matrix) < np.fmax.reduce(matrix), _spreads(matrix), np.nan)
    rng = np.random.default_rng(seed)
    found = {}
    for baseline in BASELINES if "words" in names else ("random",):
        bins = _bins(before["words"], after["words"]) if baseline == "same_lengths" else None
        changes = np.empty((DRAWS, len(names)))
        for draw in changes:
            if bins is None:
                chosen = rng.choice(len(before), len(after), replace=sampled)
            else:
                chosen = _draw_in_bins(rng, *bins, sampled)
            with np.errstate(invalid="ignore", divide="ignore"):
                draw[:] = _spreads(matrix[chosen]) / spreads - 1
        found[baseline] = {
            name: Draws(float(column.mean()), *map(float, np.percentile(column, [_LOW, _HIGH])))
            for name, column in zip(names, changes.T, strict=True)
            if np.isfinite(column).all()
        }
    return found


def _bins(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the length bin of each row in `before` (-1: none), and the number of rows kept in each bin."""
    kept = after[~np.isnan(after)]
    edges = np.unique(np.quantile(kept, np.linspace(0, 1, _LENGTH_BINS + 1))) if len(kept) else np.array([np.inf])
    inner = edges[1:-1]
    with np.errstate(invalid="ignore"):
        inside = (before >= edges[0]) & (before <= edges[-1])
    bins = np.where(inside, np.searchsorted(inner, before, side="right"), -1)
    return bins, np.bincount(np.searchsorted(inner, kept, side="right"), minlength=len(inner) + 1)


def _draw_in_bins(rng: np.random.Generator, bins: np.ndarray, counts: np.ndarray, replace: bool) -> np.ndarray:
    """Draw random rows: per bin, the number kept; without replacement, all rows of the bin if it has fewer."""
    order = np.argsort(bins, kind="stable") if replace else np.lexsort((rng.random(len(bins)), bins))
    starts = np.searchsorted(bins[order], np.arange(len(counts) + 1))
    sizes = np.diff(starts)
    if replace:
        drawn = np.repeat(np.arange(len(counts)), np.where(sizes > 0, counts, 0))
        return order[starts[drawn] + rng.integers(sizes[drawn])]
    return np.concatenate([order[start : start + n] for start, n in zip(starts, np.minimum(counts, sizes), strict=False)])


def _spreads(matrix: np.ndarray) -> np.ndarray:
    """Return standard deviations of centred columns, ignoring missing values; NaN for fewer than two values."""
    present = ~np.isnan(matrix)
    values, n = np.where(present, matrix, 0), present.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = values.sum(axis=0) / n
        return np.sqrt(np.maximum((values**2).sum(axis=0) - n * mean**2, 0) / (n - 1))
