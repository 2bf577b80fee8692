"""Compute 95 % bootstrap intervals over instructions: all responses to one instruction are drawn together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from ..style.bootstrap import interval

Key = TypeVar("Key")
_Z2 = 1.959964**2  # for a 95 % interval
# Sources with fewer instructions are drawn from together: alone, they would hardly vary.
_LEAST_OF_SOURCE = 5
_BLOCK = 2**22  # weights held in memory at a time


@dataclass(frozen=True)
class Measure:
    """
    A share or an AUC with its interval.

    Args:
        value (`float`): the measure, in [0, 1].
        low, high (`float`): bounds of its 95 % interval.
        count (`int`): number of comparisons.
        draws (`np.ndarray` of shape `(samples,)`): bootstrap values; NaN where a draw has no comparison.
    """

    value: float
    low: float
    high: float
    count: int
    draws: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class Instructions:
    """
    Resamples the instructions within each source, so that each source keeps its weight. Small sources are taken together.

    Args:
        sources (`np.ndarray` of shape `(n,)`): the source of each instruction, as a number.
        samples (`int`): number of bootstrap draws.
        seed (`int`): seed of the draws. The same instructions and seed give the same draws, so rankers can be compared draw
            by draw.
    """

    sources: np.ndarray
    samples: int
    seed: int

    def weights(self) -> Iterator[np.ndarray]:
        """Yield how often each instruction is drawn, in blocks of shape `(b, n)`."""
        rng = np.random.default_rng(self.seed)
        n = len(self.sources)
        by_source = [np.flatnonzero(self.sources == source) for source in np.unique(self.sources)]
        members = [units for units in by_source if len(units) >= _LEAST_OF_SOURCE]
        if small := [units for units in by_source if len(units) < _LEAST_OF_SOURCE]:
            members.append(np.concatenate(small))
        step = max(1, _BLOCK // max(1, n))
        for start in range(0, self.samples, step):
            block = np.zeros((min(step, self.samples - start), n))
            for units in members:
                drawn = rng.integers(len(units), size=(len(block), len(units))) + len(units) * np.arange(len(block))[:, None]
                counts = np.bincount(drawn.ravel(), minlength=block.shape[0] * len(units))
                block[:, units] = counts.reshape(len(block), -1)
            yield block


class Statistic(Protocol):
    """A measure that can be computed for weighted instructions."""

    count: int
    units: int

    def values(self, weights: np.ndarray) -> np.ndarray:
        """Return the measure for each of b weightings `(b, n)`; NaN where no comparison has weight."""
        ...


class Share:
    """
    The mean of outcomes.

    Args:
        units (`np.ndarray` of shape `(k,)`): the instruction of each outcome.
        outcomes (`np.ndarray` of shape `(k,)`): in [0, 1].
    """

    def __init__(self, units: np.ndarray, outcomes: np.ndarray) -> None:
        self.count = len(outcomes)
        self._units, position = np.unique(units, return_inverse=True)
        self.units = len(self._units)
        self._sums = np.bincount(position, outcomes, minlength=self.units)
        self._counts = np.bincount(position, minlength=self.units).astype(float)

    def values(self, weights: np.ndarray) -> np.ndarray:
        """Return the statistic for each of b weightings `(b, n)` of the instructions."""
        chosen = weights[:, self._units]
        return _ratio(chosen @ self._sums, chosen @ self._counts)


class CrossAuc:
    """
    How often a positive scores above a negative of *another* instruction, ties counting half.

    Args:
        positive_units, negative_units (`np.ndarray` of shapes `(p,)`, `(q,)`): the instruction of each response.
        positives, negatives (`np.ndarray` of shapes `(p,)`, `(q,)`): their scores.
    """

    def __init__(
        self, positive_units: np.ndarray, positives: np.ndarray, negative_units: np.ndarray, negatives: np.ndarray
    ) -> None:
        order = np.argsort(negatives, kind="stable")
        self._positive_units, self._negative_units = positive_units, negative_units[order]
        ranked = negatives[order]
        self._below = np.searchsorted(ranked, positives, "left")
        self._not_above = np.searchsorted(ranked, positives, "right")
        # Subtract comparisons between responses to the same instruction.
        self._shared = np.intersect1d(positive_units, negative_units)
        wins, pairs = [], []
        for unit in self._shared:
            own, other = positives[positive_units == unit], negatives[negative_units == unit]
            wins.append((0.5 + 0.5 * np.sign(own[:, None] - other[None, :])).sum())
            pairs.append(len(own) * len(other))
        self._own_wins, self._own_pairs = np.array(wins, dtype=float), np.array(pairs, dtype=float)
        self.count = int(len(positives) * len(negatives) - self._own_pairs.sum())
        self.units = len(np.union1d(positive_units, negative_units))

    def values(self, weights: np.ndarray) -> np.ndarray:
        """Return the statistic for each of b weightings `(b, n)` of the instructions."""
        positive = weights[:, self._positive_units]
        negative = np.cumsum(weights[:, self._negative_units], axis=1)
        negative = np.concatenate([np.zeros((len(weights), 1)), negative], axis=1)
        wins = (positive * (negative[:, self._below] + negative[:, self._not_above]) / 2).sum(axis=1)
        pairs = positive.sum(axis=1) * negative[:, -1]
        own = weights[:, self._shared] ** 2
        return _ratio(wins - own @ self._own_wins, pairs - own @ self._own_pairs)


def measure(statistics: Mapping[Key, Statistic], instructions: Instructions) -> dict[Key, Measure]:
    """
    Compute measures with their intervals, all on the same draws.

    Args:
        statistics (`Mapping[Key, Statistic]`): the statistics by any key.
        instructions ([`Instructions`]): the instructions to resample.

    Returns:
        `dict[Key, Measure]`: measures by the same keys; statistics without a comparison are left out.
    """
    known = {key: statistic for key, statistic in statistics.items() if statistic.count}
    draws: dict[Key, list[np.ndarray]] = {key: [] for key in known}
    for block in instructions.weights():
        for key, statistic in known.items():
            draws[key].append(statistic.values(block))
    once = np.ones((1, len(instructions.sources)))
    return {
        key: _measure(float(statistic.values(once)[0]), np.concatenate(draws[key]), statistic.count, statistic.units)
        for key, statistic in known.items()
    }


def mean_measure(measures: Sequence[Measure]) -> Measure:
    """Average measures over sources, with equal weights."""
    value = float(np.mean([m.value for m in measures]))
    # Sources are independent, so the squares of their errors add up.
    below = np.sqrt(sum((m.value - m.low) ** 2 for m in measures)) / len(measures)
    above = np.sqrt(sum((m.high - m.value) ** 2 for m in measures)) / len(measures)
    draws = np.stack([m.draws for m in measures])
    present = np.isfinite(draws)
    means = _ratio(np.where(present, draws, 0).sum(axis=0), present.sum(axis=0).astype(float))
    return Measure(value, float(value - below), float(value + above), sum(m.count for m in measures), means)


def difference(ours: Measure, theirs: Measure) -> tuple[float, float, float]:
    """Return the difference to the measure of another ranker on the same rows, and its 95 % interval."""
    found, draws = ours.value - theirs.value, ours.draws - theirs.draws
    if _vary(draws) or found == 0:
        return (found, *interval(draws))
    # Newcombe's interval from those of both measures.
    below = np.hypot(ours.value - ours.low, theirs.high - theirs.value)
    above = np.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return found, float(found - below), float(found + above)


def _measure(value: float, draws: np.ndarray, count: int, units: int) -> Measure:
    low, high = interval(draws) if _vary(draws) else _wilson(value, units)
    return Measure(value, low, high, count, draws)


def _vary(draws: np.ndarray) -> bool:
    """Whether draws differ; if all outcomes are equal, or there is one instruction, they say nothing about chance."""
    finite = draws[np.isfinite(draws)]
    return len(finite) > 0 and float(np.ptp(finite)) > 1e-12


def _wilson(value: float, units: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for the share of this number of instructions."""
    centre = value + _Z2 / (2 * units)
    half = np.sqrt(_Z2 * (value * (1 - value) / units + _Z2 / (4 * units**2)))
    low, high = ((centre + sign * half) / (1 + _Z2 / units) for sign in (-1, 1))
    return max(0.0, min(value, float(low))), min(1.0, max(value, float(high)))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
