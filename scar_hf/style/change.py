"""Compare the style of two sets, such as before and after a selection."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from ..overview import Lines, Overview, Shown
from .baselines import BASELINES, DRAWS, Draws, draw_baselines
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
        spread_change (`float`): spread after over spread before, minus 1: -0.2 is a fifth narrower. NaN if undefined.
        low, high (`float`): 95 % interval of `spread_change`; NaN if one of the sets has the same value in all rows.
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
        """`"narrower"` or `"wider"` if the interval excludes 0, otherwise `"unclear"`."""
        if self.high < 0:
            return "narrower"
        return "wider" if self.low > 0 else "unclear"


@dataclass(repr=False)
class StyleChange(Shown):
    """
    The change in style from one set to another.

    Args:
        changes (`dict[str, Change]`): by the names of [`~scar_hf.style.MEASURES`].
        rows_before, rows_after (`int`): numbers of rows.
        notes (`list[str]`): notes on the measures.
        baselines (`dict[str, dict[str, Draws]]`):
            Changes in draws of `rows_after` rows without a ranker, at random and with the same lengths; see
            [`~scar_hf.style.draw_baselines`].
    """

    changes: dict[str, Change]
    rows_before: int
    rows_after: int
    notes: list[str] = field(default_factory=list)
    baselines: dict[str, dict[str, Draws]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Change:
        return self.changes[name]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields in JSON-compatible form, with `None` for missing numbers."""
        measures: dict[str, dict[str, Any]] = {}
        for name, change in self.changes.items():
            measures[name] = {"title": MEASURES[name].title, "unit": MEASURES[name].unit, **without_nan(asdict(change))}
            measures[name]["verdict"] = change.verdict
            for baseline in BASELINES:
                draws = self.baselines.get(baseline, {}).get(name)
                measures[name][baseline] = None if draws is None else asdict(draws)
        return {
            "rows_before": self.rows_before,
            "rows_after": self.rows_after,
            "measures": measures,
            "notes": list(self.notes),
            "draws": DRAWS if self.baselines else None,
        }

    def overview(self) -> Overview:
        """Describe the changes, for shells and notebooks."""
        verdicts = [change.verdict for change in self.changes.values()]
        facts = [("rows", f"{self.rows_before:,} -> {self.rows_after:,}")]
        facts += [(kind, f"{verdicts.count(kind)} of {len(verdicts)} measures") for kind in ("narrower", "wider")]
        return Overview("StyleChange", [*facts, *(("note", note) for note in self.notes)], tables=[Lines("", *self._table())])

    def __str__(self) -> str:
        return table(f"Style of {self.rows_before:,} rows -> {self.rows_after:,} rows", *self._table(), self.notes)

    def _table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        drawn = [baseline for baseline in BASELINES if baseline in self.baselines]
        titles = [BASELINES[baseline] for baseline in drawn]
        head = ("measure", "mean", "->", "spread (SD)", "->", "change", "95 % interval", *titles, "")
        lines = [
            (
                MEASURES[name].title,
                number(c.mean_before),
                number(c.mean_after),
                number(c.spread_before),
                number(c.spread_after),
                percent(c.spread_change),
                span(c.low, c.high, percent),
                *(percent(d.change) if (d := self.baselines[baseline].get(name)) else "-" for baseline in drawn),
                c.verdict,
            )
            for name, c in self.changes.items()
        ]
        return head, lines


def compare(
    before: Dataset | StyleMeasures | StyleConsistency,
    after: Dataset | StyleMeasures | StyleConsistency,
    *,
    sampled: bool = False,
    **kwargs: Any,
) -> StyleChange:
    """
    Compare the style of two sets, such as all rows and the rows kept.

    Args:
        before, after ([`~datasets.Dataset`], [`StyleMeasures`] or [`StyleConsistency`]):
            The sets. If all rows are already measured, pass `measures.select(ranking.indices(k))` for those kept. The
            intervals hold for independent sets; for a selection from `before`, they are somewhat too wide. Sets with the same
            number of rows are treated as paired in their order.
        sampled (`bool`, *optional*, defaults to `False`):
            Whether `before` is a sample that lacks some rows of `after`, as for [`~scar_hf.style.draw_baselines`].
        kwargs: as for [`style_consistency`], for sets that have not been measured.

    Returns:
        [`StyleChange`]: the change of each measure that both sets have. If `after` has no more rows than `before`, it
            includes the baselines: changes in draws of the same size from `before`.

    Raises:
        `ValueError`: if the sets have no measure in common, and as [`style_consistency`].

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
            # A draw of equal rows has no ratio, so treat a spread within rounding error as missing.
            varied = np.where(spreads_before[:many] > 1e-6 * old.spread, spreads_before[:many], np.nan)
            ratios = spreads_after[:many] / varied - 1
            change = float(np.divide(new.spread, old.spread)) - 1 if old.spread > 0 else float("nan")
        varies = old.spread > 0 and new.spread > 0
        changes[name] = Change(
            old.mean,
            new.mean,
            *interval(means_after[:many] - means_before[:many]),
            old.spread,
            new.spread,
            change,
            *(interval(ratios) if varies else (float("nan"), float("nan"))),
        )
    notes = list(dict.fromkeys([*first.notes, *second.notes]))
    left_out = [name for name in (*first.spreads, *second.spreads) if name not in names]
    if left_out:
        notes.append(f"Measured in one set only: {', '.join(left_out)}.")
    alike = [MEASURES[name].title for name in names if first[name].spread > 0 and second[name].spread == 0]
    if alike:
        notes.append(f"No interval, as all rows kept have the same value: {', '.join(alike)}.")
    baselines: dict[str, dict[str, Draws]] = {}
    if first.measures is not None and second.measures is not None:
        baselines = draw_baselines(first.measures, second.measures, sampled=sampled)
    return StyleChange(changes, first.rows, second.rows, notes, baselines)
