"""Methods that need no model: random rows, the longest responses, and a column of the data."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..rows.pairs import RowPairs, check_rows
from ..rows.source import RowSource
from ..scoring.cache import ChunkScores
from ..scoring.chunks import cut_chunks
from ..scoring.datasets import ScoredRows
from .scorer import MethodScorer


class RandomScorer(MethodScorer):
    """
    A random draw, the baseline that is hardest to beat (arXiv 2410.09335). A row's score depends only on its content and
    the seed, not on the order of the rows; equal rows have equal scores.

    Args:
        seed (`int`, *optional*, defaults to 0): seed of the draw.
        settings: as for [`~scar_hf.ScarScorer`].
    """

    method = "random"

    def __init__(self, seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.seed = seed

    def score_pairs(self, rows: Sequence[RowPairs]) -> ChunkScores:
        """Score rows with numbers uniformly distributed in [0, 1)."""
        start = f"scar-hf random {self.seed}\n".encode()
        drawn = [int.from_bytes(sha256(start + row.digest()).digest()[:4], "big") / 2**32 for row in rows]
        return ChunkScores(np.array(drawn, dtype=np.float32), np.zeros(len(rows), dtype=bool))

    def own_identity(self) -> dict[str, Any]:
        """Return the seed."""
        return {"seed": self.seed}

    def _arguments(self) -> dict[str, Any]:
        return {"seed": self.seed}


class LongestScorer(MethodScorer):
    """
    Ranks the longest responses first (arXiv 2402.04833). Length is counted in characters, which needs no tokenizer and suits
    any language, and summed over turns. With `preference="margin"`, the length of the rejected response is subtracted.

    Args:
        settings: as for [`~scar_hf.ScarScorer`].
    """

    method = "longest"

    def score_pairs(self, rows: Sequence[RowPairs]) -> ChunkScores:
        """Score rows by the number of characters of their responses."""
        lengths = [_length(row.pairs) - _length(row.against) for row in rows]
        return ChunkScores(np.array(lengths, dtype=np.float32), np.zeros(len(rows), dtype=bool))


class ColumnScorer(MethodScorer):
    """
    Ranks rows by the numbers in a column, highest first, such as scores of a reward model or a judge.

    Args:
        column (`str`): name of the column. Values are numbers or numeric texts, of which seven digits count; rows without a
            number have no score.
        settings: as for [`~scar_hf.ScarScorer`].
    """

    def __init__(self, column: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.method = self.column = column

    def score_shards(self, source: RowSource, cache: bool, bar: tqdm) -> list[ScoredRows]:
        """Read the column. Raise a `ValueError` if no row has a number there."""
        parts: list[ScoredRows] = []
        for part in source.parts([self.column]):
            start = sum(len(found.scores) for found in parts)
            parts.append(self._score_part(part, start, bar))
        if not any(np.isfinite(part.scores).any() for part in parts):
            raise ValueError(
                f"No row has a number in the column {self.column!r}. Pass a method (see scar_hf.methods.METHODS) or the name "
                "of a column of numbers."
            )
        return parts

    def _arguments(self) -> dict[str, Any]:
        return {"column": self.column}

    def _score_part(self, part: Iterable[tuple[list[RowPairs], Mapping[str, list[Any]]]], start: int, bar: tqdm) -> ScoredRows:
        scores: list[float] = []
        skipped: dict[int, str] = {}

        def rows() -> Iterator[RowPairs]:
            for read, columns in part:
                if self.settings.strict:
                    check_rows(read, start + len(scores))
                for row, value in zip(read, columns.get(self.column, [None] * len(read)), strict=True):
                    number = _number(value)
                    problem = row.problem or (None if math.isfinite(number) else f"no number in {self.column!r}")
                    if problem is not None:
                        skipped[start + len(scores)] = problem
                    scores.append(math.nan if problem is not None else number)
                    yield row
                bar.update(len(read))

        hashes = [chunk.row_hashes for chunk in cut_chunks(rows())]
        joined = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
        return ScoredRows(_as_scores(scores, self.column), np.zeros(len(scores), dtype=bool), joined, skipped)


def _as_scores(numbers: Sequence[float], column: str) -> np.ndarray:
    """Return numbers as float32. Raise a `ValueError` if that would lose their order, as with times in seconds."""
    exact = np.array(numbers, dtype=np.float64)
    with np.errstate(over="ignore"):
        scores = exact.astype(np.float32)
    numbered = np.isfinite(exact)
    if np.isinf(scores).any() or 2 * len(np.unique(scores[numbered])) < len(np.unique(exact[numbered])):
        raise ValueError(
            f"The numbers in {column!r} differ too little for their size: scores hold seven digits, and they range from "
            f"{exact[numbered].min():.17g} to {exact[numbered].max():.17g}. Rank or rescale them first, for example by "
            "subtracting the smallest."
        )
    return scores


def _length(pairs: Sequence[tuple[Any, Any]]) -> int:
    return sum(len(response) for _, response in pairs)


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, (int, float, str, np.number)) else math.nan
    except (ValueError, OverflowError):
        return math.nan
