"""What the page says of its figures: sentences from the numbers."""

from collections.abc import Mapping
from typing import Any


def lead_of(numbers: Mapping[str, Any]) -> str:
    """The sentence below the page's title."""
    counts, output = numbers["counts"], numbers["output"]
    ranker = (numbers["manifest"].get("ranker") or {}).get("model") or "a ranker in memory"
    kept = f", selected as {output}" if output else ""
    truncated = f" Of {counts['truncated']:,} rows only the beginning was read." if counts["truncated"] else ""
    return f"{numbers['name']}{kept}, ranked by {ranker}.{truncated}{_refusals(numbers)}"


def _refusals(numbers: Mapping[str, Any]) -> str:
    found, kept = numbers["refusals"], numbers["counts"]["kept"]
    if not found["rows"]:
        return ""
    of = f"the {kept:,} rows kept" if found["rows"] == kept else f"a sample of {found['rows']:,} rows kept"
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found["kinds"].items())
    count = sum(found["kinds"].values())
    return (
        f" Of {of}, {count:,} look like a refusal or an empty phrase ({kinds})."
        if count
        else f" Of {of}, none looks like a refusal."
    )


def captions_of(numbers: Mapping[str, Any]) -> dict[str, str]:
    """A caption for each figure and table, by its name; of a figure that could not be drawn, why."""
    return {
        "scores": _scores(numbers),
        "map": _map(numbers),
        "map-sources": _map_sources(numbers),
        "surprisal": _surprisal(numbers),
        "spreads": "Each measure's standard deviation over the rows kept, against that over all rows. Blue is narrower and "
        "orange wider for sure; grey may be chance."
        if any(row["spread_change"] is not None for row in numbers["style"]["measures"].values())
        else "There are too few rows to compare spreads.",
        "table": _table(numbers),
        "sources": f"What stayed of each {numbers['group_by']}, over all rows." if numbers["groups"] else _no_sources(numbers),
        "lengths": _lengths(numbers),
        "examples": "Up to 300 rows: the best, the worst, rows at even steps between them, and some that have no score or were "
        "left out by curation. Select a row's text to read more of it.",
        "again": "The same command over the same data gives the same rows, byte for byte; scar-hf verify checks an output "
        "against its manifest.",
    }


def foot_of(numbers: Mapping[str, Any]) -> str:
    """The last line: versions and samples."""
    versions, samples = numbers["manifest"].get("versions") or {}, numbers["samples"]
    return (
        f"Made by scar-hf {versions.get('scar-hf', '')}. SCAR: ACL 2025, arXiv 2406.10882. It ranks by style, not by "
        f"truth. Rows were sampled with seed {samples['seed']}."
    )


def _scores(numbers: Mapping[str, Any]) -> str:
    counts = numbers["counts"]
    if counts["threshold"] is None:
        return "No row has a score, so that nothing was kept." if not counts["kept"] else ""
    what = f"the {counts['kept']:,} rows kept score at least {counts['threshold']:.3f}"
    rest = "" if counts["by_score"] else "; the score alone did not decide"
    return f"Scores of {counts['rows'] - counts['skipped']:,} rows: {what}{rest}. A score has no unit; only its order counts."


def _map(numbers: Mapping[str, Any]) -> str:
    points = numbers["map"]
    if points is None:
        return "There is no map: it needs the ranker's encoder and at least three responses."
    sampled = (
        ""
        if len(points["x"]) == numbers["counts"]["rows"] - numbers["counts"]["skipped"]
        else (" A sample, in which rows kept are shown more often than they occur.")
    )
    return (
        "Linguistic form: each point is a response, as the ranker's encoder sees it, on the two principal axes of "
        f"{len(points['x']):,} responses. Responses of one style lie together.{sampled}"
    )


def _map_sources(numbers: Mapping[str, Any]) -> str:
    points = numbers["map"]
    if points is None or not points["group"] or len(numbers["groups"]) < 2:
        return ""
    return f"The same map by {numbers['group_by']}: where the colours part, their styles do."


def _surprisal(numbers: Mapping[str, Any]) -> str:
    found = numbers["surprisal"]
    if found is None:
        return (
            "Instructional surprisal was not measured: --lm MODEL (lm= in Python) adds its density here and its spread to the "
            "table. The ranker holds it as a vector only, of which no number could honestly stand here instead."
        )
    if not found["grid"]:
        return "No row could be measured by the language model."
    return (
        f"How far responses are from what {found['model']} expects after their instruction, of samples of both sets. A "
        "narrower curve is a more consistent set."
    )


def _table(numbers: Mapping[str, Any]) -> str:
    samples, counts = numbers["samples"], numbers["counts"]
    whole = samples["before"] == counts["rows"] - counts["skipped"] and samples["after"] == counts["kept"]
    of = "all rows" if whole else f"samples of {samples['before']:,} rows before and {samples['after']:,} after"
    read = f"; surprisal of {samples['lm_before']:,} and {samples['lm_after']:,}" if samples["lm_before"] else ""
    return (
        f"Spread is the standard deviation over the rows: the smaller, the more consistent the style. Measured of {of}{read}. "
        "Intervals are 95 %, by bootstrap; for a part of the same rows they are rather too wide."
    )


def _no_sources(numbers: Mapping[str, Any]) -> str:
    return (
        ""
        if numbers["group_by"]
        else "--group-by COLUMN (group_by= in Python) shows here what stayed of each source, or any other column."
    )


def _lengths(numbers: Mapping[str, Any]) -> str:
    samples, counts = numbers["samples"], numbers["counts"]
    if not numbers["lengths"]:
        return "There are no responses whose words could be counted."
    estimated = samples["before"] < counts["rows"] - counts["skipped"]
    return f"What stayed of short and long responses{', estimated from the samples' if estimated else ''}."
