"""The summary that `scar-hf select` prints: rows kept and dropped, and changes in style."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..rows.pairs import kind_of_reason, reasons_in_words
from ..runs import RunResult
from ..runs.observations import MEASURES as OBSERVED
from ..runs.observations import Observations
from ..selecting.audit import audit_in_words
from ..style import BASELINES, MEASURES, StyleMeasures, compare
from ..style.tables import number, percent
from .terminal import printable

# Maps the names of the run's measures to names in `scar_hf.style`.
_NAMES = dict(zip((name for name, _ in OBSERVED), ("words", "ttr"), strict=True))


def print_summary(result: RunResult) -> None:
    """
    Print a summary of a selection.

    Args:
        result ([`~scar_hf.runs.RunResult`]): the result of a run with `observe=True`.
    """
    console = Console(soft_wrap=False)
    n, skipped, seen = result.rows, result.scored.skipped, result.observations
    share = f" ({result.kept / n:.1%})" if n else ""
    where = "found in" if result.found else "written to"
    output = escape(printable(result.output))
    console.print(f"\nKept [bold]{result.kept:,}[/] of [bold]{n:,}[/] rows{share}, {where} {output}")
    if result.kept:
        console.print(f"Threshold (the lowest score kept): [bold]{result.threshold:.3f}[/]")
    if prefilter := result.scored.prefilter:
        words = audit_in_words(prefilter.report)
        console.print(_shown(f"Prefilter: {words}."))
    if skipped:
        console.print(_shown(f"Skipped without a score: {len(skipped):,} rows: {reasons_in_words(skipped)}", "yellow"))
    if result.dropped:
        kinds = {number: kind_of_reason(reason) for number, reason in result.dropped.items()}
        console.print(_shown(f"Dropped by curation: {len(result.dropped):,} rows: {reasons_in_words(kinds)}"))
    if not n or seen is None:
        return
    if seen.refusals:
        sampled = "" if seen.measured_kept == result.kept else f" of a sample of {seen.measured_kept:,}"
        counted = ", ".join(f"{count:,} {kind}" for kind, count in seen.refusals.most_common())
        console.print(
            Text(f"{seen.refusals.total():,} kept rows{sampled} look like refusals or empty phrases: {counted}", "yellow")
        )
    console.print(_examples("Best", seen.best, result))
    console.print(_examples("Worst", seen.worst, result))
    if seen.group_by is not None:
        console.print(_counts(seen, result.kept))
    spread = _spread(seen)
    if spread is not None:
        console.print(spread)


def _examples(title: str, numbers: Sequence[int], result: RunResult) -> Table:
    seen = result.observations
    assert seen is not None
    table = Table(title=title, title_justify="left", title_style="bold", expand=True, show_lines=True)
    table.add_column("score", justify="right", no_wrap=True)
    if seen.group_by is not None:
        table.add_column(_shown(seen.group_by), max_width=18)
    table.add_column("instruction, then response", ratio=1, no_wrap=True, overflow="ellipsis")
    for i in numbers:
        row, group = seen.examples[i]
        pair = (" ".join(text.split())[:300] for text in (row.instruction, row.response))
        # Text from the data is never read as markup.
        cells = [str(group)] if seen.group_by is not None else []
        table.add_row(f"{result.scored.scores[i]:.3f}", *map(_shown, [*cells, "\n".join(pair)]))
    return table


def _shown(text: str, style: str = "") -> Text:
    """Wrap text from the data, so that it contains neither markup nor terminal commands."""
    return Text(printable(text), style)


def _counts(seen: Observations, kept: int) -> Table:
    group_by = str(seen.group_by)
    table = Table(title=_shown(f"Rows by {group_by}"), title_justify="left", title_style="bold")
    for name in (group_by, "rows", "kept", "share kept", "share of the selection"):
        table.add_column(_shown(name), justify="left" if name == group_by else "right")
    for name, count in seen.groups.rows.most_common(20):
        stayed = seen.groups.kept[name]
        table.add_row(_shown(name), f"{count:,}", f"{stayed:,}", f"{stayed / count:.1%}", f"{stayed / max(1, kept):.1%}")
    return table


def _spread(seen: Observations) -> Table | None:
    """Tabulate mean and spread of two measures of linguistic form, next to baselines without a ranker."""
    before, after = (
        StyleMeasures({_NAMES[name]: np.array(values, dtype=float) for name, values in found.items()}, _rows(found))
        for found in (seen.before, seen.after)
    )
    change = compare(before, after, sampled=seen.sampled)
    table = Table(title="Style of the responses", title_justify="left", title_style="bold", caption_justify="left")
    drawn = [baseline for baseline in BASELINES if baseline in change.baselines]
    for name in ("measure", "mean", "spread", "change", *(BASELINES[baseline].lower() for baseline in drawn)):
        table.add_column(name, justify="left" if name == "measure" else "right", no_wrap=name != "measure")
    for name, c in change.changes.items():
        if math.isnan(c.mean_before) or math.isnan(c.mean_after):
            continue
        mean, spread = (
            f"{number(c.mean_before)} → {number(c.mean_after)}",
            f"{number(c.spread_before)} → {number(c.spread_after)}",
        )
        baselines = (percent(d.change) if (d := change.baselines[baseline].get(name)) else "-" for baseline in drawn)
        table.add_row(MEASURES[name].title.split(" (")[0], mean, spread, percent(c.spread_change), *baselines)
    table.caption = "spread: standard deviation; last columns: change for the same number of rows chosen without a ranker"
    return table if table.rows else None


def _rows(found: Mapping[str, Sequence[float]]) -> int:
    return len(next(iter(found.values()), ()))
