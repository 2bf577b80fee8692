"""What a selection changes in style."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from .bootstrap import interval
from .consistency import StyleConsistency, style_consistency
from .measures import MEASURES
from .rows import StyleMeasures
from .tables import number, percent, span, table, without_nan


@dataclass(frozen=True)
class Change:
    """
    One measure before and after.

    Args:
        mean_before, mean_after (`float`): means over the rows.
        mean_low, mean_high (`float`): 95 % interval of the difference of the means.
        spread_before, spread_after (`float`): standard deviations over the rows.
        spread_change (`float`): spread after over spread before, minus 1: -0.2 is a fifth narrower. NaN where there was none.
        low, high (`float`): 95 % interval of that.
    """

    mean_before: float
    mean_after: float
    mean_low: float
    mean_high: float
    spread_before: float
    spread_after: float
    spread_change: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`"narrower"` or `"wider"` where the interval leaves no change out, else `"unclear"`."""
        if self.high < 0:
            return "narrower"
        return "wider" if self.low > 0 else "unclear"


@dataclass
class StyleChange:
    """
    What changed in style from one set to another.

    Args:
        changes (`dict[str, Change]`): by the names of [`~scar_hf.style.MEASURES`].
        rows_before, rows_after (`int`): rows of the sets.
        notes (`list[str]`): what to know about the measures.
    """

    changes: dict[str, Change]
    rows_before: int
    rows_after: int
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Change:
        return self.changes[name]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it: `None` where there is no number."""
        measures = {
            name: {"title": MEASURES[name].title, "unit": MEASURES[name].unit, **without_nan(asdict(c)), "verdict": c.verdict}
            for name, c in self.changes.items()
        }
        notes = list(self.notes)
        return {"rows_before": self.rows_before, "rows_after": self.rows_after, "measures": measures, "notes": notes}

    def __str__(self) -> str:
        head = ("measure", "mean", "->", "spread (SD)", "->", "change", "95 % interval", "")
        lines = [
            (
                MEASURES[name].title,
                number(c.mean_before),
                number(c.mean_after),
                number(c.spread_before),
                number(c.spread_after),
                percent(c.spread_change),
                span(c.low, c.high, percent),
                c.verdict,
            )
            for name, c in self.changes.items()
        ]
        return table(f"Style of {self.rows_before:,} rows -> {self.rows_after:,} rows", head, lines, self.notes)


def compare(
    before: Dataset | StyleMeasures | StyleConsistency, after: Dataset | StyleMeasures | StyleConsistency, **kwargs
) -> StyleChange:
    """
    Say how style differs between two sets, such as all rows and those kept.

    Args:
        before, after ([`~datasets.Dataset`], [`StyleMeasures`] or [`StyleConsistency`]):
            The sets. Of the rows of a selection that were measured already, take `measures.select(ranking.indices(k))`. The
            intervals hold for sets drawn by themselves; for a selection from `before` they are rather too wide. Sets of
            equally many rows count as paired in their order.
        kwargs: as for [`style_consistency`], for sets that are not yet measured.

    Returns:
        [`StyleChange`]: of the measures that both have.

    Raises:
        `ValueError`: if they have no measure in common, and as [`style_consistency`].

    Example:

    ```python
    >>> ranking = scar_rank(ds)
    >>> print(compare(ds, ranking.top(0.1)))
    ```
    """
    first, second = (s if isinstance(s, StyleConsistency) else style_consistency(s, **kwargs) for s in (before, after))
    names = [name for name in first.spreads if name in second.spreads]
    if not names:
        raise ValueError(
            f"Nothing to compare: one set has the measures {list(first.spreads)}, the other {list(second.spreads)}."
        )
    changes = {}
    for name in names:
        (means_before, spreads_before), (means_after, spreads_after) = first.draws[name], second.draws[name]
        many = min(len(means_before), len(means_after))
        old, new = first[name], second[name]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = spreads_after[:many] / spreads_before[:many] - 1
            change = float(np.divide(new.spread, old.spread)) - 1 if old.spread > 0 else float("nan")
        changes[name] = Change(
            old.mean,
            new.mean,
            *interval(means_after[:many] - means_before[:many]),
            old.spread,
            new.spread,
            change,
            *interval(ratios),
        )
    notes = list(dict.fromkeys([*first.notes, *second.notes]))
    left_out = [name for name in (*first.spreads, *second.spreads) if name not in names]
    if left_out:
        notes.append(f"Measured of one set only: {', '.join(left_out)}.")
    return StyleChange(changes, first.rows, second.rows, notes)
