"""Find near-duplicates: MinHash bands find candidate pairs, and the exact Jaccard similarity decides."""

from collections.abc import Collection, Iterable
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np

from ..rows.pairs import RowPairs
from .gram_sets import GramSets, Scratch
from .grouping import Groups, best_of_groups, check_scores
from .texts import MIXER, batches_of, hash_ngrams, parts_of, places_of, words_of

# Minimum probability that a pair exactly at the threshold shares a band.
_RECALL = 0.98
# Number of neighbours to compare each row with among rows with the same key; limits comparisons of boilerplate.
_NEIGHBOURS = 8


class NearDuplicates:
    """
    Finds nearly identical rows in near-linear time. The similarity of two rows is the Jaccard similarity of their sets of
    word n-grams: shared n-grams over all n-grams. Bands of MinHash signatures (from the library rensa) find candidate pairs,
    whose similarity is then computed exactly. Near-duplicates of near-duplicates belong to the same group.

    Two questions about one long passage share nearly all of their text, but are not duplicates, because their answers differ.
    Rows are therefore not linked if the similarity of their responses is below `response_threshold`.

    Bands and n-grams are stored in temporary files, with at most 2 bytes per row for each of `num_perm` and 8 bytes per word;
    memory use is about 60 bytes per row. The same rows and seed give the same groups in every process.

    Args:
        threshold (`float`, *optional*, defaults to 0.8): minimum similarity of near-duplicates, in (0, 1].
        num_perm (`int`, *optional*, defaults to 256): size of a signature; larger ones miss fewer pairs near the threshold.
        ngram (`int`, *optional*, defaults to 3): number of words in an n-gram; a shorter text is one n-gram.
        seed (`int`, *optional*, defaults to 0): seed of the hashes.
        on (`str`, *optional*, defaults to `"both"`):
            Part of the rows to compare: `"instruction"`, `"response"`, or both together.
        response_threshold (`float`, *optional*):
            With `on="both"`, minimum similarity of the responses alone, in [0, 1]. By default a quarter of `threshold`.

    Raises:
        `ImportError`: if rensa is not installed: `pip install "scar-hf[curation]"`.
        `ValueError`: if a setting is out of range.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from scar_hf.curation import NearDuplicates, curate

    >>> text = "Bees eat nectar and pollen, which they collect from the flowers of many plants in gardens and meadows"
    >>> responses = [f"{text} all summer.", f"{text} all summer!", "Moss is a small plant."]
    >>> ds = Dataset.from_dict({"instruction": ["Tell me something."] * 3, "response": responses})
    >>> curate(ds, [NearDuplicates(0.8)]).dropped
    {1: 'near-duplicate of row 0 (Jaccard ...)'}
    ```
    """

    def __init__(
        self,
        threshold: float = 0.8,
        *,
        num_perm: int = 256,
        ngram: int = 3,
        seed: int = 0,
        on: str = "both",
        response_threshold: float | None = None,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"`threshold` must be a Jaccard similarity in (0, 1], got {threshold}.")
        if num_perm < 16 or ngram < 1 or not 0 <= seed < 2**64:
            raise ValueError(
                f"`num_perm` must be at least 16, `ngram` at least 1 and `seed` in [0, 2**64), got {num_perm}, {ngram}, {seed}."
            )
        if response_threshold is not None and not 0 <= response_threshold <= 1:
            raise ValueError(f"`response_threshold` must be a Jaccard similarity in [0, 1], got {response_threshold}.")
        self._parts = parts_of(on)
        self._minhash = _rensa().RMinHash
        self.threshold, self.num_perm, self.ngram, self.seed, self.on = threshold, num_perm, ngram, seed, on
        self.response_threshold = threshold / 4 if response_threshold is None else response_threshold
        self._band_rows = _band_rows(threshold, num_perm)
        self._bands = num_perm // self._band_rows
        self._keys = Scratch(np.uint64)
        self._batches: list[int] = []
        self._compared = GramSets()
        self._responses = GramSets() if on == "both" and self.response_threshold > 0 else None
        self._groups: tuple[frozenset[int], Groups] | None = None

    def fresh(self) -> "NearDuplicates":
        """Return a step with the same settings and no rows."""
        found = {name: getattr(self, name) for name in ("num_perm", "ngram", "seed", "on", "response_threshold")}
        return NearDuplicates(self.threshold, **found)

    def __len__(self) -> int:
        return sum(self._batches)

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the result, for a manifest (`dict`)."""
        return {
            "step": "near-duplicates",
            "threshold": self.threshold,
            "response_threshold": self.response_threshold,
            "num_perm": self.num_perm,
            "ngram": self.ngram,
            "seed": self.seed,
            "on": self.on,
            "rensa": version("rensa"),
        }

    def add(self, rows: Iterable[RowPairs]) -> None:
        """
        Add rows; numbering continues.

        Args:
            rows (`Iterable[RowPairs]`): rows, read a thousand at a time. Rows without a readable pair or any word are
                numbered, but have no near-duplicates.
        """
        self._groups = None
        for batch in batches_of(rows):
            words = {part: [words_of(row.text(part)) for row in batch] for part in self._parts}
            hashes, offsets = self._hash([list(chain.from_iterable(texts)) for texts in zip(*words.values(), strict=True)])
            matrix = self._minhash.digest_matrix_from_flat_token_hashes(
                hashes, offsets.astype(np.uint64), self.num_perm, self.seed
            )
            self._keys.append(self._band_keys(np.array(matrix.to_rows(), dtype=np.uint64)))
            self._compared.add(hashes, offsets)
            if self._responses is not None:
                self._responses.add(*self._hash(words["response"]))
            self._batches.append(len(batch))

    def groups(self, without: Collection[int] = ()) -> np.ndarray:
        """
        Find the groups of near-duplicates among all rows so far.

        Args:
            without (`Collection[int]`, *optional*): rows that are ignored, each a group of its own.

        Returns:
            `np.ndarray` of shape `(n,)`, int64: the number of the first row of each row's group.
        """
        ignored = frozenset(without)
        if self._groups is None or self._groups[0] != ignored:
            self._compared.open()
            if self._responses is not None:
                self._responses.open()
            self._groups = ignored, self._link(ignored)
        return self._groups[1].labels()

    def dropped(self, scores: np.ndarray | None = None, without: Collection[int] = ()) -> dict[int, str]:
        """
        Return the rows to drop: all but the best-scored row of each group, on ties all but the earliest.

        Args:
            scores (`np.ndarray` of shape `(n,)`, *optional*): NaN for missing scores, which rank below any score. Without
                it, the earliest row of each group is kept.
            without (`Collection[int]`, *optional*): rows already dropped, which are ignored.

        Returns:
            `dict[int, str]`: reasons by row number, ascending; each names the row that is kept instead.

        Raises:
            `ValueError`: if the number of scores differs from the number of rows.
        """
        check_scores(scores, len(self))
        rows, stays = best_of_groups(self.groups(without), scores, without)
        return {
            row: f"near-duplicate of row {stay} (Jaccard {value:.2f}{'' if value >= self.threshold else ', through others'})"
            for row, stay, value in zip(rows.tolist(), stays.tolist(), self._compared.similarities(rows, stays), strict=True)
        }

    def _hash(self, texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        return hash_ngrams(texts, self.ngram, self.seed, whole=True)

    def _link(self, without: frozenset[int]) -> Groups:
        sizes = self._compared.sizes
        groups = Groups(len(sizes))
        # Pairs already found to be different, which may be candidates again in other bands.
        different = np.empty(0, dtype=np.int64)
        order = np.setdiff1d(np.flatnonzero(sizes), np.fromiter(without, np.int64, len(without)), assume_unique=True)
        keys_of_all = self._keys.mapped()
        for band in range(self._bands):
            keys = self._keys_of_band(keys_of_all, band)
            # A stable sort of the previous band's order keeps rows adjacent that also shared the previous key.
            order = order[np.argsort(keys[order], kind="stable")]
            keys = keys[order]
            found = [different]
            for step in range(1, _NEIGHBOURS + 1):
                same = np.flatnonzero(keys[step:] == keys[:-step])
                if not len(same):
                    break
                left, right = order[same], order[same + step]
                left, right = np.minimum(left, right), np.maximum(left, right)
                pairs = left * len(sizes) + right
                new = groups.apart(left, right) & ~places_of(pairs, different)[1]
                left, right, pairs = left[new], right[new], pairs[new]
                alike = self._alike(left, right)
                groups.join(left[alike], right[alike])
                found.append(pairs[~alike])
            different = np.sort(np.concatenate(found))
        return groups

    def _alike(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return whether pairs of rows are near-duplicates, bool."""
        sizes = self._compared.sizes
        # The ratio of the set sizes is an upper bound of their similarity.
        alike = np.minimum(sizes[left], sizes[right]) >= self.threshold * np.maximum(sizes[left], sizes[right])
        alike[alike] = self._compared.similarities(left[alike], right[alike]) >= self.threshold
        if self._responses is not None:
            alike[alike] = self._responses.similarities(left[alike], right[alike]) >= self.response_threshold
        return alike

    def _band_keys(self, signatures: np.ndarray) -> np.ndarray:
        """Compute one key per band and signature, of shape `(bands, rows)`."""
        bands = signatures[:, : self._bands * self._band_rows].reshape(len(signatures), self._bands, self._band_rows)
        keys = np.zeros(bands.shape[:2], dtype=np.uint64)
        for column in range(self._band_rows):
            keys = (keys ^ bands[:, :, column]) * MIXER
            keys ^= keys >> np.uint64(29)
        return np.ascontiguousarray(keys.T)

    def _keys_of_band(self, keys_of_all: np.ndarray, band: int) -> np.ndarray:
        """Return the keys of all rows in a band; each batch was written band by band."""
        keys, start = [np.empty(0, dtype=np.uint64)], 0
        for size in self._batches:
            begin = start * self._bands + band * size
            keys.append(keys_of_all[begin : begin + size])
            start += size
        return np.concatenate(keys)


def _band_rows(threshold: float, num_perm: int) -> int:
    """Return the largest number of rows per band that still finds pairs at the threshold."""
    found = [rows for rows in range(1, num_perm + 1) if 1 - (1 - threshold**rows) ** (num_perm // rows) >= _RECALL]
    return max(found, default=1)


def _rensa() -> Any:
    try:
        import rensa
    except ImportError as error:
        raise ImportError('Finding near-duplicates needs the library rensa: pip install "scar-hf[curation]".') from error
    return rensa
