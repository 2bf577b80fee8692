"""Find rows that share a long run of words or a short instruction with an evaluation set."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

import numpy as np

from ..rows.pairs import RowPairs
from .row_step import RowStep
from .texts import batches_of, hash_ngrams, parts_of, places_of, words_of

# Short instructions are hashed with a different seed, so that they cannot match a run of words.
_WHOLE_SEED = 1


class Contamination(RowStep):
    """
    Finds rows that overlap with evaluation sets: rows that share a run of `ngram` words, ignoring case and punctuation, or
    the same shorter instruction, ignoring only case and whitespace.

    Runs of words that occur in more than `max_rows` rows of the evaluation sets are ignored as parts of a template.

    Args:
        evaluation (`Mapping[str, Iterable[RowPairs]]`): rows of each evaluation set by name; takes 20 bytes per word.
        ngram (`int`, *optional*, defaults to 13): number of shared consecutive words that counts as overlap, at least 2.
        max_rows (`int`, *optional*, defaults to 10): ignore runs of words that occur in more evaluation rows than this.
        on (`str`, *optional*, defaults to `"both"`):
            Parts of the rows to compare: `"instruction"`, `"response"`, or both, each with each.

    Raises:
        `ValueError`: if a setting is out of range, or no evaluation set has a readable row.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from scar_hf.curation import contamination_of, curate

    >>> question = "A garden is twice as long as it is wide, and its fence is 60 metres long. How wide is it?"
    >>> test = Dataset.from_dict({"instruction": [question], "response": ["10 metres."]})
    >>> ds = Dataset.from_dict({"instruction": ["What is moss?", question], "response": ["A plant.", "Ten metres."]})
    >>> list(curate(ds, [contamination_of({"test": test})]).dropped)
    [1]
    ```
    """

    def __init__(
        self, evaluation: Mapping[str, Iterable[RowPairs]], *, ngram: int = 13, max_rows: int = 10, on: str = "both"
    ) -> None:
        if ngram < 2 or max_rows < 1:
            raise ValueError(f"`ngram` must be at least 2 and `max_rows` at least 1, got {ngram} and {max_rows}.")
        self.ngram, self.max_rows, self.on = ngram, max_rows, on
        self._parts = parts_of(on)
        self._names, self._starts = list(evaluation), [0]
        hashes, rows = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
        readable, count = 0, 0
        for name in self._names:
            for batch in batches_of(evaluation[name]):
                found, owners, _ = self._runs(batch)
                hashes.append(found)
                rows.append(owners + count)
                readable += sum(row.problem is None for row in batch)
                count += len(batch)
            self._starts.append(count)
        if not readable:
            raise ValueError(f"No row of the evaluation sets {self._names} has an instruction and a response that can be read.")
        self._hashes, self._rows = _index(np.concatenate(hashes), np.concatenate(rows), max_rows)
        self._sha256 = sha256(self._hashes.tobytes() + self._rows.tobytes()).hexdigest()
        super().__init__()

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the result, for a manifest (`dict`)."""
        counts = np.diff(self._starts).tolist()
        evaluation = dict(zip(self._names, counts, strict=True))
        return {
            "step": "contamination",
            "evaluation_rows": evaluation,
            "evaluation_sha256": self._sha256,
            "ngram": self.ngram,
            "max_rows": self.max_rows,
            "on": self.on,
        }

    def add(self, rows: Iterable[RowPairs]) -> None:
        """Add rows (`Iterable[RowPairs]`); numbering continues, and rows without a readable pair count but are ignored."""
        for batch in batches_of(rows):
            hashes, owners, texts = self._runs(batch)
            at, known = places_of(hashes, self._hashes)
            hits = np.flatnonzero(known)
            totals, found = np.bincount(owners), np.bincount(owners[hits])
            for owner, hit in zip(*(part.tolist() for part in np.unique(owners[hits], return_index=True)), strict=True):
                position = int(hits[hit])
                evidence = f"{texts(position)} ({found[owner]} of {totals[owner]})"
                self._dropped[self._count + owner] = (
                    f"in the evaluation set: {self._name(int(self._rows[at[position]]))}, {evidence}"
                )
            self._count += len(batch)

    def _runs(self, rows: list[RowPairs]) -> tuple[np.ndarray, np.ndarray, Callable[[int], str]]:
        """Return the hashes of the rows, the row of each hash, and a function from the position of a hash to its words."""
        parts = self._parts
        texts = [words_of(row.text(part)) for row in rows for part in parts]
        hashes, offsets = hash_ngrams(texts, self.ngram)
        owners = np.repeat(np.arange(len(texts)) // len(parts), np.diff(offsets))
        short: dict[int, str] = {}
        if "instruction" in parts:
            for i, row in enumerate(rows):
                if len(texts[i * len(parts)]) < self.ngram and (instruction := row.text("instruction").strip()):
                    short[i] = " ".join(instruction.lower().split())
        whole, _ = hash_ngrams([[text] for text in short.values()], 1, _WHOLE_SEED)
        shown = list(short.values())

        def words(position: int) -> str:
            if position >= len(hashes):
                return f"the same instruction '{shown[position - len(hashes)]}'"
            text = int(np.searchsorted(offsets, position, side="right")) - 1
            start = position - int(offsets[text])
            return f"{self.ngram}-gram '{' '.join(texts[text][start : start + self.ngram])}'"

        every = np.concatenate([owners, np.array(list(short), dtype=np.int64)])
        return np.concatenate([hashes, whole]), every, words

    def _name(self, row: int) -> str:
        """Return the evaluation set and its row for a row number over all sets."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"row {row - self._starts[place]} of {self._names[place]}"


def _index(hashes: np.ndarray, rows: np.ndarray, max_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted hashes that occur in at most `max_rows` rows, and the first row of each."""
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    is_new = np.ones(len(hashes), dtype=bool)
    is_new[1:] = (hashes[1:] != hashes[:-1]) | (rows[1:] != rows[:-1])
    hashes, first, counts = np.unique(hashes[is_new], return_index=True, return_counts=True)
    few = counts <= max_rows
    return hashes[few], rows[is_new][first[few]]
