"""Format numbers and tables as text and as JSON."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def number(value: float) -> str:
    """Format a number with three significant digits; NaN becomes a dash."""
    if math.isnan(value):
        return "-"
    if abs(value) < 1e-9:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if abs(value) >= 0.001 else f"{value:.4f}"


def percent(value: float) -> str:
    """Format a share as a signed percentage; NaN becomes a dash."""
    return "-" if math.isnan(value) else f"{100 * value:+.1f} %"


def span(low: float, high: float, form: Callable[[float], str] = number) -> str:
    """Format an interval; a missing one becomes a dash."""
    return "-" if math.isnan(low) else f"{form(low)} to {form(high)}"


def table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]], notes: Iterable[str] = ()) -> str:
    """
    Format a table with aligned columns: the first and last left-aligned, the others right-aligned.

    Args:
        title (`str`): the line above.
        head (`Sequence[str]`): titles of the columns.
        lines (`Iterable[Sequence[str]]`): rows with one text per column.
        notes (`Iterable[str]`, *optional*): lines below.

    Returns:
        `str`: lines without a newline at the end.
    """
    cells = [tuple(head), *map(tuple, lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    last = len(widths) - 1

    def padded(i: int, cell: str) -> str:
        return cell.ljust(widths[i]) if i in (0, last) else cell.rjust(widths[i])

    rows = ["  ".join(padded(i, cell) for i, cell in enumerate(row)).rstrip() for row in cells]
    return "\n".join([title, *rows, *notes])


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace NaN, which JSON does not support, with `None`."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
