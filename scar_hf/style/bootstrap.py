"""Bootstrap means and standard deviations of measures over rows."""

import numpy as np

# Larger sets are split at random into this many groups to draw from: the same intervals in expectation, in bounded time.
_MOST_UNITS = 20_000
# Most numbers in one block of draws.
_BLOCK = 2**22
LOW, HIGH = 2.5, 97.5


def bootstrap(values: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Draw rows with replacement, the same for all measures, and compute the mean and standard deviation of each measure.

    Args:
        values (`np.ndarray` of shape `(n, m)`): m measures of n rows; NaN for missing values.
        samples (`int`): number of draws.
        seed (`int`): seed of the draws. Sets with the same number of rows share their draws, which suits paired responses to
            the same instructions and does no harm to other sets.

    Returns:
        `tuple(np.ndarray)`: means and standard deviations, each of shape `(samples, m)`; NaN where a draw has no row with the
        measure, or fewer than two for a standard deviation.
    """
    n, m = values.shape
    present = ~np.isnan(values)
    count = present.sum(axis=0)
    centre = np.where(present, values, 0).sum(axis=0) / np.maximum(count, 1)
    centred = np.where(present, values - centre, 0)  # around zero, so that sums of squares stay precise
    sums = np.concatenate([present, centred, centred**2], axis=1)
    rng = np.random.default_rng(seed)
    if n > _MOST_UNITS:
        sums = np.add.reduceat(sums[rng.permutation(n)], np.linspace(0, n, _MOST_UNITS, endpoint=False).astype(np.int64))
    units = len(sums)
    totals = np.empty((samples, 3 * m))
    step = max(1, _BLOCK // max(1, units))
    for start in range(0, samples if units else 0, step):
        some = min(step, samples - start)
        drawn = rng.integers(units, size=(some, units)) + units * np.arange(some)[:, None]
        totals[start : start + some] = np.bincount(drawn.ravel(), minlength=some * units).reshape(some, units) @ sums
    if not units:
        totals[:] = 0
    weight, first, second = np.split(totals, 3, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(weight >= 1, first / weight, np.nan)
        variance = np.where(weight >= 2, (second - weight * mean**2) / (weight - 1), np.nan)
    return mean + centre, np.sqrt(np.maximum(variance, 0))


def interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the middle 95 % of draws of shape `(samples,)`; NaN if fewer than half of them are finite."""
    numbers = draws[np.isfinite(draws)]
    if 2 * len(numbers) < len(draws) or not len(numbers):
        return float("nan"), float("nan")
    low, high = np.percentile(numbers, [LOW, HIGH])
    return float(low), float(high)
