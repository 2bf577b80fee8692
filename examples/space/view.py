"""Builds the contents of the page. Rows are read, measured and mapped once, so new criteria need no scoring."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np

from scar_hf import ScarRanking, ScarScorer
from scar_hf.report.captions import captions_of
from scar_hf.report.figures import COLOURS, FIGURES, draw, score_histogram
from scar_hf.report.numbers import counts_of, form_map, shares_by_group, shares_by_length
from scar_hf.report.page import StyleSheet, inline
from scar_hf.report.sampling import Samples, Seen, choose, look
from scar_hf.rows.counting import GroupCounts
from scar_hf.selecting.criteria import OPTIONS as CRITERIA
from scar_hf.selecting.criteria import Criteria
from scar_hf.selection import Selection
from scar_hf.style import BASELINES, StyleConsistency, StyleMeasures, compare, style_consistency, style_measures

# The criteria with a control. The page scores all rows first, so criteria that decide which rows are scored have none.
OPTIONS = [found for found in CRITERIA if not found.metadata.get("decides_scoring")]
MAP_ROWS = 500
_EXAMPLES = 4
_SOURCES = 12
_INSTRUCTION, _RESPONSE = 300, 600
TITLES = {
    "scores": "Scores and the threshold",
    "spreads": "Spread of style, kept against all",
    "map": "Map of linguistic form",
    "map-sources": "The same map by {group_by}",
    "sources": "Share kept by {group_by}",
    "lengths": "Share kept by words of the response",
}


@dataclass(frozen=True)
class Scored:
    """
    A ranking, with everything that does not depend on the criteria.

    Args:
        ranking ([`~scar_hf.ScarRanking`]): n rows with their scores.
        scorer ([`~scar_hf.ScarScorer`]): the scorer.
        samples ([`~scar_hf.report.sampling.Samples`]): the measured rows, and the rows on the map.
        seen ([`~scar_hf.report.sampling.Seen`]): the texts and groups of all rows with a score.
        measures ([`~scar_hf.style.StyleMeasures`]): the measures of all rows.
        before ([`~scar_hf.style.StyleConsistency`]): the consistency of all rows with a score.
        points (`dict`, *optional*): the map; `None` if there are fewer than three responses.
        group_by (`str`, *optional*): the column by which rows are counted.
    """

    ranking: ScarRanking
    scorer: ScarScorer
    samples: Samples
    seen: Seen
    measures: StyleMeasures
    before: StyleConsistency
    points: dict[str, Any] | None
    group_by: str | None


def measured(ranking: ScarRanking, scorer: ScarScorer) -> Scored:
    """Read, measure and map the rows of a ranking."""
    everything = ranking.select(1.0)
    samples = choose(everything, len(ranking), 0, MAP_ROWS, 0, seed=0)
    group_by = _groups_in(ranking, scorer)
    seen = look(everything, samples, group_by)
    reader = scorer.reader
    measures = style_measures(ranking.dataset, columns=reader.columns, turn=reader.turn)
    points = form_map(everything, seen, samples, scorer, progress=True)
    before = style_consistency(measures.select(samples.before))
    return Scored(ranking, scorer, samples, seen, measures, before, points, group_by)


def criteria_of(share: float, count: float | None, options: Sequence[Any]) -> Criteria:
    """
    Create the criteria from the values of the controls.

    Args:
        share (`float`): the share of rows to keep, unless a count or a threshold is given.
        count (`float`, *optional*): the number of rows to keep.
        options (`Sequence`): a value for each of `OPTIONS`, in their order.
    """
    given = {found.name: value for found, value in zip(OPTIONS, options, strict=True) if value not in (None, "", [])}
    k = int(count) if count else float(share)  # the end of the slider is the integer 1, which would be a count
    return Criteria.from_options(None if "threshold" in given else k, given)


def numbers_at(scored: Scored, selection: Selection) -> dict[str, Any]:
    """Compute the numbers for the figures and tables of a selection, as in a report."""
    kept, is_kept = selection.indices, selection.explainer.is_kept
    samples, seen = replace(scored.samples, after=kept), scored.seen
    if scored.group_by is not None:
        seen = replace(seen, counts=GroupCounts(seen.counts.rows, Counter(seen.groups.get(i) for i in kept.tolist())))
    words = {i: value for i, value in enumerate(scored.measures.values.get("words", [])) if not np.isnan(value)}
    mapped = None if scored.points is None else scored.points | {"kept": is_kept[samples.mapped].tolist()}
    return {
        "group_by": scored.group_by,
        "counts": counts_of(selection),
        "scores": score_histogram(scored.ranking.scores, kept),
        "style": compare(scored.before, scored.measures.select(kept)).to_dict(),
        "surprisal": None,
        "map": mapped,
        "groups": shares_by_group(seen),
        "lengths": shares_by_length(selection, samples, words),
        "samples": {"before": len(samples.before), "after": len(kept), "lm_before": 0},
    }


def tiles(numbers: Mapping[str, Any]) -> str:
    """Render the numbers above the figures."""
    counts, words = numbers["counts"], numbers["style"]["measures"].get("words")
    threshold = counts["threshold"]
    cells = [
        ("Kept", f"{counts['kept']:,}", f"of {counts['rows']:,} rows"),
        ("Threshold", "none" if threshold is None else f"{threshold:.3f}", "the lowest score kept"),
        ("Without a score", f"{counts['skipped']:,}", "never kept"),
    ]
    if counts["curated"]:
        cells.append(("Dropped by curation", f"{counts['curated']:,}", "whatever their score"))
    known = [row for row in numbers["style"]["measures"].values() if row["spread_change"] is not None]
    narrower = [row for row in known if row["verdict"] == "narrower"]
    if known:
        beyond = sum(1 for row in narrower if row["same_lengths"] and row["spread_change"] < row["same_lengths"]["low"])
        more = f"measures; {beyond} beyond what length explains"
        cells.insert(2, ("Narrower style", f"{len(narrower)} of {len(known)}", more))
    if words is not None and words["mean_after"] is not None:
        cells.insert(2, ("Words of a response", f"{words['mean_after']:.0f}", f"mean; {words['mean_before']:.0f} in all rows"))
    boxes = "".join(f"<div><dt>{name}</dt><dd>{value}</dd><dd>{more}</dd></div>" for name, value, more in cells)
    return f'<dl class="scar scar-tiles" aria-live="polite">{boxes}</dl>'


def figures(numbers: Mapping[str, Any]) -> str:
    """Render the figures of a report, in the page's colours."""
    sheet, captions, parts = StyleSheet(COLOURS), captions_of(numbers), []
    if numbers["map"] is not None:
        captions["map"] = (
            f"Each point is one of {len(numbers['map']['x']):,} responses, drawn at random, as the ranker's encoder sees it. "
            "Responses of one style lie together."
        )
    images = draw(numbers, "svg")
    for name, title in TITLES.items():
        if name in images:
            title = escape(title.format(group_by=numbers["group_by"]))
            image = inline(images[name].decode("utf-8"), name, FIGURES[name][1].__doc__ or name, sheet)
            caption = escape(captions[name])
            parts.append(f"<figure><h3>{title}</h3>{image}<figcaption>{caption}</figcaption></figure>")
    return f'<style>{sheet.css()}</style><div class="scar scar-figures">{"".join(parts)}</div>'


def style_table(numbers: Mapping[str, Any]) -> str:
    """Render a table of means and spreads before and after."""
    head = ("Measure", "Mean, all", "Mean, kept", "Spread, all", "Spread, kept", "Change of spread", *BASELINES.values(), "")
    lines = []
    for row in numbers["style"]["measures"].values():
        names = ("mean_before", "mean_after", "spread_before", "spread_after")
        cells = ["–" if row[name] is None else f"{row[name]:.4g}" for name in names]
        changes = [row["spread_change"], *(row[name] and row[name]["change"] for name in BASELINES)]
        cells += ["–" if change is None else f"{100 * change:+.1f} %" for change in changes]
        numeric = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(
            f'<tr><th scope="row">{escape(row["title"])}</th>{numeric}<td class="{row["verdict"]}">{row["verdict"]}</td></tr>'
        )
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    head_row, body = f"<thead><tr>{titles}</tr></thead>", f"<tbody>{''.join(lines)}</tbody>"
    caption = escape(captions_of(numbers)["table"])
    return f'<div class="scar"><p>{caption}</p><table class="scar-table">{head_row}{body}</table></div>'


def examples(scored: Scored, selection: Selection) -> str:
    """Render rows from both ends and from both sides of the threshold, always as text and never as markup."""
    explainer = selection.explainer
    order = [i for i in scored.ranking.order().tolist() if i in scored.seen.rows]
    kept, left = ([i for i in order if explainer.is_kept[i] == side] for side in (True, False))
    groups = {
        "The best": kept[:_EXAMPLES],
        "Just kept": kept[_EXAMPLES:][-_EXAMPLES:],
        "Just left out": left[:_EXAMPLES],
        "The last": left[_EXAMPLES:][-_EXAMPLES:],
    }
    ranks = {i: rank for rank, i in enumerate(order, 1)}
    parts = [f"<h3>{title}</h3>{_rows(scored, rows, ranks, set(kept))}" for title, rows in groups.items() if rows]
    return f'<div class="scar scar-rows">{"".join(parts)}</div>'


def _rows(scored: Scored, numbers: Iterable[int], ranks: Mapping[int, int], kept: set[int]) -> str:
    parts = []
    for i in numbers:
        row, tag = scored.seen.rows[i], "kept" if i in kept else "rest"
        group = f" · {escape(scored.seen.groups[i])}" if i in scored.seen.groups else ""
        parts.append(
            f'<article class="{tag}"><header>rank {ranks[i]:,} · score {scored.ranking.scores[i]:.3f}{group}</header>'
            f"<b>{_text(row.instruction, _INSTRUCTION)}</b><p>{_text(row.response, _RESPONSE)}</p></article>"
        )
    return "".join(parts)


def _text(text: str, most: int) -> str:
    return escape(text if len(text) <= most else f"{text[: most - 1]}…")


def _groups_in(ranking: ScarRanking, scorer: ScarScorer) -> str | None:
    """Return the first column with a few distinct texts, such as `source`."""
    names = ranking.dataset.column_names
    needed = set(scorer.reader.needed(names) or names)
    for name in names:
        if name not in needed and ranking.dataset.features[name].dtype in ("string", "large_string"):
            values = {value for value in ranking.dataset[name] if value is not None}
            if 2 <= len(values) <= _SOURCES:
                return name
    return None
