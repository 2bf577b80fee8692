"""Build the comparisons of an evaluation: pairs of responses, with the one that should score higher first."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from random import Random
from typing import Any

import numpy as np

from .augmentation import strip_comments, strip_markdown
from .negatives import HELD_OUT_REFUSALS, truncated
from .triples import Triple, same_instruction

ORDERINGS = (("direct", "human"), ("direct", "referenced"), ("referenced", "human"))
_MATCHED = 0.75  # "within 25 %": minimum ratio of the shorter to the longer length in words
_READ_WORDS = 250  # truncate within these first words, because a ranker may not read further


class Comparisons:
    """
    Pairs of responses by metric; each distinct text of a row is stored once.

    Args:
        triples (`Sequence[Triple]`): the rows.
    """

    def __init__(self, triples: Sequence[Triple]) -> None:
        self.triples = list(triples)
        self._keys: dict[tuple[int, str], int] = {}
        self._found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        self.refusal_of: dict[str, list[int]] = defaultdict(list)
        for row, triple in enumerate(self.triples):
            self._add_orderings(row, triple)
            self._add_refusals(row, triple)
            self._add_truncated(row, triple)
        self._add_mismatches()
        self.pairs = {name: np.array(found, dtype=np.int64).reshape(-1, 3) for name, found in self._found.items()}

    @property
    def rows(self) -> np.ndarray:
        """The row of each text, of shape `(n,)`."""
        return np.array([row for row, _ in self._keys], dtype=np.int64)

    @property
    def words(self) -> np.ndarray:
        """The length in words of each text, of shape `(n,)`."""
        return np.array([len(text.split()) for _, text in self._keys], dtype=np.int64)

    def members(self, *kinds: str) -> np.ndarray:
        """Return the positions of all responses of the given kinds, of shape `(k,)`."""
        found = [
            self._keys[row, text]
            for row, triple in enumerate(self.triples)
            for kind in kinds
            for text in triple.responses.get(kind, ())
        ]
        return np.array(found, dtype=np.int64)

    def score(self, scorer: Any, progress: bool = False) -> np.ndarray:
        """Score all texts in one call: each distinct text once, ordered by source and length; return shape `(n,)`."""
        place = {row: i for i, row in enumerate(sorted(range(len(self.triples)), key=self._likeness))}
        keys = sorted(self._keys, key=lambda key: place[key[0]])
        pairs = [(self.triples[row].instruction, text) for row, text in keys]
        distinct = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        found = scorer.score([x for x, _ in distinct], [y for _, y in distinct], progress=progress)
        scores = np.empty(len(keys))
        scores[[self._keys[key] for key in keys]] = found[[distinct[pair] for pair in pairs]]
        return scores

    def _likeness(self, row: int) -> tuple[str, int]:
        texts = next(iter(self.triples[row].responses.values()), [""])
        return self.triples[row].source, len(texts[0].split())

    def _add(self, metric: str, row: int, better: str, worse: str) -> None:
        sides = (self._keys.setdefault((row, text), len(self._keys)) for text in (better, worse))
        self._found[metric].append((row, *sides))  # type: ignore[arg-type]

    def _add_orderings(self, row: int, triple: Triple) -> None:
        strips: list[tuple[str, Callable[[str], str]]] = [("markdown_stripped", strip_markdown)]
        if triple.domain == "code":
            strips.append(("comments_stripped", strip_comments))
        for a, b in ORDERINGS:
            for better, worse in product(triple.responses.get(a, ()), triple.responses.get(b, ())):
                self._add(f"{a}_{b}", row, better, worse)
                if b != "human":
                    continue
                self._add("llm_human", row, better, worse)
                if _matched(better, worse):
                    self._add("length_matched", row, better, worse)
                for metric, strip in strips:
                    self._add(metric, row, strip(better), strip(worse))

    def _add_refusals(self, row: int, triple: Triple) -> None:
        for side, kinds in _SIDES.items():
            for text in (text for kind in kinds for text in triple.responses.get(kind, ())):
                for refusal in HELD_OUT_REFUSALS:
                    if refusal != text:
                        self.refusal_of[side].append(HELD_OUT_REFUSALS.index(refusal))
                        self._add(f"refusal_below_{side}", row, text, refusal)

    def _add_truncated(self, row: int, triple: Triple) -> None:
        for kinds in _SIDES.values():
            text = _one_of(triple, kinds, row)
            beginning = text and truncated(" ".join(text.split(" ")[:_READ_WORDS]), Random(row))
            if text and beginning:
                self._add("truncated_below", row, text, beginning)

    def _add_mismatches(self) -> None:
        """Compare each response with the one nearest in length to another instruction of its source, if within 25 %."""
        by_source: dict[str, list[int]] = defaultdict(list)
        for row, triple in enumerate(self.triples):
            by_source[triple.source].append(row)
        for rows in by_source.values():
            for side, kinds in _SIDES.items():
                texts = [(row, _one_of(self.triples[row], kinds, row)) for row in rows]
                pool = sorted((len(text.split()), row, text) for row, text in texts if text)
                for i, (_, row, text) in enumerate(pool):
                    instruction = same_instruction(self.triples[row].instruction)
                    for _, other, wrong in _outward(pool, i):
                        if wrong != text and same_instruction(self.triples[other].instruction) != instruction:
                            if _matched(text, wrong):
                                self._add(f"right_question_{side}", row, text, wrong)
                            break


_SIDES = {"human": ("human",), "llm": ("direct", "referenced")}


def _one_of(triple: Triple, kinds: Sequence[str], row: int) -> str | None:
    """Return one response of the given kinds, selected by row number if there are several."""
    texts = [text for kind in kinds for text in triple.responses.get(kind, ())]
    return texts[row % len(texts)] if texts else None


def _outward(pool: list[tuple[int, int, str]], start: int) -> Iterator[tuple[int, int, str]]:
    """Yield the other entries of a sorted list, nearest in length first."""
    length, low, high = pool[start][0], start - 1, start + 1
    while low >= 0 or high < len(pool):
        if high >= len(pool) or (low >= 0 and length - pool[low][0] <= pool[high][0] - length):
            yield pool[low]
            low -= 1
        else:
            yield pool[high]
            high += 1


def _matched(text: str, other: str) -> bool:
    shorter, longer = sorted((len(text.split()), len(other.split())))
    return shorter >= _MATCHED * max(1, longer)
