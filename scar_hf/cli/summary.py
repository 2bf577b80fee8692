"""The table that `scar-hf select` prints: what came in, what stayed, and how the set changed."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..pairs import PairReader
from ..ranking import ScarRanking
from ..style import count_words, type_token_ratio

_SHOWN = 5


def print_summary(
    ranking: ScarRanking, k: float, path: str, by: str | None = None, columns: str | None = None, turn: str = "first"
) -> None:
    """
    Print a selection for a person to read.

    Args:
        ranking ([`ScarRanking`]): the scored rows.
        k (`float` or `int`): what was kept.
        path (`str`): where it was written.
        by (`str`, *optional*): a column whose values the rows are counted by.
        columns, turn: as the data was read.
    """
    console = Console(soft_wrap=False)
    kept = ranking.indices(k)
    n = len(ranking)
    share = f" ({len(kept) / n:.1%})" if n else ""
    console.print(f"\n[bold]{n:,}[/] rows came in, [bold]{len(kept):,}[/] stayed{share}, written to {path}")
    if len(kept):
        console.print(f"threshold: the lowest score kept is [bold]{ranking.threshold(k):.3f}[/]")
    if ranking.skipped:
        reasons = ", ".join(f"{count:,} × {why}" for why, count in Counter(ranking.skipped.values()).most_common())
        console.print(f"[yellow]{len(ranking.skipped):,} rows have no score and were not kept:[/] {reasons}")
    if not n:
        return
    reader = PairReader(columns=tuple(columns.split(",")) if columns else None, turn=turn)
    instructions, responses = reader.read_batch(ranking.dataset.with_format(None)[:])
    order = [int(i) for i in ranking.order() if not np.isnan(ranking.scores[i])]
    groups = [str(value) for value in ranking.dataset[by][:]] if by else None
    console.print(_examples("Best", order[:_SHOWN], ranking, instructions, responses, groups, by))
    console.print(_examples("Worst", order[::-1][:_SHOWN], ranking, instructions, responses, groups, by))
    if groups is not None:
        console.print(_counts(groups, kept, str(by)))
    console.print(_spread([responses[i] for i in order], [responses[i] for i in kept]))


def _examples(title, rows, ranking, instructions, responses, groups, by) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=True, show_lines=True)
    table.add_column("score", justify="right", no_wrap=True)
    if groups is not None:
        table.add_column(str(by), max_width=18)
    table.add_column("instruction, and below it the response", ratio=1, no_wrap=True, overflow="ellipsis")
    for i in rows:
        pair = (" ".join((text or "").split())[:300] for text in (instructions[i], responses[i]))
        # Text of the data is data: never read as markup.
        cells = [groups[i]] if groups is not None else []
        table.add_row(f"{ranking.scores[i]:.3f}", *map(Text, [*cells, "\n".join(pair)]))
    return table


def _counts(groups: Sequence[str], kept: np.ndarray, by: str) -> Table:
    table = Table(title=f"How much of each {by} stayed", title_justify="left", title_style="bold")
    for name in (by, "in", "kept", "share kept", "share of the selection"):
        table.add_column(name, justify="left" if name == by else "right")
    before, after = Counter(groups), Counter(groups[i] for i in kept)
    for name, count in before.most_common(20):
        table.add_row(
            Text(name), f"{count:,}", f"{after[name]:,}", f"{after[name] / count:.1%}", f"{after[name] / max(1, len(kept)):.1%}"
        )
    return table


def _spread(before: Sequence[str | None], after: Sequence[str | None]) -> Table:
    """Median and interquartile range of two measures of linguistic form, before and after."""
    table = Table(title="How the responses changed", title_justify="left", title_style="bold")
    for name in ("measure", "median in", "median kept", "spread in", "spread kept", "change of spread"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for name, measure, form in (("words", count_words, "{:,.0f}"), ("type-token ratio", type_token_ratio, "{:.2f}")):
        values = [np.array([measure(text) for text in texts if text], dtype=float) for texts in (before, after)]
        medians = [float(np.nanmedian(v)) for v in values]
        spreads = [float(np.subtract(*np.nanquantile(v, [0.75, 0.25]))) for v in values]
        change = f"{spreads[1] / spreads[0] - 1:+.0%}" if spreads[0] else "-"
        table.add_row(name, *(form.format(v) for v in (*medians, *spreads)), change)
    table.caption = "spread: distance between the quartiles"
    return table
