"""The tables that `scar-hf evaluate` prints, and the differences between rankers."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..training.evaluation import METRICS, Evaluation
from ..training.intervals import Measure, difference

_WIDTH = 160  # used if the output is not a terminal
_NOTE = (
    "Shares in [0, 1], higher is better, ties counting half, with 95 % intervals from a bootstrap over instructions. "
    "* differs from the first ranker: the interval of the difference excludes 0."
)


def print_evaluations(evaluations: Mapping[str, Evaluation], by: str = "source", markdown: bool = False) -> None:
    """
    Print rankers side by side: a table for all rows, one for the mean over sources, and one for each source or domain.

    Args:
        evaluations (`Mapping[str, Evaluation]`): evaluations on the same rows, by ranker.
        by (`str`, *optional*, defaults to `"source"`): `"source"`, `"domain"`, or `"all"` for the overall tables only.
        markdown (`bool`, *optional*, defaults to `False`): whether to print Markdown.
    """
    console = Console(soft_wrap=False)
    if markdown or not console.is_terminal:
        console = Console(soft_wrap=False, width=10_000 if markdown else _WIDTH)
    first = next(iter(evaluations.values()))
    names = [name for kind, name in first.groups if kind == by]
    shown = [("all", ""), *([("mean", "")] if len([g for g in first.groups if g[0] == "source"]) > 1 else [])]
    for group in [*shown, *((by, name) for name in names if by != "all")]:
        console.print(_table(evaluations, group, markdown))
        console.print()
    for name, evaluation in evaluations.items():
        for side, texts in evaluation.refusals.items():
            text, below = texts[0]
            console.print(Text(f"Worst refusal against {side} answers, {name}: below {below:.3f} of them: {text!r}"))
    console.print(Text(_NOTE, "dim"))


def differences(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """
    Compare rankers with the first one, draw by draw on the same bootstrap samples.

    Args:
        evaluations (`Mapping[str, Evaluation]`): evaluations on the same rows, by ranker.

    Returns:
        `dict`: for each ranker except the first, `all` and `mean`, each with `[difference, low, high]` by metric.
    """
    (_, first), *others = evaluations.items()
    return {
        name: {
            kind: {metric: list(difference(m, first.groups[kind, ""][metric])) for metric, m in other.groups[kind, ""].items()}
            for kind in ("all", "mean")
        }
        for name, other in others
    }


def _table(evaluations: Mapping[str, Evaluation], group: tuple[str, str], markdown: bool) -> Table:
    first = next(iter(evaluations.values()))
    kind, name = group
    title = {"all": "All rows", "mean": "Mean over sources"}.get(kind) or f"{kind.capitalize()} {name}"
    if group in first.instructions:
        title += f" ({first.instructions[group]:,} instructions)"
    table = Table(
        title=None if markdown else Text(title), title_justify="left", box=box.MARKDOWN if markdown else box.SIMPLE_HEAD
    )
    # Markdown has no titles; the first column's heading takes its place.
    table.add_column(Text(title) if markdown else "", no_wrap=True)
    table.add_column("comparisons", justify="right")
    for model in evaluations:
        table.add_column(Text(model), justify="right", no_wrap=True)
    for metric, heading in METRICS.items():
        if metric not in first.groups[group]:
            continue
        base = first.groups[group][metric]
        cells = [_cell(e.groups[group][metric], base) for e in evaluations.values()]
        table.add_row(heading, f"{base.count:,}", *cells)
    return table


def _cell(measure: Measure, base: Measure) -> str:
    mark = ""
    if measure is not base:
        _, low, high = difference(measure, base)
        mark = "*" if low > 0 or high < 0 else " "
    return f"{measure.value:.3f}{mark} ({measure.low:.3f}-{measure.high:.3f})"
