"""Divides a chunk into rows whose scores are in the cache and rows that are still to be computed."""

from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from .cache import ChunkScores, ScoreCache
from .chunks import Chunk


@dataclass(frozen=True, slots=True)
class PartlyScored:
    """
    A chunk of which the cache knows some rows. Rows that cannot be scored count as known.

    Args:
        chunk ([`~scar_hf.scoring.chunks.Chunk`]): n rows.
        result ([`~scar_hf.scoring.cache.ChunkScores`]): the scores so far, NaN for rows without one.
        missing (`np.ndarray`): places of the rows to compute.
        awaited (`np.ndarray`): places of rows that an earlier chunk computes.
    """

    chunk: Chunk
    result: ChunkScores
    missing: np.ndarray
    awaited: np.ndarray

    @classmethod
    def of(cls, chunk: Chunk, cache: ScoreCache | None, in_work: Container[bytes] = ()) -> "PartlyScored":
        """
        Look up the rows of a chunk.

        Args:
            chunk ([`~scar_hf.scoring.chunks.Chunk`]): n rows.
            cache ([`~scar_hf.scoring.cache.ScoreCache`], *optional*): the score cache.
            in_work (`Container[bytes]`, *optional*): digests of the rows of earlier chunks that are being computed.

        Returns:
            [`PartlyScored`].
        """
        places = np.array([i for i, row in enumerate(chunk.rows) if row.problem is None], dtype=np.int64)
        result, awaited = ChunkScores.empty(len(chunk.rows)), np.zeros(len(places), dtype=bool)
        if cache is not None and len(places):
            found, known = cache.get([chunk.digests[i] for i in places])
            result.scores[places[found]], result.truncated[places[found]] = known.scores[found], known.truncated[found]
            places = places[~found]
            awaited = np.array([chunk.digests[i] in in_work for i in places], dtype=bool)
        return cls(chunk, result, places[~awaited], places[awaited])

    @property
    def to_compute(self) -> Chunk:
        """The rows to compute."""
        return self.chunk.of(self.missing)

    def complete(
        self, computed: ChunkScores | None, compute: Callable[[Chunk], ChunkScores], cache: ScoreCache | None
    ) -> ChunkScores:
        """
        Add the rows that were not known.

        Args:
            computed ([`~scar_hf.scoring.cache.ChunkScores`], *optional*): the scores of [`PartlyScored.to_compute`].
            compute (`Callable`): scores a chunk, if a row was not computed after all.
            cache ([`~scar_hf.scoring.cache.ScoreCache`], *optional*): the score cache, which also gets the scores.

        Returns:
            [`~scar_hf.scoring.cache.ChunkScores`]: the scores of the whole chunk.
        """
        if computed is not None:
            self._add(self.missing, computed, cache)
        if len(self.awaited):
            others = PartlyScored.of(self.chunk.of(self.awaited), cache)
            self._add(self.awaited, others.result, None)
            if len(others.missing):
                places = self.awaited[others.missing]
                self._add(places, compute(self.chunk.of(places)), cache)
        return self.result

    def _add(self, places: np.ndarray, scores: ChunkScores, cache: ScoreCache | None) -> None:
        self.result.scores[places], self.result.truncated[places] = scores.scores, scores.truncated
        if cache is not None:
            cache.put([self.chunk.digests[i] for i in places], scores)


def score_missing(chunk: Chunk, cache: ScoreCache | None, compute: Callable[[Chunk], ChunkScores]) -> ChunkScores:
    """
    Score a chunk, computing only the rows that the cache does not know.

    Args:
        chunk ([`~scar_hf.scoring.chunks.Chunk`]): n rows.
        cache ([`~scar_hf.scoring.cache.ScoreCache`], *optional*): the score cache.
        compute (`Callable`): scores a chunk.

    Returns:
        [`~scar_hf.scoring.cache.ChunkScores`]: n scores.
    """
    part = PartlyScored.of(chunk, cache)
    return part.complete(compute(part.to_compute) if len(part.missing) else None, compute, cache)
