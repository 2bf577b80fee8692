"""Measure how well a ranker orders responses, and whether it relies on shortcuts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..scoring.scorer import ScarScorer
from .comparisons import ORDERINGS, Comparisons
from .intervals import CrossAuc, Instructions, Measure, Share, Statistic, mean_measure, measure
from .negatives import HELD_OUT_REFUSALS
from .triples import Triple, same_instruction

# In display order: the main metrics, tests for shortcuts, responses to other instructions, and bad responses.
METRICS = {
    "llm_human": "LLM above human",
    "direct_human": "direct above human",
    "direct_referenced": "direct above referenced",
    "referenced_human": "referenced above human",
    "complete": "all three in order",
    "length_matched": "lengths within 25 %",
    "markdown_stripped": "Markdown stripped",
    "comments_stripped": "comments stripped (code)",
    "longer_wins": '"the longer wins"',
    "cross_instruction": "across instructions (AUC)",
    "cross_instruction_direct": "the same, direct only",
    "cross_instruction_longer": '"the longer wins", across',
    "refusal_below_human": "refusal below human",
    "refusal_below_llm": "refusal below LLM",
    "right_question_human": "right question, human",
    "right_question_llm": "right question, LLM",
    "truncated_below": "truncated below itself",
}
_LLM = ("direct", "referenced")


@dataclass(frozen=True)
class Evaluation:
    """
    The measurements of a ranker.

    Args:
        groups (`dict[tuple[str, str], dict[str, Measure]]`):
            The measures by `(kind, name)`: `("all", "")`, `("mean", "")` for the mean over sources, `("source", NAME)` and
            `("domain", NAME)`.
        instructions (`dict[tuple[str, str], int]`): number of distinct instructions in each group.
        refusals (`dict[str, list[tuple[str, float]]]`):
            For `"human"` and `"llm"`, how often each stock refusal scored below the response, worst first.
    """

    groups: Mapping[tuple[str, str], Mapping[str, Measure]]
    instructions: Mapping[tuple[str, str], int]
    refusals: Mapping[str, list[tuple[str, float]]]

    def to_dict(self) -> dict[str, Any]:
        """Return the measurements in the JSON-compatible form of [`evaluate_ranker`]."""
        shares: dict[str, Any] = {"all": {}, "source": {}, "domain": {}}
        intervals: dict[str, Any] = {"all": {}, "source": {}, "domain": {}, "mean": {}}
        counts: dict[str, Any] = {"all": {}, "source": {}, "domain": {}}
        for (kind, name), measures in self.groups.items():
            found = {metric: m.value for metric, m in measures.items()}
            ends = {metric: [m.low, m.high] for metric, m in measures.items()}
            if kind == "mean":
                shares["mean"], intervals["mean"] = found, ends
                continue
            number = {metric: m.count for metric, m in measures.items()}
            found |= {"pairs": number.get("llm_human", 0), "length_matched_pairs": number.get("length_matched", 0)}
            number["instructions"] = self.instructions[kind, name]
            for target, values in ((shares, found), (intervals, ends), (counts, number)):
                (target["all"] if kind == "all" else target[kind].setdefault(name, {})).update(values)
        if "llm_human" in shares.get("mean", {}):
            shares["macro"] = shares["mean"]["llm_human"]
        refusals = {side: [{"text": text, "below": share} for text, share in texts] for side, texts in self.refusals.items()}
        return shares | {"intervals": intervals, "counts": counts, "refusals": refusals}


def evaluate_ranker(
    scorer: ScarScorer, triples: Sequence[Triple], progress: bool = False, samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """
    Evaluate a ranker on rows that it was not trained on.

    Args:
        scorer ([`ScarScorer`]): the ranker.
        triples (`Sequence[Triple]`): the rows; all texts of each kind are compared.
        progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar.
        samples (`int`, *optional*, defaults to 1000): number of bootstrap samples of the instructions.
        seed (`int`, *optional*, defaults to 0): seed of the bootstrap.

    Returns:
        `dict`: `all`, `source` and `domain` (both by name) and `mean` (over sources). Each holds shares in [0, 1]; higher is
        better, ties count half, and shares without a comparison are left out:

        - `direct_human`, `direct_referenced`, `referenced_human`: how often the first scores above the second;
          `llm_human`: how often an LLM response scores above a human one; `complete`: how often all three kinds are in
          order, over rows that have them;
        - `length_matched`: `llm_human` for lengths in words within 25 %; `markdown_stripped`, `comments_stripped`:
          `llm_human` with both sides stripped, the latter in the domain `code`; `longer_wins`: `llm_human` of a rule that
          prefers the longer response;
        - `cross_instruction`: AUC of LLM responses against human responses to *other* instructions, the comparison that
          selection makes; `cross_instruction_direct`: the same for direct responses; `cross_instruction_longer`: the same
          for the rule;
        - `refusal_below_human`, `refusal_below_llm`: how often stock refusals that are never trained on score below the
          response; `right_question_human`, `right_question_llm`: how often a response scores above one of similar length
          to another instruction of the source; `truncated_below`: how often a response scores above a truncated copy.

        `pairs` and `length_matched_pairs` are the numbers of pairs of `llm_human` and `length_matched`. `intervals` and
        `counts` hold the 95 % intervals and the numbers of comparisons in the same form. `refusals` holds the share of each
        refusal, worst first. `macro` is the mean of `llm_human` over sources.
    """
    return evaluate(scorer, triples, progress, samples, seed).to_dict()


def evaluate(
    scorer: ScarScorer, triples: Sequence[Triple], progress: bool = False, samples: int = 1000, seed: int = 0
) -> Evaluation:
    """Evaluate a ranker like [`evaluate_ranker`], and keep the bootstrap draws to compare rankers."""
    if not triples:
        raise ValueError("There are no rows to evaluate on.")
    if samples < 2:
        raise ValueError(f"`samples` must be at least 2, got {samples}.")
    comparisons = Comparisons(triples)
    scores = comparisons.score(scorer, progress)
    unit_of, units = _instructions(triples)
    sources = np.unique([source for source, _, _ in units], return_inverse=True)[1]
    instructions = Instructions(sources, samples, seed)
    members = _groups(units)
    outcomes = _outcomes(comparisons, scores)
    statistics: dict[tuple[tuple[str, str], str], Statistic] = {}
    for group, inside in members.items():
        for metric, (rows, values) in outcomes.items():
            kept = inside[unit_of[rows]]
            statistics[group, metric] = Share(unit_of[rows[kept]], values[kept])
        for metric, statistic in _across(comparisons, scores, unit_of, inside).items():
            statistics[group, metric] = statistic
    groups: dict[tuple[str, str], dict[str, Measure]] = {group: {} for group in members}
    for (group, metric), value in measure(statistics, instructions).items():
        groups[group][metric] = value
    groups[("mean", "")] = _means([measures for (kind, _), measures in groups.items() if kind == "source"])
    counts = {group: int(inside.sum()) for group, inside in members.items()}
    ordered = {group: {m: measures[m] for m in METRICS if m in measures} for group, measures in groups.items()}
    return Evaluation(ordered, counts, _refusals(comparisons, scores))


def _instructions(triples: Sequence[Triple]) -> tuple[np.ndarray, list[tuple[str, str, str]]]:
    """Return the number of each row's instruction, and the source, domain and text of each instruction."""
    units: dict[tuple[str, str, str], int] = {}
    of = [units.setdefault((t.source, t.domain, same_instruction(t.instruction)), len(units)) for t in triples]
    return np.array(of, dtype=np.int64), list(units)


def _groups(units: list[tuple[str, str, str]]) -> dict[tuple[str, str], np.ndarray]:
    """Return a mask of the instructions in each group."""
    sources, domains = ([unit[i] for unit in units] for i in (0, 1))
    groups = {("all", ""): np.ones(len(units), dtype=bool)}
    for kind, names in (("source", sources), ("domain", domains)):
        groups |= {(kind, name): np.array([other == name for other in names]) for name in dict.fromkeys(names)}
    return groups


def _outcomes(comparisons: Comparisons, scores: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the rows and outcomes (1, 0 or 0.5 for a tie) of the comparisons of each metric."""
    found = {
        metric: (pairs[:, 0], 0.5 + 0.5 * np.sign(scores[pairs[:, 1]] - scores[pairs[:, 2]]))
        for metric, pairs in comparisons.pairs.items()
    }
    if "llm_human" in found:
        words, pairs = comparisons.words, comparisons.pairs["llm_human"]
        found["longer_wins"] = (pairs[:, 0], 0.5 + 0.5 * np.sign(words[pairs[:, 1]] - words[pairs[:, 2]]))
    orderings = [found[f"{a}_{b}"] for a, b in ORDERINGS if f"{a}_{b}" in found]
    if len(orderings) == len(ORDERINGS):
        complete = sorted(set.intersection(*(set(rows.tolist()) for rows, _ in orderings)))
        right = np.ones(len(comparisons.triples))
        for rows, values in orderings:
            np.minimum.at(right, rows, np.floor(values))
        if complete:
            found["complete"] = (np.array(complete), right[complete])
    return found


def _across(comparisons: Comparisons, scores: np.ndarray, unit_of: np.ndarray, inside: np.ndarray) -> dict[str, Statistic]:
    """Compute the AUCs across the instructions of a group."""
    rows, words = comparisons.rows, comparisons.words.astype(float)
    humans = comparisons.members("human")
    humans = humans[inside[unit_of[rows[humans]]]]
    found: dict[str, Statistic] = {}
    for metric, kinds, values in (
        ("cross_instruction", _LLM, scores),
        ("cross_instruction_direct", ("direct",), scores),
        ("cross_instruction_longer", _LLM, words),
    ):
        ours = comparisons.members(*kinds)
        ours = ours[inside[unit_of[rows[ours]]]]
        if len(ours) and len(humans):
            found[metric] = CrossAuc(unit_of[rows[ours]], values[ours], unit_of[rows[humans]], values[humans])
    return found


def _means(sources: list[dict[str, Measure]]) -> dict[str, Measure]:
    return {
        metric: mean_measure([measures[metric] for measures in sources if metric in measures])
        for metric in METRICS
        if any(metric in measures for measures in sources)
    }


def _refusals(comparisons: Comparisons, scores: np.ndarray) -> dict[str, list[tuple[str, float]]]:
    """Compute how often each stock refusal scores below the responses, worst first."""
    found = {}
    for side, texts in comparisons.refusal_of.items():
        pairs, which = comparisons.pairs[f"refusal_below_{side}"], np.array(texts)
        below = 0.5 + 0.5 * np.sign(scores[pairs[:, 1]] - scores[pairs[:, 2]])
        shares = [(text, float(below[which == i].mean())) for i, text in enumerate(HELD_OUT_REFUSALS) if (which == i).any()]
        found[side] = sorted(shares, key=lambda share: share[1])
    return found


def spread_rows(triples: Sequence[Triple], rows: int) -> list[Triple]:
    """
    Take at most `rows` rows of each source, evenly spaced.

    Args:
        triples (`Sequence[Triple]`): the rows.
        rows (`int`): maximum number of rows per source, at least 1.

    Returns:
        `list[Triple]`: in the original order.
    """
    if rows < 1:
        raise ValueError(f"`rows` must be at least 1, got {rows}.")
    by_source: dict[str, list[int]] = {}
    for i, triple in enumerate(triples):
        by_source.setdefault(triple.source, []).append(i)
    kept = {found[i * len(found) // n] for found in by_source.values() for n in [min(rows, len(found))] for i in range(n)}
    return [triple for i, triple in enumerate(triples) if i in kept]
