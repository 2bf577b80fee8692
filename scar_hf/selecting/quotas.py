"""Divides a selection among groups of rows by the largest remainder method."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .criteria import share_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Groups:
    """
    Groups of rows, and their shares of a selection.

    Args:
        labels (`np.ndarray` of shape `(n,)`, int64): the number of each row's group.
        names (`list`): each group's value in the column, in order of first appearance; `None` for missing values.
        shares (`list[int | Fraction]`): each group's weight; quotas are proportional to these.
    """

    labels: np.ndarray
    names: list[Any]
    shares: list[int | Fraction]

    def quotas(self, count: int, available: np.ndarray) -> np.ndarray:
        """
        Divide a number of rows among the groups.

        Each group gets its exact share, rounded down; the groups with the largest remainders get one more row (ties go to
        the group that appears first). If a group has too few rows, the others share the rest in the same way.

        Args:
            count (`int`): number of rows to keep.
            available (`np.ndarray` of shape `(n,)`, bool): which rows may be kept.

        Returns:
            `np.ndarray` of shape `(groups,)`, int64: quotas that sum to `count`, or to fewer if the groups with a share
            have fewer rows.
        """
        room = np.bincount(self.labels[available], minlength=len(self.names)).tolist()
        quotas, left = [0] * len(room), count
        while left:
            open_groups = [g for g in range(len(room)) if quotas[g] < room[g] and self.shares[g]]
            if not open_groups:
                logger.warning("Only %d of %d rows can be kept: the groups with a share have no more.", count - left, count)
                break
            parts = largest_remainder([self.shares[g] for g in open_groups], left)
            for g, part in zip(open_groups, parts, strict=True):
                taken = min(part, room[g] - quotas[g])
                quotas[g] += taken
                left -= taken
        return np.array(quotas, dtype=np.int64)


def largest_remainder(shares: Sequence[int | Fraction], count: int) -> list[int]:
    """
    Divide a number into whole parts by the largest remainder (Hamilton) method, in exact arithmetic.

    Args:
        shares (`Sequence[int | Fraction]`): weights; none is negative and at least one is positive.
        count (`int`): the number to divide.

    Returns:
        `list[int]`: parts that sum to `count`, each within one of its exact share; ties go to the earlier part.
    """
    exact = [Fraction(count) * share / sum(shares) for share in shares]
    parts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (parts[i] - exact[i], i))
    for i in by_remainder[: count - sum(parts)]:
        parts[i] += 1
    return parts


class Grouping:
    """
    Groups rows by the values of a column, which may come in parts. Rows without a value form a group of their own; values not
    listed in `shares` get no rows.

    Args:
        name (`str`): the column's name, for messages.
        shares (`Mapping[Any, float]`, *optional*):
            Weights by value, or by its [`share_key`]; by default, the number of rows with each value.
    """

    def __init__(self, name: str, shares: Mapping[Any, float] | None = None) -> None:
        self.name, self.shares = name, shares
        self._numbers: dict[Any, int] = {}
        self._labels: list[int] = []

    def add(self, values: Iterable[Any]) -> None:
        """Add the values of further rows; raises a `ValueError` if one is a list or dictionary."""
        for value in values:
            if isinstance(value, (list, dict)):
                raise ValueError(
                    f"`stratify_by` names the column {self.name!r}, which holds {type(value).__name__}s. It must hold single "
                    "values."
                )
            self._labels.append(self._numbers.setdefault(None if value != value else value, len(self._numbers)))

    def groups(self) -> Groups:
        """Return the [`Groups`]; raises a `ValueError` if a value in `shares` does not occur."""
        names, found = list(self._numbers), np.array(self._labels, dtype=np.int64)
        if self.shares is None:
            return Groups(found, names, np.bincount(found, minlength=len(names)).tolist())
        # Keys of JSON objects are text: "2020" may stand for 2020, and "null" for a missing value.
        by_key = {share_key(name): name for name in names}
        shares = {
            by_key.get(value, value) if isinstance(value, str) and value not in self._numbers else value: share
            for value, share in self.shares.items()
        }
        unknown = [value for value in shares if value not in self._numbers]
        if unknown and names:
            raise ValueError(
                f"`stratify_by` lists values that no row has in {self.name!r}: {unknown}. Values found: {names[:20]}."
            )
        # Converted through str, so that 0.1 is exactly a tenth rather than the nearest binary fraction.
        return Groups(found, names, [Fraction(str(shares.get(value, 0))) for value in names])
