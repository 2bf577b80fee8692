"""Find exact duplicates."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from ..rows.pairs import RowPairs
from ..scoring.chunks import short_hash
from .grouping import best_of_groups, check_scores
from .texts import batches_of


class ExactDuplicates:
    """
    Finds rows with exactly the same instruction and response. Keeps 64 bits per row in memory.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from scar_hf.curation import ExactDuplicates, curate

    >>> ds = Dataset.from_dict({"instruction": ["2 + 2?"] * 2, "response": ["4"] * 2})
    >>> curate(ds, [ExactDuplicates()]).dropped
    {1: 'duplicate of row 0'}
    ```
    """

    def __init__(self) -> None:
        self._hashes: list[np.ndarray] = []
        self._unreadable: list[int] = []
        self._count = 0

    def fresh(self) -> "ExactDuplicates":
        """Return a step with the same settings and no rows."""
        return ExactDuplicates()

    def __len__(self) -> int:
        return self._count

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the result, for a manifest (`dict`)."""
        return {"step": "duplicates"}

    def add(self, rows: Iterable[RowPairs]) -> None:
        """Add rows (`Iterable[RowPairs]`); numbering continues, and rows without a readable pair count but are ignored."""
        for batch in batches_of(rows):
            self._hashes.append(np.array([short_hash(row) for row in batch], dtype=np.uint64))
            self._unreadable += [self._count + i for i, row in enumerate(batch) if row.problem is not None]
            self._count += len(batch)

    def dropped(self, scores: np.ndarray | None = None, without: Collection[int] = ()) -> dict[int, str]:
        """
        Return the rows to drop: all but the best-scored of equal rows, on ties all but the earliest.

        Args:
            scores (`np.ndarray` of shape `(n,)`, *optional*): NaN for missing scores. Without it, the earliest row is kept.
            without (`Collection[int]`, *optional*): rows already dropped.

        Returns:
            `dict[int, str]`: reasons by row number, ascending.

        Raises:
            `ValueError`: if the number of scores differs from the number of rows.
        """
        check_scores(scores, len(self))
        hashes = np.concatenate([np.empty(0, dtype=np.uint64), *self._hashes])
        labels = np.unique(hashes, return_inverse=True)[1]
        rows, stays = best_of_groups(labels, scores, [*without, *self._unreadable])
        return {row: f"duplicate of row {stay}" for row, stay in zip(rows.tolist(), stays.tolist(), strict=True)}
