"""Check whether a judge agrees with itself, and whether it distinguishes bad answers from good ones."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ranks import rank_correlation
from .backends import Backend, Sampling
from .completion_log import CompletionLog
from .engine import Usage
from .judging import Judgeable, rate, texts_of
from .prompts import Prompt
from .ratings import Rating

PLANTED = ("shuffled", "truncated", "off-topic")
# Below this AUC of good above bad answers, a judge's ratings are useless.
LEAST_AUC = 0.65
_LEAST_PAIRS = 10
_LEAST_READABLE = 0.5
_SECOND_TEMPERATURE = 0.7
_DRAWS = 500


@dataclass(frozen=True)
class JudgeCheck:
    """
    The result of checking a judge.

    Args:
        rows (`int`): number of unchanged answers that were rated.
        readable (`float`): share of all replies with both ratings.
        difference (`float`): mean absolute difference between two runs, in points.
        correlation (`float`): Spearman's correlation between two runs.
        auc (`dict[str, tuple[float, float, float]]`):
            By kind of planted bad answer: how often a good answer is rated above a bad one, ties counting half, and the
            bounds of the 95 % bootstrap interval.
        means (`dict[str, float]`): mean rating of the unchanged answers (`"as they are"`) and of each kind of bad answer.
    """

    rows: int
    readable: float
    difference: float
    correlation: float
    auc: dict[str, tuple[float, float, float]]
    means: dict[str, float]

    @property
    def problem(self) -> str | None:
        """The reason why the judge is useless (`str`), or `None` if it is usable."""
        if not self.readable >= _LEAST_READABLE:
            return f"only {self.readable:.0%} of its replies could be read"
        blind = [kind for kind, (auc, _, _) in self.auc.items() if not auc >= LEAST_AUC]
        if blind:
            return f"it does not tell {' or '.join(blind)} answers from good ones (AUC below {LEAST_AUC})"
        return None

    def table(self) -> str:
        """Return the figures as a Markdown table (`str`)."""
        lines = ["| answers | mean rating | AUC of good above these | 95 % interval |", "|---|---|---|---|"]
        lines.append(f"| as they are | {self.means['as they are']:.2f} | | |")
        for kind, (auc, low, high) in self.auc.items():
            lines.append(f"| {kind} | {self.means[kind]:.2f} | {auc:.3f} | {low:.3f} to {high:.3f} |")
        lines.append("")
        lines.append(
            f"{self.rows} answers; {self.readable:.0%} of the replies could be read. Between two runs: mean difference "
            f"{self.difference:.2f} points, rank correlation {self.correlation:.2f}."
        )
        return "\n".join(lines)

    def describe(self) -> dict[str, Any]:
        """Return the figures for a manifest (`dict`)."""
        figures = {"readable": self.readable, "difference": self.difference, "correlation": self.correlation}
        return {
            "rows": self.rows,
            **{name: _json(value) for name, value in figures.items()},
            "means": {kind: _json(value) for kind, value in self.means.items()},
            "auc": {kind: [_json(value) for value in values] for kind, values in self.auc.items()},
            "useless": self.problem,
        }


def check_judge(
    rows: Sequence[Mapping[str, Any]],
    backend: Backend,
    prompt: Prompt,
    sampling: Sampling,
    log: CompletionLog,
    usage: Usage,
    *,
    n: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> JudgeCheck:
    """
    Let a judge rate answers twice with different seeds, and rate bad answers made from them.

    Args:
        rows (`Sequence[Mapping]`): triples.
        backend, prompt, sampling, log, usage, progress: see [`rate`].
        n (`int`, *optional*, defaults to 50): number of answers to draw.
        seed (`int`, *optional*, defaults to 0): seed of the draw and the second run.

    Returns:
        [`JudgeCheck`].

    Raises:
        `ValueError`: if there are fewer than 10 answers, or the budget is too small for the check.
    """
    good = _draw(rows, n, seed)
    if len(good) < _LEAST_PAIRS:
        raise ValueError(f"A judge is checked on at least {_LEAST_PAIRS} answers of four words or more, got {len(good)}.")
    bad = {kind: [_planted(kind, good, i, seed) for i in range(len(good))] for kind in PLANTED}
    everything = [*good, *(item for kind in PLANTED for item in bad[kind])]
    first = rate(everything, backend, prompt, sampling, log, usage, progress)
    again = replace(sampling, temperature=sampling.temperature or _SECOND_TEMPERATURE, seed=(sampling.seed or seed) + 1)
    second = rate(good, backend, prompt, again, log, usage, progress)
    if any(rating is None for rating in [*first, *second]):
        raise ValueError("The budget ended before the check of the judge did, or requests failed. The same command continues.")
    numbers = np.array([_number(rating) for rating in first]).reshape(1 + len(PLANTED), len(good))
    return JudgeCheck(
        rows=len(good),
        readable=float(np.mean(~np.isnan(np.append(numbers.ravel(), [_number(rating) for rating in second])))),
        difference=_difference(numbers[0], np.array([_number(rating) for rating in second])),
        correlation=rank_correlation(numbers[0], np.array([_number(rating) for rating in second])),
        auc={kind: _auc(numbers[0], numbers[i], seed) for i, kind in enumerate(PLANTED, start=1)},
        means={kind: _mean(values) for kind, values in zip(("as they are", *PLANTED), numbers, strict=True)},
    )


def _draw(rows: Sequence[Mapping[str, Any]], n: int, seed: int) -> list[Judgeable]:
    """Draw one human or direct answer per row, of at least four words, because shuffling may not spoil shorter ones."""
    rng = random.Random(seed)
    items: list[Judgeable] = []
    for row in rng.sample(list(rows), len(rows)):
        texts = [text for member in ("human", "direct") for text in texts_of(row, member).values() if len(text.split()) >= 4]
        if texts and len(items) < n:
            items.append(Judgeable(str(row.get("instruction") or ""), rng.choice(texts)))
    return items


def _planted(kind: str, good: Sequence[Judgeable], i: int, seed: int) -> Judgeable:
    words = good[i].response.split()
    if kind == "shuffled":
        random.Random(f"{seed}-{i}").shuffle(words)
        return replace(good[i], response=" ".join(words))
    if kind == "truncated":
        return replace(good[i], response=" ".join(words[: max(1, len(words) // 4)]))
    # Off-topic: the answer to another question that is nearest in length.
    others = [other for other in good if other.instruction != good[i].instruction] or list(good)
    return replace(good[i], response=min(others, key=lambda other: abs(len(other.response) - len(good[i].response))).response)


def _number(rating: Rating | None) -> float:
    mean = None if rating is None else rating.mean
    return float("nan") if mean is None else mean


def _auc(good: np.ndarray, bad: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Compute how often a good answer is rated above a bad one, over all pairs, with a bootstrap interval over rows."""
    above = (good[:, None] > bad[None, :]) + 0.5 * (good[:, None] == bad[None, :])
    known = ~(np.isnan(good)[:, None] | np.isnan(bad)[None, :])
    rng = np.random.default_rng(seed)
    n = len(good)
    counts = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(_DRAWS)])
    weights = np.einsum("si,sj,ij->s", counts, counts, known, optimize=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.einsum("si,sj,ij->s", counts, counts, above * known, optimize=True) / weights
    if not known.any():
        return float("nan"), float("nan"), float("nan")
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(above[known].mean()), float(low), float(high)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return _mean(np.abs(a - b))


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _json(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
