"""Counts rows by the values of a column, for summaries, reports and cards."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Limits: the number of distinct values that are counted separately, and the number of characters of a value.
_MOST_GROUPS, _MOST_CHARACTERS = 10_000, 200
MISSING, OTHERS = "(none)", "(others)"


@dataclass
class GroupCounts:
    """
    Counts of all rows and of the kept rows, by the values of a column.

    Args:
        rows (`Counter`): number of rows with each value.
        kept (`Counter`): number of rows kept with each value.
    """

    rows: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def add(self, values: Iterable[Any], is_kept: np.ndarray) -> list[str]:
        """
        Count rows.

        Args:
            values (`Iterable`): n values.
            is_kept (`np.ndarray` of shape `(n,)`, bool): which of the rows are kept.

        Returns:
            `list[str]`: the name of each row's group. Values after the first 10,000 distinct ones share a group.
        """
        names = [_name_of(value) for value in values]
        names = [name if name in self.rows or len(self.rows) < _MOST_GROUPS else OTHERS for name in names]
        self.rows.update(names)
        self.kept.update(names[i] for i in np.flatnonzero(is_kept))
        return names


def count_values(values: Iterable[Any]) -> Counter[str]:
    """Count values, as [`GroupCounts`] does."""
    counts = GroupCounts()
    names = list(values)
    counts.add(names, np.zeros(len(names), dtype=bool))
    return counts.rows


def clean(text: str) -> str:
    """Make text safe for pages and figures: replace lone surrogates and control characters other than newlines and tabs."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        c if c in "\n\t" or c.isprintable() or c.isspace() or ord(c) > 159 else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _name_of(value: object) -> str:
    return MISSING if value is None else " ".join(clean(str(value)[:_MOST_CHARACTERS]).split())
