"""Compact displays of results: one line in a shell, a small table with a sparkline in a notebook."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from .rows.source import RowSource

_BARS = 48
_MOST_LINES = 40
_LONGEST = 160
# Inherits the colours of the notebook, so it works in light and dark themes.
_CSS = (
    ".scar-hf{font-size:13px;line-height:1.4;max-width:60em;overflow-x:auto}"
    ".scar-hf table{border-collapse:collapse;margin:.4em 0}"
    ".scar-hf th,.scar-hf td{padding:.2em .7em .2em 0;text-align:left!important;vertical-align:top;background:none;"
    "color:inherit;border:0;border-bottom:1px solid rgba(128,128,128,.3);white-space:normal;overflow-wrap:anywhere}"
    ".scar-hf th{font-weight:600;overflow-wrap:normal}.scar-hf td.n{white-space:nowrap}"
    ".scar-hf svg{display:block;width:100%;max-width:24em;height:3em;fill:currentColor}"
)


@dataclass(frozen=True)
class Lines:
    """
    A table in an overview.

    Args:
        title (`str`): the title; empty for none.
        head (`Sequence[str]`): titles of the columns.
        lines (`Sequence[Sequence[str]]`): one text per column. Only the first 40 are shown.
    """

    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Overview:
    """
    The content of a result's display. All texts are escaped, and long ones are shortened.

    Args:
        name (`str`): the result's class.
        facts (`Sequence[tuple[str, str]]`): names and values.
        scores (`np.ndarray`, *optional*): scores of all rows, for the sparkline; NaN for rows without a score.
        kept (`np.ndarray`, *optional*): numbers of the kept rows, drawn dark.
        tables (`Sequence[Lines]`): tables below the facts.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    scores: np.ndarray | None = None
    kept: np.ndarray | None = None
    tables: Sequence[Lines] = ()

    def text(self) -> str:
        """Return one line for a shell."""
        return f"{self.name}({'; '.join(f'{name}: {value}' for name, value in self.facts)})"

    def html(self) -> str:
        """Return a fragment of HTML for a notebook, at most some tens of kilobytes."""
        rows = "".join(f"<tr><th>{_short(name)}</th><td>{_short(value)}</td></tr>" for name, value in self.facts)
        parts = [f"<style>{_CSS}</style><table>{rows}</table>", sparkline(self.scores, self.kept), *map(_table, self.tables)]
        return f'<div class="scar-hf">{"".join(parts)}</div>'


class Shown(ABC):
    """Gives a result its `repr` and its HTML in notebooks, from [`Shown.overview`]."""

    @abstractmethod
    def overview(self) -> Overview:
        """Describe the result."""

    def __repr__(self) -> str:
        return self.overview().text()

    def _repr_html_(self) -> str:
        return self.overview().html()


def sparkline(scores: np.ndarray | None, kept: np.ndarray | None = None) -> str:
    """
    Draw the distribution of scores.

    Args:
        scores (`np.ndarray`, *optional*): NaN for rows without a score.
        kept (`np.ndarray`, *optional*): numbers of rows to draw dark; by default all.

    Returns:
        `str`: an `svg` element, empty without scores.
    """
    found = np.empty(0) if scores is None else scores[np.isfinite(scores)]
    if scores is None or not len(found):
        return ""
    # One extreme score would squeeze all others into one bar, so the outermost per cent is drawn at the edges.
    low, high = (float(value) for value in np.percentile(found, (1, 99), method="nearest"))
    edges = np.linspace(low, high if high > low else low + 1, _BARS + 1)
    counts, dark = (
        np.histogram(np.clip(part, low, high), edges)[0] for part in (found, found if kept is None else scores[kept])
    )

    def bars(heights: np.ndarray, opacity: str) -> str:
        shares = 30 * heights / counts.max()
        drawn = "".join(f'<rect x="{5 * i}" y="{30 - h:.1f}" width="4" height="{h:.1f}"/>' for i, h in enumerate(shares) if h)
        return f'<g opacity="{opacity}">{drawn}</g>'

    label = f"scores from {found.min():.2f} to {found.max():.2f}" + ("" if kept is None else ", those of rows kept dark")
    box = f'viewBox="0 0 {5 * _BARS} 30" preserveAspectRatio="none" role="img" aria-label="{label}"'
    return f"<svg {box}><title>{label}</title>{bars(counts, '.3')}{bars(dark, '.8')}</svg>"


def best_and_worst(source: RowSource, scores: np.ndarray, count: int = 5) -> list[Lines]:
    """
    Tabulate the rows with the highest and the lowest scores.

    Args:
        source ([`~scar_hf.rows.source.RowSource`]): n rows.
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score.
        count (`int`, *optional*, defaults to 5): number of rows in each table.

    Returns:
        `list[Lines]`: two tables; one if there are few rows; none if the rows are in files, because
            that would read the files completely.
    """
    if source.in_memory is None:
        return []
    order = np.argsort(-scores, kind="stable")[: int(np.isfinite(scores).sum())]
    parts = [("best", order[:count]), ("worst", order[max(count, len(order) - count) :])]
    tables = []
    for title, numbers in parts:
        rows = source.rows(numbers)
        lines = [
            (f"{number:,}", f"{scores[number]:.2f}", row.instruction or "", row.response or "")
            for number, row in zip(numbers.tolist(), rows, strict=True)
        ]
        if lines:
            tables.append(Lines(title, ("row", "score", "instruction", "response"), lines))
    return tables


def _table(table: Lines) -> str:
    head = "".join(f"<th>{_short(cell)}</th>" for cell in table.head)
    lines = "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in table.lines[:_MOST_LINES])
    more = len(table.lines) - _MOST_LINES
    foot = f'<tr><td colspan="{len(table.head)}">{more} more</td></tr>' if more > 0 else ""
    title = f"<b>{_short(table.title)}</b>" if table.title else ""
    return f"{title}<table><tr>{head}</tr>{lines}{foot}</table>"


def _cell(text: str) -> str:
    return f'<td class="n">{_short(text)}</td>' if len(text) < 24 else f"<td>{_short(text)}</td>"


def _short(text: str) -> str:
    plain = " ".join(text[: 2 * _LONGEST].split()).encode("utf-8", "replace").decode()
    return escape(plain if len(text) <= _LONGEST else f"{plain[:_LONGEST]}…")
