"""The base class of curation steps that judge each row separately."""

from collections.abc import Collection, Iterable
from copy import copy
from typing import Any, Protocol, Self

import numpy as np

from ..rows.pairs import RowPairs


class Step(Protocol):
    """The interface of curation steps, such as `Languages`, `Contamination`, `ExactDuplicates` and `NearDuplicates`."""

    def __len__(self) -> int: ...

    def settings(self) -> dict[str, Any]:
        """Return the name and settings of the step, for manifests."""
        ...

    def fresh(self) -> "Step":
        """Return a step with the same settings and no rows."""
        ...

    def add(self, rows: "Iterable[RowPairs]") -> None:
        """Add rows; numbering continues."""
        ...

    def dropped(self, scores: np.ndarray | None = None, without: Collection[int] = ()) -> dict[int, str]:
        """Return the reasons for rows to drop by row number, given scores and the rows that earlier steps dropped."""
        ...


class RowStep:
    """A curation step that judges each row separately as it is added."""

    def __init__(self) -> None:
        self._dropped: dict[int, str] = {}
        self._count = 0

    def fresh(self) -> Self:
        """Return a step with the same settings and no rows."""
        new = copy(self)
        new._dropped, new._count = {}, 0
        return new

    def __len__(self) -> int:
        return self._count

    def dropped(self, scores: np.ndarray | None = None, without: Collection[int] = ()) -> dict[int, str]:
        """
        Return the rows to drop, regardless of scores.

        Args:
            scores (`np.ndarray`, *optional*): ignored.
            without (`Collection[int]`, *optional*): rows already dropped.

        Returns:
            `dict[int, str]`: reasons by row number, ascending.
        """
        already = set(without)
        return {row: reason for row, reason in self._dropped.items() if row not in already}
