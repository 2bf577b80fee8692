"""Divides the rows of a chunk into those whose scores are in the cache and those that are still to be computed."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np

from .cache import ChunkScores, ScoreCache


@dataclass(frozen=True, slots=True)
class PartlyScored:
    """
    The rows of a chunk of which the cache knows some. Rows that cannot be scored count as known.

    Args:
        digests (`Sequence[bytes]`): the digests of n rows.
        result ([`~scar_hf.scoring.cache.ChunkScores`]): the scores so far, NaN for rows without one.
        missing (`np.ndarray`): places of the rows to compute.
        awaited (`np.ndarray`): places of rows that an earlier chunk computes.
    """

    digests: Sequence[bytes]
    result: ChunkScores
    missing: np.ndarray
    awaited: np.ndarray

    @classmethod
    def of(
        cls, digests: Sequence[bytes], places: np.ndarray, cache: ScoreCache | None, in_work: Container[bytes] = ()
    ) -> "PartlyScored":
        """
        Look up rows.

        Args:
            digests (`Sequence[bytes]`): the digests of n rows.
            places (`np.ndarray`): places of the rows that can be scored.
            cache ([`~scar_hf.scoring.cache.ScoreCache`], *optional*): the score cache.
            in_work (`Container[bytes]`, *optional*): digests of the rows of earlier chunks that are being computed.

        Returns:
            [`PartlyScored`].
        """
        result, awaited = ChunkScores.empty(len(digests)), np.zeros(len(places), dtype=bool)
        if cache is not None and len(places):
            found, known = cache.get([digests[i] for i in places])
            result.scores[places[found]], result.truncated[places[found]] = known.scores[found], known.truncated[found]
            places = places[~found]
            awaited = np.array([digests[i] in in_work for i in places], dtype=bool)
        return cls(digests, result, places[~awaited], places[awaited])

    def complete(
        self, computed: ChunkScores | None, compute: Callable[[np.ndarray], ChunkScores], cache: ScoreCache | None
    ) -> ChunkScores:
        """
        Add the rows that were not known.

        Args:
            computed ([`~scar_hf.scoring.cache.ChunkScores`], *optional*): the scores of the missing rows.
            compute (`Callable`): scores rows by their places, if a row was not computed after all.
            cache ([`~scar_hf.scoring.cache.ScoreCache`], *optional*): the score cache, which also gets the scores.

        Returns:
            [`~scar_hf.scoring.cache.ChunkScores`]: the scores of the whole chunk.
        """
        if computed is not None:
            self._add(self.missing, computed, cache)
        if len(self.awaited):
            others = PartlyScored.of(self.digests, self.awaited, cache)
            found = others.result
            self._add(self.awaited, ChunkScores(found.scores[self.awaited], found.truncated[self.awaited]), None)
            if len(others.missing):
                self._add(others.missing, compute(others.missing), cache)
        return self.result

    def _add(self, places: np.ndarray, scores: ChunkScores, cache: ScoreCache | None) -> None:
        self.result.scores[places], self.result.truncated[places] = scores.scores, scores.truncated
        if cache is not None:
            cache.put([self.digests[i] for i in places], scores)
