"""The result of a grid: numbers, sentences, a page and figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..report.figures import COLOURS, Figures, new_axes
from ..report.static_page import Section, StaticPage, StaticReport
from .grid import cells_of
from .settings import BASELINE, EVERYTHING, AblationSettings
from .statistics import compare_cells, judged_at, measures_in, sentence_of, values_of

_OWN = "scar"


class AblationResult(StaticReport):
    """
    The result of a grid.

    Args:
        numbers (`dict`): everything that the page shows, as JSON types.
    """

    @property
    def sentences(self) -> list[str]:
        """The findings for each method, in words."""
        return [sentence_of(row) for row in [*self.numbers["comparisons"], *self.numbers["between"]]]

    def page(self) -> StaticPage:
        """Describe the page."""
        brand, title, lead = _head(self.numbers)
        return StaticPage(brand, title, lead, _foot(self.numbers), _sections(self.numbers), _figures(self.numbers))

    def __str__(self) -> str:
        return "\n".join(self.sentences)


def result_of(grid: Mapping[str, Any], settings: AblationSettings, cells: Sequence[Mapping[str, Any]]) -> AblationResult:
    """
    Build the result of a grid from its cells.

    Args:
        grid (`Mapping`): as returned by [`~scar_hf.ablation.grid.describe_grid`].
        settings ([`AblationSettings`]): settings of the grid.
        cells (`Sequence[Mapping]`): the available results.

    Returns:
        [`AblationResult`].
    """
    tuned = [cell for cell in cells if cell["cell"]["method"] != "untuned"]
    names = measures_in(tuned or cells)
    table = []
    for cell in cells:
        # With several k, `everything` has no single win rate; the comparisons show one for each.
        cell = judged_at(cell, settings.k[0] if len(settings.k) == 1 else None)
        values = {}
        for name in names:
            if name == "spread":
                continue
            if name.partition(":")[0] not in cell:
                continue
            found = values_of(cell, name)
            values[name] = round(float(np.nanmean(found)), 6) if np.isfinite(found).any() else None
        table.append({"cell": cell["cell"], "training": cell.get("training"), "values": values})
    comparisons = [_plain(row) for row in compare_cells(cells)]
    others = [method for method in settings.methods if method not in (_OWN, BASELINE)]
    between = [
        _plain(row)
        for other in others
        for row in compare_cells([cell for cell in cells if cell["cell"]["method"] in (_OWN, other)], baseline=other)
    ]
    about = {"format": 1, "grid": dict(grid), "cells": table, "missing": len(cells_of(settings)) - len(cells)}
    return AblationResult({**about, "measures": names, "comparisons": comparisons, "between": between})


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (None if not math.isfinite(value) else round(value, 6)) if isinstance(value, float) else value
        for name, value in row.items()
    }


def _head(numbers: Mapping[str, Any]) -> tuple[str, str, str]:
    grid = numbers["grid"]
    about = grid["settings"]
    lead = (
        f"{Path(about['model']).name}, fine-tuned with LoRA on parts of {grid['data']['rows']:,} rows, and measured on "
        f"{grid['held_out']['rows']:,} held-out instructions with {', '.join(grid['held_out']['kinds'])} answers."
    )
    if numbers["missing"]:
        lead += f" {numbers['missing']} cells of the grid are missing."
    return "ablation", "Does the selection help?", lead


def _sections(numbers: Mapping[str, Any]) -> list[Section]:
    sections = []
    about = numbers["grid"]["settings"]
    for budget in about["budgets"]:
        rows = [row for row in numbers["comparisons"] if row["budget"] == budget]
        each = _count(about["steps"], "step") if budget == "steps" else f"{_count(about['epochs'], 'epoch')} of its own rows"
        if not rows:
            continue
        for title, compared in (("random rows", numbers["comparisons"]), ("the other methods", numbers["between"])):
            words = [sentence_of(row) for row in compared if (row["method"], row["budget"]) == (_OWN, budget)]
            if words:
                sections.append(Section(f"SCAR against {title}: {each} for every set", words))
        figures = [
            (_figure_name(budget, name), f"{title}: difference to random rows, with 95 % intervals. {_which(name)}")
            for name, title in numbers["measures"].items()
        ]
        head = (
            "Method",
            "k",
            "Measure",
            "Value",
            "Random",
            "Difference",
            "95 % interval",
            "Verdict",
            "Detectable",
            "Rows needed",
        )
        caption = (
            "Means over seeds and instructions. Intervals are of a paired bootstrap over both; with few seeds too narrow. "
            "Detectable: the difference that this many instructions and seeds show four times out of five. Needed: "
            "instructions at which the difference found would be detectable."
        )
        sections.append(
            Section(f"Every method against random rows: {each}", (), caption, [(head, [_line(row) for row in rows])], figures)
        )
    lines = [_cell_line(row, numbers["measures"]) for row in numbers["cells"]]
    titles = [title for name, title in numbers["measures"].items() if name != "spread"]
    head = ("Trained on", "k", "Budget", "Seed", "Rows", "Steps", *titles)
    return [*sections, Section("Every cell", (), "", [(head, lines)])]


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def _which(name: str) -> str:
    return {"nll": "Left is better.", "spread": "Left is narrower."}.get(name.partition(":")[0], "Right is better.")


def _line(row: Mapping[str, Any]) -> list[str]:
    interval = "-" if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}"
    numbers = [f"{row[name]:.3f}" for name in ("value", "baseline")]
    detectable = "-" if row["detectable"] is None else f"{row['detectable']:.3f}"
    needed = "-" if row["rows_needed"] is None else f"{row['rows_needed']:,}"
    start = [row["method"], _k(row), row["title"]]
    return [*start, *numbers, f"{row['difference']:+.3f}", interval, row["verdict"], detectable, needed]


def _k(row: Mapping[str, Any]) -> str:
    return f"all, against {row['baseline_k']:g}" if row["method"] == EVERYTHING else f"{row['k']:g}"


def _cell_line(row: Mapping[str, Any], measures: Mapping[str, str]) -> list[str]:
    cell, training = row["cell"], row["training"] or {}
    values = [row["values"].get(name) for name in measures if name != "spread"]
    return [
        cell["method"],
        f"{cell['k']:g}",
        cell["budget"],
        str(cell["seed"]),
        f"{training.get('rows', 0):,}",
        f"{training.get('steps', 0):,}",
        *("-" if value is None else f"{value:.3f}" for value in values),
    ]


def _foot(numbers: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {found}" for name, found in numbers["grid"]["versions"].items())
    return f"Made by scar-hf ablate with {versions}. What holds for this model and these rows need not hold for others."


def _figure_name(budget: str, measure: str) -> str:
    """Return a name that is valid as an id and as a file name, for any kind of answers."""
    name = measure.replace(":", "-", 1).replace(" ", "-")
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:60]
    return f"{budget}-{plain}" + (
        "" if plain == name else f"-{sha256(measure.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    )


def _figures(numbers: Mapping[str, Any]) -> Figures:
    figures: Figures = {}
    for budget in numbers["grid"]["settings"]["budgets"]:
        for name in numbers["measures"]:
            rows = [row for row in numbers["comparisons"] if (row["budget"], row["measure"]) == (budget, name)]
            if rows:
                figures[_figure_name(budget, name)] = (lambda _: True, _forest(rows))
    return figures


def _label(row: Mapping[str, Any]) -> str:
    return row["method"] if row["method"] == EVERYTHING else f"{row['method']}, k = {row['k']:g}"


def _forest(rows: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], Any]:
    def plot(_: Mapping[str, Any]) -> Any:
        figure, axes = new_axes(0.95 + 0.3 * len(rows))
        for y, row in enumerate(reversed(rows)):
            role = {"better": "kept", "narrower": "kept", "worse": "mark", "wider": "mark"}.get(row["verdict"], "quiet")
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [y, y], color=COLOURS[role], linewidth=2)
            axes.plot([row["difference"]], [y], marker="o", markersize=5.5, color=COLOURS[role], markeredgewidth=0)
        axes.axvline(0, color=COLOURS["quiet"], linewidth=1)
        axes.grid(axis="x")
        unit = "nats per token" if rows[0]["measure"].startswith("nll") else "share"
        axes.set(title=rows[0]["title"], xlabel=f"difference to random ({unit})", ylim=(-0.6, len(rows) - 0.4))
        axes.title.set_size(10)
        axes.xaxis.label.set_size(9)
        labels = [_label(row) for row in reversed(rows)]
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        for tick in axes.get_yticklabels():
            tick.set_parse_math(False)
        axes.spines["left"].set_visible(False)
        return figure

    return plot
