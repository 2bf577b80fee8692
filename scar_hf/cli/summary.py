"""The table that `scar-hf select` prints: what came in, what stayed, and how the set changed."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..runs import RunResult
from ..runs.observations import MEASURES, Observations
from ..selection import kind_of_reason, reasons_in_words


def print_summary(result: RunResult) -> None:
    """
    Print a selection for a person to read.

    Args:
        result ([`~scar_hf.runs.RunResult`]): of a run that was observed.
    """
    console = Console(soft_wrap=False)
    n, skipped, seen = result.rows, result.scored.skipped, result.observations
    share = f" ({result.kept / n:.1%})" if n else ""
    where = "found in" if result.found else "written to"
    console.print(f"\n[bold]{n:,}[/] rows came in, [bold]{result.kept:,}[/] stayed{share}, {where} {result.output}")
    if result.kept:
        console.print(f"threshold: the lowest score kept is [bold]{result.threshold:.3f}[/]")
    if skipped:
        console.print(Text(f"{len(skipped):,} rows have no score and were not kept: {reasons_in_words(skipped)}", "yellow"))
    if result.dropped:
        kinds = {number: kind_of_reason(reason) for number, reason in result.dropped.items()}
        console.print(f"{len(result.dropped):,} rows were left out before: {reasons_in_words(kinds)}")
    if not n or seen is None:
        return
    if seen.refusals:
        sampled = "" if seen.measured_kept == result.kept else f" of a sample of {seen.measured_kept:,}"
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in seen.refusals.most_common())
        console.print(
            Text(f"{seen.refusals.total():,} rows kept{sampled} look like a refusal or an empty phrase: {kinds}", "yellow")
        )
    console.print(_examples("Best", seen.best, result))
    console.print(_examples("Worst", seen.worst, result))
    if seen.group_by is not None:
        console.print(_counts(seen, result.kept))
    console.print(_spread(seen))


def _examples(title: str, numbers: Sequence[int], result: RunResult) -> Table:
    seen = result.observations
    assert seen is not None
    table = Table(title=title, title_justify="left", title_style="bold", expand=True, show_lines=True)
    table.add_column("score", justify="right", no_wrap=True)
    if seen.group_by is not None:
        table.add_column(seen.group_by, max_width=18)
    table.add_column("instruction, and below it the response", ratio=1, no_wrap=True, overflow="ellipsis")
    for i in numbers:
        row, group = seen.examples[i]
        pair = (" ".join(text.split())[:300] for text in (row.instruction, row.response))
        # Text of the data is data: never read as markup.
        cells = [str(group)] if seen.group_by is not None else []
        table.add_row(f"{result.scored.scores[i]:.3f}", *map(_shown, [*cells, "\n".join(pair)]))
    return table


def _shown(text: str) -> Text:
    """Text of the data as it can be printed: surrogates that stand alone cannot."""
    return Text(text.encode("utf-8", "replace").decode("utf-8"))


def _counts(seen: Observations, kept: int) -> Table:
    group_by = str(seen.group_by)
    table = Table(title=f"How much of each {group_by} stayed", title_justify="left", title_style="bold")
    for name in (group_by, "in", "kept", "share kept", "share of the selection"):
        table.add_column(name, justify="left" if name == group_by else "right")
    for name, count in seen.counts_in.most_common(20):
        stayed = seen.counts_kept[name]
        table.add_row(_shown(name), f"{count:,}", f"{stayed:,}", f"{stayed / count:.1%}", f"{stayed / max(1, kept):.1%}")
    return table


def _spread(seen: Observations) -> Table:
    """Median and interquartile range of two measures of linguistic form, before and after."""
    table = Table(title="How the responses changed", title_justify="left", title_style="bold")
    for name in ("measure", "median in", "median kept", "spread in", "spread kept", "change of spread"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for (name, _), form in zip(MEASURES, ("{:,.0f}", "{:.2f}"), strict=True):
        values = [np.array(found or [np.nan], dtype=float) for found in (seen.before[name], seen.after[name])]
        if np.isnan(values[0]).all() or np.isnan(values[1]).all():
            continue
        medians = [float(np.nanmedian(v)) for v in values]
        spreads = [float(np.subtract(*np.nanquantile(v, [0.75, 0.25]))) for v in values]
        change = f"{spreads[1] / spreads[0] - 1:+.0%}" if spreads[0] else "-"
        table.add_row(name, *(form.format(v) for v in (*medians, *spreads)), change)
    table.caption = "spread: distance between the quartiles"
    return table
