"""How well a ranker orders responses, and whether it does so by shortcuts."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ..scoring import ScarScorer
from .augmentation import strip_comments, strip_markdown
from .triples import Triple

_ORDERINGS = (("direct", "human"), ("direct", "referenced"), ("referenced", "human"))
_MATCHED = 0.75  # "within 25 %": the shorter has at least this share of the longer one's words


@dataclass(frozen=True)
class _Pair:
    """Two responses of one row, the one that should rank higher first."""

    row: int
    ordering: str
    better: str
    worse: str


def evaluate_ranker(scorer: ScarScorer, triples: Sequence[Triple], progress: bool = False) -> dict[str, Any]:
    """
    Measure a ranker on rows that it was not trained on.

    Args:
        scorer ([`ScarScorer`]): the ranker.
        triples (`Sequence[Triple]`): the rows; all texts of a kind count, not only one.
        progress (`bool`, *optional*, defaults to `False`): whether to show progress bars.

    Returns:
        `dict`: `all`, `source` and `domain`, the last two by name. Each has shares in [0, 1], ties counting half:
        `direct_human`, `direct_referenced` and `referenced_human`, how often the first is ranked above the second;
        `llm_human`, any LLM response above the human one; `complete`, rows with all three kinds in full order;
        `length_matched`, `llm_human` where lengths in words are within 25 %; `markdown_stripped` and `comments_stripped`,
        `llm_human` with both sides stripped; `longer_wins`, what a rule that prefers the longer response would reach;
        and `pairs`, how many pairs `llm_human` counts. `macro` is the mean of `llm_human` over sources.
    """
    pairs = [
        _Pair(row, f"{a}_{b}", better, worse)
        for row, triple in enumerate(triples)
        for a, b in _ORDERINGS
        for better, worse in product(triple.responses.get(a, ()), triple.responses.get(b, ()))
    ]
    against_human = [pair for pair in pairs if pair.ordering.endswith("_human")]
    code = [pair for pair in against_human if triples[pair.row].domain == "code"]
    # All texts in one call: most have nothing to strip, and what stands twice is encoded once.
    plain, *stripped_wins = _wins(
        scorer, triples, [(pairs, str), (against_human, strip_markdown), (code, strip_comments)], progress
    )
    stripped = dict(zip(("markdown_stripped", "comments_stripped"), stripped_wins, strict=True))
    groups: dict[tuple[str, str], list[_Pair]] = defaultdict(list)
    for pair in pairs:
        groups["all", ""].append(pair)
        groups["source", triples[pair.row].source].append(pair)
        groups["domain", triples[pair.row].domain].append(pair)
    metrics: dict[str, Any] = {"all": {}, "source": {}, "domain": {}}
    for (kind, name), group in groups.items():
        target = metrics["all"] if kind == "all" else metrics[kind].setdefault(name, {})
        target.update(_summary(group, plain, stripped))
    metrics["macro"] = float(np.mean([values["llm_human"] for values in metrics["source"].values() if "llm_human" in values]))
    return metrics


def _wins(
    scorer: ScarScorer,
    triples: Sequence[Triple],
    variants: Sequence[tuple[list[_Pair], Callable[[str], str]]],
    progress: bool,
) -> list[dict[_Pair, float]]:
    """For each variant, pairs and a transformation: 1 where the better response scores higher, 0.5 for a tie, else 0."""
    texts = [[((p.row, change(p.better)), (p.row, change(p.worse))) for p in pairs] for pairs, change in variants]
    keys = list(dict.fromkeys(key for variant in texts for sides in variant for key in sides))
    scores = scorer.score([triples[row].instruction for row, _ in keys], [text for _, text in keys], progress=progress)
    by_key = dict(zip(keys, scores, strict=True))
    return [
        {pair: 0.5 + 0.5 * float(np.sign(by_key[a] - by_key[b])) for pair, (a, b) in zip(pairs, sides, strict=True)}
        for (pairs, _), sides in zip(variants, texts, strict=True)
    ]


def _summary(pairs: list[_Pair], plain: dict[_Pair, float], stripped: dict[str, dict[_Pair, float]]) -> dict[str, float]:
    against_human = [pair for pair in pairs if pair.ordering.endswith("_human")]
    groups: dict[str, list[float]] = {
        "llm_human": [plain[p] for p in against_human],
        **{f"{a}_{b}": [plain[p] for p in pairs if p.ordering == f"{a}_{b}"] for a, b in _ORDERINGS},
        "length_matched": [plain[p] for p in against_human if _length_ratio(p) >= _MATCHED],
        "longer_wins": [_longer(p) for p in against_human],
        **{name: [wins[p] for p in against_human if p in wins] for name, wins in stripped.items()},
        "complete": _complete(pairs, plain),
    }
    values = {name: float(np.mean(wins)) for name, wins in groups.items() if wins}
    return values | {"pairs": len(against_human), "length_matched_pairs": len(groups["length_matched"])}


def _complete(pairs: list[_Pair], plain: dict[_Pair, float]) -> list[float]:
    """For each row with all three kinds: whether every one of its pairs is in order."""
    orderings: dict[int, set[str]] = defaultdict(set)
    right: dict[int, bool] = defaultdict(lambda: True)
    for pair in pairs:
        orderings[pair.row].add(pair.ordering)
        right[pair.row] &= plain[pair] == 1.0
    return [float(right[row]) for row, kinds in orderings.items() if len(kinds) == len(_ORDERINGS)]


def _length_ratio(pair: _Pair) -> float:
    lengths = sorted((len(pair.better.split()), len(pair.worse.split())))
    return lengths[0] / max(1, lengths[1])


def _longer(pair: _Pair) -> float:
    return 0.5 + 0.5 * float(np.sign(len(pair.better.split()) - len(pair.worse.split())))
