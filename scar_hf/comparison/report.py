"""A comparison as a page, figures and numbers."""

from collections.abc import Callable, Mapping
from typing import Any

from ..overview import Lines, Overview, Shown
from ..report.figures import COLOURS, Figures, add_legend, new_axes
from ..report.static_page import Section, StaticPage, StaticReport
from ..style import MEASURES

_ROLES = ("kept", "mark", "g2", "g3", "g4", "g5")
# Larger changes of spread are drawn at the edge; the table has the numbers.
_MOST_CHANGE = 1.0
_MOST_TABLES = 10
_SPREADS = "Change of the standard deviation against all rows, with 95 % intervals. Changes above 100 % are drawn at the edge."
_NO_BREAK = "\N{NO-BREAK SPACE}"


class MethodComparison(Shown, StaticReport):
    """
    A comparison of the rows that methods keep.

    Args:
        numbers (`dict`): everything that the page shows, as JSON types.
    """

    def page(self) -> StaticPage:
        """Describe the page."""
        n = self.numbers
        lead = f"{len(n['methods'])} methods on {n['rows']:,} rows."
        foot = "Made by scar-hf compare. A narrower spread is no credit to a method if random rows are equally narrow."
        return StaticPage("comparison", "What different methods keep", lead, foot, _sections(n), _figures(n))

    def overview(self) -> Overview:
        """Describe the comparison, for shells and notebooks."""
        n = self.numbers
        shares = ", ".join(f"{k:g}" for k in n["k"])
        facts = [("rows", f"{n['rows']:,}"), ("methods", ", ".join(n["methods"])), ("k", shares)]
        tables = [
            Lines(f"{section.title}: {head[0]}" if len(section.tables) > 1 else section.title, head, lines)
            for section in self.page().sections
            for head, lines in section.tables
        ]
        return Overview("MethodComparison", facts, tables=tables[:_MOST_TABLES])

    def __str__(self) -> str:
        lines = []
        for found in self.numbers["sets"]:
            verdicts = [row["verdict"] for row in found["style"].values()]
            shares = ", ".join(f"{name} {share:.0%}" for name, share in found["groups"].items())
            lines.append(
                f"{found['method']}, k={found['k']:g}: {found['rows']:,} rows, median {found['words']} words, narrower in "
                f"{verdicts.count('narrower')} of {len(verdicts)} measures, wider in {verdicts.count('wider')}"
                f"{f'; {shares}' if shares else ''}"
            )
        return "\n".join(lines)


def _sections(n: Mapping[str, Any]) -> list[Section]:
    rates = [(m, f"{n['scored'][m]:,}", f"{n['rows_per_second'][m]:,.0f}") for m in n["methods"]]
    caption = "Rows per second include the time to load the model. Scores read from the cache take almost no time."
    sections = [Section("Methods", (), caption, [(("Method", "Rows with a score", "Rows per second"), rates)])]
    for i, k in enumerate(n["k"]):
        sets = [found for found in n["sets"] if found["k"] == k]
        groups = list(n["groups"])
        head = ("Method", "Rows", "Median words", *groups)
        lines: list[tuple[str, ...]] = [_set_line(found, groups) for found in sets]
        lines.append(_set_line({**n, "method": "all rows"}, groups))
        spread_head = ("Change of spread, %", *(f["method"] for f in sets), "random draws")
        style = {name: [found["style"][name] for found in sets] for name in sets[0]["style"]}
        spread_lines = [(_title(name), *map(_change, rows), _draws(rows[0])) for name, rows in style.items()]
        figures = [
            (f"spreads-{i}", _SPREADS),
            (f"overlap-{i}", "Jaccard overlap: the number of rows that both keep, divided by the number that either keeps."),
        ]
        sections.append(Section(f"k = {k:g}", (), "", [(head, lines), (spread_head, spread_lines)], figures))
    head = ("Rank correlation", *n["methods"])
    lines = [
        (name, *("-" if value is None else f"{value:.2f}" for value in row))
        for name, row in zip(n["methods"], n["correlation"], strict=True)
    ]
    return [*sections, Section("Agreement over all rows", (), "Spearman's rank correlation of the scores.", [(head, lines)])]


def _set_line(found: Mapping[str, Any], groups: list[str]) -> tuple[str, ...]:
    words = "-" if found["words"] is None else f"{found['words']:g}"
    return found["method"], f"{found['rows']:,}", words, *(f"{found['groups'][group]:.1%}" for group in groups)


def _title(name: str) -> str:
    return MEASURES[name].title.split(",")[0].split(" (")[0]


def _change(row: Mapping[str, Any]) -> str:
    if row["spread_change"] is None:
        return "-"
    interval = "" if row["low"] is None else f"{_NO_BREAK}({_interval(row)})"
    return f"{_whole(row['spread_change'])}{interval}"


def _draws(row: Mapping[str, Any]) -> str:
    draws = row.get("random")
    return _interval(draws) if draws else "-"


def _interval(row: Mapping[str, Any]) -> str:
    return _NO_BREAK.join((_whole(row["low"]), "to", _whole(row["high"])))


def _whole(share: float) -> str:
    """Return a share as a whole percentage, without the percent sign."""
    return f"{100 * share:+z.0f}"


def _figures(n: Mapping[str, Any]) -> Figures:
    figures: Figures = {}
    for i, k in enumerate(n["k"]):
        sets = [found for found in n["sets"] if found["k"] == k]
        names = [name for name in sets[0]["style"] if any(found["style"][name]["spread_change"] is not None for found in sets)]
        if names:
            figures[f"spreads-{i}"] = (lambda _: True, _spreads(sets, names))
        figures[f"overlap-{i}"] = (lambda _: len(n["methods"]) > 1, _overlap(n["methods"], n["overlap"][i]))
    return figures


def _spreads(sets: list[Mapping[str, Any]], names: list[str]) -> Callable[[Mapping[str, Any]], Any]:
    def plot(_: Mapping[str, Any]) -> Any:
        figure, axes = new_axes(1.2 + 0.42 * len(names))
        for j, found in enumerate(sets):
            colour, offset = COLOURS[_ROLES[j % len(_ROLES)]], ((len(sets) - 1) / 2 - j) * 0.8 / len(sets)
            mark = {"color": colour, "marker": "o", "markersize": 4.5, "markeredgewidth": 0, "linestyle": ""}
            axes.plot([], [], label=f"shown:{found['method']}", **mark)
            for i, name in enumerate(reversed(names)):
                row = found["style"][name]
                low, high, at = (_in_per_cent(row[end]) for end in ("low", "high", "spread_change"))
                if low is not None:
                    axes.plot([low, high], [i + offset] * 2, color=colour, linewidth=1.4)
                if at is not None:
                    axes.plot([at], [i + offset], label="_", **mark)
        axes.axvline(0, color=COLOURS["quiet"], linewidth=1)
        axes.grid(axis="x")
        axes.set(xlabel="change of the spread (%); left is narrower", ylim=(-0.7, len(names) - 0.3))
        axes.set_yticks(range(len(names)), [_title(name) for name in reversed(names)])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.spines["left"].set_visible(False)
        add_legend(figure, axes)
        return figure

    return plot


def _in_per_cent(value: float | None) -> float | None:
    return None if value is None else 100 * max(-1.0, min(_MOST_CHANGE, value))


def _overlap(methods: list[str], overlap: list[list[float | None]]) -> Callable[[Mapping[str, Any]], Any]:
    def plot(_: Mapping[str, Any]) -> Any:
        figure, axes = new_axes(1.0 + 0.5 * len(methods))
        for y, row in enumerate(overlap):
            for x, value in enumerate(row):
                share = value or 0.0
                axes.add_patch(_square(x, y, share))
                axes.annotate(f"{share:.2f}", (x, y), ha="center", va="center", color=COLOURS["ink"], fontsize=9)
        axes.set(xlim=(-0.5, len(methods) - 0.5), ylim=(len(methods) - 0.5, -0.5))
        axes.set_xticks(range(len(methods)), methods, rotation=25, ha="right")
        axes.set_yticks(range(len(methods)), methods)
        for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            tick.set_parse_math(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        return figure

    return plot


def _square(x: int, y: int, share: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=COLOURS["kept"], alpha=0.08 + 0.5 * share, linewidth=0)
