"""Join pairs of rows into groups, and choose the row of each group to keep."""

from collections.abc import Collection

import numpy as np


class Groups:
    """
    Groups of rows (union-find), each represented by its first row.

    Args:
        count (`int`): number of rows; each starts as its own group.
    """

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count)

    def labels(self) -> np.ndarray:
        """Return the number of the first row of each row's group, int64."""
        while not np.array_equal(parents := self._parents[self._parents], self._parents):
            self._parents = parents
        return self._parents

    def apart(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return whether the rows of each pair are still in different groups, bool."""
        labels = self.labels()
        return labels[left] != labels[right]

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Merge the groups of each pair of rows."""
        parents = self._parents
        for pair in zip(left.tolist(), right.tolist(), strict=True):
            first, second = sorted(map(self._first, pair))
            parents[second] = first
            for row in pair:
                parents[row] = first

    def _first(self, row: int) -> int:
        parents = self._parents
        while (parent := int(parents[row])) != row:
            parents[row] = parents[parent]
            row = parent
        return row


def best_of_groups(
    labels: np.ndarray, scores: np.ndarray | None = None, without: Collection[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """
    Choose the row of each group to keep: the one with the best score, on ties the earliest.

    Args:
        labels (`np.ndarray` of shape `(n,)`, int): rows with equal labels form a group.
        scores (`np.ndarray` of shape `(n,)`, *optional*): NaN for missing scores, which rank below any score.
        without (`Collection[int]`, *optional*): rows that belong to no group.

    Returns:
        `(rows, stays)`: the rows to drop, ascending, and for each the row that is kept instead.
    """
    members = np.ones(len(labels), dtype=bool)
    members[list(without)] = False
    rows = np.flatnonzero(members)
    # NaN sorts last, even when negated; lexsort is stable, so on ties the earlier row comes first.
    keys = (labels[rows],) if scores is None else (-np.asarray(scores, dtype=np.float64)[rows], labels[rows])
    rows = rows[np.lexsort(keys)]
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = labels[rows[1:]] != labels[rows[:-1]]
    stays = rows[is_first][np.cumsum(is_first) - 1]
    leave, stay = rows[~is_first], stays[~is_first]
    order = np.argsort(leave)
    return leave[order], stay[order]


def check_scores(scores: np.ndarray | None, count: int) -> None:
    """Raise a `ValueError` unless `scores` is `None` or has one score per row."""
    if scores is not None and np.shape(scores) != (count,):
        raise ValueError(f"`scores` must be one number for each of {count} rows, got an array of shape {np.shape(scores)}.")
