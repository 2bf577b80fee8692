"""What a selection misses if the ranker scores only some rows: estimated, and bounded, from a random sample of the others."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

# The bound holds in this share of runs.
CONFIDENCE = 0.95


def upper_bound(hits: int, drawn: int, population: int, confidence: float = CONFIDENCE) -> int:
    """
    Bound a count in a population by that in a random sample, drawn without replacement: the exact interval of Clopper and
    Pearson, for the hypergeometric distribution.

    Args:
        hits (`int`): how many of the sample count.
        drawn (`int`): size of the sample.
        population (`int`): size of the population.
        confidence (`float`, *optional*, defaults to 0.95): probability that the bound holds, at least.

    Returns:
        `int`: the largest count that would give so few hits with a probability above `1 - confidence`.

    Example:

    ```python
    >>> upper_bound(0, 300, 10_000)  # the rule of three says 100
    97
    ```
    """
    low, high = hits, population - (drawn - hits)
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(hits, drawn, population, middle) > 1 - confidence:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(hits: int, drawn: int, population: int, marked: int) -> float:
    """Probability of at most `hits` marked rows in a sample without replacement."""
    x = torch.arange(max(0, drawn - (population - marked)), min(hits, marked, drawn) + 1, dtype=torch.float64)
    if not len(x):
        return 0.0
    log = _log_choose(marked, x) + _log_choose(population - marked, drawn - x)
    return float((log - _log_choose(population, torch.tensor(float(drawn), dtype=torch.float64))).exp().sum())


def _log_choose(n: int, k: torch.Tensor) -> torch.Tensor:
    return math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


def expected_missing(scores: np.ndarray, audited: np.ndarray, weight: float, labels: np.ndarray, wanted: np.ndarray) -> float:
    """
    Estimate how many rows of a selection are among those without a score: each audited row stands for some of them.

    Args:
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score.
        audited (`np.ndarray`): numbers of the audited rows, which have a score.
        weight (`float`): rows without a score per audited row.
        labels (`np.ndarray` of shape `(n,)`, int64): the number of each row's group.
        wanted (`np.ndarray` of shape `(groups,)`, int64): rows to select of each group.

    Returns:
        `float`: the number of rows.
    """
    known = np.flatnonzero(~np.isnan(scores))
    audited = audited[~np.isnan(scores[audited])]
    rows = np.concatenate([known, audited])
    weights = np.concatenate([np.ones(len(known)), np.full(len(audited), weight)])
    order = np.lexsort((-scores[rows], labels[rows]))
    groups, total = labels[rows][order], np.cumsum(weights[order])
    before = np.concatenate([[0.0], total])[np.searchsorted(groups, np.arange(len(wanted)))]
    selected = total - before[groups] <= wanted[groups]
    return float(weights[order][selected & (order >= len(known))].sum())


def sample_size(count: int, population: int, missing: float, looks: int) -> int:
    """
    Choose how many rows to audit, so that a bound on the missing share can be shown even if a few are found.

    Args:
        count (`int`): rows to select.
        population (`int`): rows that could be selected.
        missing (`float`): the share of the selection that may be missing.
        looks (`int`): bounds computed from the sample, which share the probability of error.

    Returns:
        `int`: between 1 and the population.
    """
    # Without a hit, n rows bound the count at about population · log(1 / error) / n.
    needed = 1.5 * math.log(looks / (1 - CONFIDENCE)) * population / max(missing * count, 1e-9)
    return max(1, min(population, math.ceil(needed)))


def audit_in_words(report: Mapping[str, Any] | None) -> str:
    """Say what a prefilter scored and what it may have missed, from a manifest's `selection.prefilter`; empty without one."""
    if not report:
        return ""
    rescored, rows, audited = (int(report[name]) for name in ("rescored", "rows", "audited"))
    looked = f"the best {rescored:,} of {rows:,} rows by {report['model']} ({rescored / rows:.1%})" if rows else "no rows"
    if rescored >= rows:
        return f"the ranker scored all {rows:,} rows; nothing is missing"
    return (
        f"the ranker scored {looked}, and {audited:,} of the others at random, of which {int(report['hits']):,} belonged to "
        f"the selection; {report['expected_missing']:.1%} of the exact selection is expected to be missing, and with "
        f"{report['confidence']:.0%} confidence at most {report['missing_bound']:.1%}"
    )
