"""How many rows each group of an instruction set may keep: shares by largest remainder."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from datasets import Dataset

from ..rows.pairs import PairReader
from ..rows.source import DatasetRows
from .criteria import Criteria, StratifyBy, read_stratify_by

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Groups:
    """
    The rows of an instruction set in groups, and the share of a selection that each is to have.

    Args:
        labels (`np.ndarray` of shape `(n,)`, int64): the number of each row's group.
        names (`list`): the value that each group has in the column, in the order of first appearance; `None` is no value.
        shares (`list[int | Fraction]`): what the groups' parts are in proportion to.
    """

    labels: np.ndarray
    names: list[Any]
    shares: list[int | Fraction]

    def quotas(self, count: int, available: np.ndarray) -> np.ndarray:
        """
        Share out a number of rows: each group gets the whole part of its exact share, and those with the largest remainders
        (of equal ones the first to appear) one row more. What a group has too few rows for, the others share likewise.

        Args:
            count (`int`): rows to keep.
            available (`np.ndarray` of shape `(n,)`, bool): which rows may be kept.

        Returns:
            `np.ndarray` of shape `(groups,)`, int64: `count` in all; less only where the groups with a share have fewer.
        """
        room = np.bincount(self.labels[available], minlength=len(self.names)).tolist()
        quotas, left = [0] * len(room), count
        while left:
            open_groups = [g for g in range(len(room)) if quotas[g] < room[g] and self.shares[g]]
            if not open_groups:
                logger.warning("The groups with a share have only %d of the %d rows asked for.", count - left, count)
                break
            parts = largest_remainder([self.shares[g] for g in open_groups], left)
            for g, part in zip(open_groups, parts, strict=True):
                taken = min(part, room[g] - quotas[g])
                quotas[g] += taken
                left -= taken
        return np.array(quotas, dtype=np.int64)


def largest_remainder(shares: Sequence[int | Fraction], count: int) -> list[int]:
    """
    Share out a number in whole parts by Hamilton's method, exactly, without floating point.

    Args:
        shares (`Sequence[int | Fraction]`): what the parts are in proportion to; at least one is positive, none negative.
        count (`int`): what is shared out.

    Returns:
        `list[int]`: parts that sum to `count`, each less than one from its exact share; ties go to the earlier one.
    """
    exact = [Fraction(count) * share / sum(shares) for share in shares]
    parts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (parts[i] - exact[i], i))
    for i in by_remainder[: count - sum(parts)]:
        parts[i] += 1
    return parts


def group_rows(ds: Dataset, stratify_by: StratifyBy) -> Groups:
    """
    Group rows by the value of a column. Rows without a value, and those with NaN, are a group of their own.

    Args:
        ds ([`~datasets.Dataset`]): n rows.
        stratify_by (`str` or `Mapping`):
            A column: each group's share is that of its rows in the data. Or `{column: {value: share}}`: shares in
            proportion to these numbers, none for values that are not named.

    Returns:
        [`Groups`].

    Raises:
        `ValueError`: if the column is missing or holds lists or dictionaries, a share is no number from 0 up, or no row
        has a value that is named.
    """
    Criteria(1, stratify_by=stratify_by).check_columns(ds.column_names)
    name, shares = read_stratify_by(stratify_by)
    return group_values(DatasetRows(ds, PairReader()).column(name), name, shares)


def group_values(values: Iterable[Any], name: str, shares: Mapping[Any, float] | None = None) -> Groups:
    """
    Group rows by a value of each, as [`group_rows`] does.

    Args:
        values (`Iterable`): n values.
        name (`str`): the column's, for messages.
        shares (`Mapping[Any, float]`, *optional*): what each value's part is in proportion to; without it its rows.

    Returns:
        [`Groups`].

    Raises:
        `ValueError`: if there are lists or dictionaries among the values, or none that is named.
    """
    numbers: dict[Any, int] = {}
    labels: list[int] = []
    for value in values:
        if isinstance(value, (list, dict)):
            raise ValueError(
                f"`stratify_by` names the column {name!r}, which holds {type(value).__name__}s: rows are grouped by one value."
            )
        labels.append(numbers.setdefault(None if value != value else value, len(numbers)))
    names, found = list(numbers), np.array(labels, dtype=np.int64)
    if shares is None:
        return Groups(found, names, np.bincount(found, minlength=len(names)).tolist())
    unknown = [value for value in shares if value not in names]
    if unknown and names:
        raise ValueError(f"No row has the values {unknown} of {name!r} that `stratify_by` names; there are {names[:20]}.")
    # As the user wrote it: 0.1 is a tenth, and not the binary fraction next to it.
    return Groups(found, names, [Fraction(str(shares.get(value, 0))) for value in names])
