"""Store sets of word n-grams in a temporary file, and compute the similarity of pairs of sets."""

import tempfile
import weakref
from typing import Any

import numpy as np

from .texts import spread

_PAIRS = 8192
_HALF = np.uint64(32)


class Scratch:
    """
    An append-only array in a temporary file, which is deleted with this object.

    Args:
        dtype (`type`): type of the numbers.
    """

    def __init__(self, dtype: Any) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, open until this object is deleted
        weakref.finalize(self, self._file.close)
        self._dtype, self._count = dtype, 0

    def append(self, numbers: np.ndarray) -> None:
        """Append numbers."""
        self._file.write(numbers.astype(self._dtype, copy=False).tobytes())
        self._count += numbers.size

    def mapped(self) -> np.ndarray:
        """Return all numbers appended so far as a memory-mapped array."""
        self._file.flush()
        # An empty file cannot be mapped.
        if not self._count:
            return np.empty(0, dtype=self._dtype)
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self._count,))


class GramSets:
    """One set of n-grams per row, in a temporary file with 4 bytes per n-gram."""

    def __init__(self) -> None:
        self._scratch = Scratch(np.uint32)
        self._sizes: list[np.ndarray] = []

    def add(self, hashes: np.ndarray, offsets: np.ndarray) -> None:
        """Add the n-grams of m rows, as returned by [`~scar_hf.curation.texts.hash_ngrams`]."""
        count = len(offsets) - 1
        # Combine row and n-gram in one number, so that np.unique sorts and deduplicates the n-grams of each row.
        owners = np.repeat(np.arange(count, dtype=np.uint64), np.diff(offsets))
        grams = np.unique((owners << _HALF) | (hashes >> _HALF))
        self._scratch.append(grams)
        self._sizes.append(np.bincount((grams >> _HALF).astype(np.int64), minlength=count))

    def open(self) -> None:
        """Prepare the sets added so far for comparison."""
        self.sizes = np.concatenate([np.empty(0, dtype=np.int64), *self._sizes])
        self._offsets = np.concatenate([[0], np.cumsum(self.sizes)])
        self._grams = self._scratch.mapped()

    def similarities(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """
        Compute the Jaccard similarities of pairs of rows: shared n-grams over all n-grams.

        Args:
            left, right (`np.ndarray` of shape `(m,)`, int64): row numbers.

        Returns:
            `np.ndarray` of shape `(m,)`, float64: similarities; that of two empty sets is 0.
        """
        parts = [np.empty(0)]
        for start in range(0, len(left), _PAIRS):
            parts.append(self._similarities(left[start : start + _PAIRS], right[start : start + _PAIRS]))
        return np.concatenate(parts)

    def _similarities(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        pairs = np.arange(len(left), dtype=np.uint64) << _HALF
        both = []
        for rows in (left, right):
            grams = self._grams[spread(self._offsets[rows], self.sizes[rows])]
            both.append(np.repeat(pairs, self.sizes[rows]) | grams)
        merged = np.sort(np.concatenate(both))
        shared = merged[1:][merged[1:] == merged[:-1]] >> _HALF
        common = np.bincount(shared.astype(np.int64), minlength=len(left))
        return common / np.maximum(self.sizes[left] + self.sizes[right] - common, 1)
