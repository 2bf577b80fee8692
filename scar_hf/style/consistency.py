"""Measure how consistent the style of an instruction set is, by the spread of each measure over its rows."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from ..overview import Lines, Overview, Shown
from .bootstrap import bootstrap, interval
from .measures import MEASURES
from .rows import StyleMeasures, style_measures
from .tables import number, span, table, without_nan

_NO_INTERVAL = float("nan"), float("nan")
_HEAD = ("measure", "mean", "spread (SD)", "95 % interval", "rows", "unit")


@dataclass(frozen=True)
class Spread:
    """
    One measure over the rows of a set.

    Args:
        mean (`float`): mean over the rows that have the measure; NaN if there are none.
        mean_low, mean_high (`float`): 95 % interval of the mean; NaN if all rows have the same value.
        spread (`float`): standard deviation, with n - 1; NaN for fewer than two rows.
        low, high (`float`): 95 % interval of the spread; NaN if all rows have the same value.
        n (`int`): number of rows that have the measure.
    """

    mean: float
    mean_low: float
    mean_high: float
    spread: float
    low: float
    high: float
    n: int


@dataclass(repr=False)
class StyleConsistency(Shown):
    """
    The spread of each measure of style over an instruction set.

    Args:
        spreads (`dict[str, Spread]`): by the names of [`~scar_hf.style.MEASURES`].
        rows (`int`): number of rows.
        notes (`list[str]`): notes on the measures.
        draws (`dict[str, tuple(np.ndarray, np.ndarray)]`): means and spreads of the bootstrap, each of shape `(samples,)`.
        measures ([`StyleMeasures`], *optional*): the measures of the rows.
    """

    spreads: dict[str, Spread]
    rows: int
    notes: list[str] = field(default_factory=list)
    draws: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)
    measures: StyleMeasures | None = field(default=None, repr=False)

    def __getitem__(self, name: str) -> Spread:
        return self.spreads[name]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields except the draws in JSON-compatible form, with `None` for missing numbers."""
        measures = {
            name: {"title": MEASURES[name].title, "unit": MEASURES[name].unit, **without_nan(asdict(spread))}
            for name, spread in self.spreads.items()
        }
        return {"rows": self.rows, "measures": measures, "notes": list(self.notes)}

    def overview(self) -> Overview:
        """Describe the spreads, for shells and notebooks."""
        facts = [("rows", f"{self.rows:,}"), ("measures", ", ".join(self.spreads)), *(("note", note) for note in self.notes)]
        return Overview("StyleConsistency", facts, tables=[Lines("", _HEAD, self._lines())])

    def __str__(self) -> str:
        return table(f"Style of {self.rows:,} rows", _HEAD, self._lines(), self.notes)

    def _lines(self) -> list[tuple[str, ...]]:
        return [
            (MEASURES[name].title, number(s.mean), number(s.spread), span(s.low, s.high), f"{s.n:,}", MEASURES[name].unit)
            for name, s in self.spreads.items()
        ]


def style_consistency(ds: Dataset | StyleMeasures, *, samples: int = 1000, seed: int = 0, **kwargs: Any) -> StyleConsistency:
    """
    Measure how consistent the style of an instruction set is (paper, section 2): a smaller spread is more consistent.

    Args:
        ds ([`~datasets.Dataset`] or [`StyleMeasures`]): the rows, or their measures.
        samples (`int`, *optional*, defaults to 1000): number of bootstrap draws over rows.
        seed (`int`, *optional*, defaults to 0): seed of the bootstrap.
        kwargs: as for [`style_measures`], including `lm`.

    Returns:
        [`StyleConsistency`]: for each measure its mean and its standard deviation over the rows, each with a 95 % interval.

    Raises:
        `ValueError`: if `samples` is less than 2, and as [`style_measures`].

    Example:

    ```python
    >>> from datasets import load_dataset
    >>> from scar_hf.style import style_consistency

    >>> print(style_consistency(load_dataset("databricks/databricks-dolly-15k", split="train")))
    ```
    """
    if samples < 2:
        raise ValueError(f"`samples` must be at least 2, got {samples}.")
    if isinstance(ds, StyleMeasures):
        if kwargs:
            raise ValueError(f"The settings {sorted(kwargs)} are for rows that are to be measured; these were already.")
        measured = ds
    else:
        measured = style_measures(ds, **kwargs)
    names = list(measured.values)
    matrix = np.stack(list(measured.values.values()), axis=1) if names else np.empty((len(measured), 0))
    means, spreads = bootstrap(matrix, samples, seed)
    found, draws = {}, {}
    for column, name in enumerate(names):
        values = matrix[:, column]
        values = values[~np.isnan(values)]
        mean = float(values.mean()) if len(values) else float("nan")
        spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        if len(values) > 1 and values.min() == values.max():
            spread = 0.0  # not a rounding error
        draws[name] = means[:, column], spreads[:, column]
        # With a single row or equal rows, all draws are equal, which does not mean certainty.
        varies = spread > 0
        mean_span = interval(means[:, column]) if varies else _NO_INTERVAL
        found[name] = Spread(mean, *mean_span, spread, *(interval(spreads[:, column]) if varies else _NO_INTERVAL), len(values))
    notes = list(measured.notes)
    if len(measured) < 2:
        notes.append("Fewer than two rows have no spread.")
    return StyleConsistency(found, len(measured), notes, draws, measured)
