"""The sentences of a report: its introduction and the captions of its figures, from the numbers."""

from collections.abc import Mapping
from typing import Any


def intro_of() -> list[str]:
    """Return three sentences: what SCAR is, why a narrower style can be good, and what to do next."""
    return [
        "SCAR ranks the rows of an instruction set by how consistent the style of their responses is: how they are worded "
        "(linguistic form) and how predictable they are from the instruction (instructional surprisal).",
        "A narrower style can be good because a model then spends its fine-tuning on content rather than on many ways of "
        "writing; if random rows or rows of the same lengths are equally narrow, the ranker deserves no credit for it.",
        "Next, read the best, the worst and the borderline examples below: train on the rows kept if they look right, "
        "otherwise try another k, quotas, diversity or curation, and always compare with training on random rows.",
    ]


def lead_of(numbers: Mapping[str, Any]) -> str:
    """Return the sentence below the title of the page."""
    counts, output = numbers["counts"], numbers["output"]
    manifest = numbers["manifest"]
    method = (manifest.get("settings") or {}).get("method")
    ranker = f"the method {method}" if method else (manifest.get("ranker") or {}).get("model") or "an unsaved ranker"
    kept = f", selected as {output}" if output else ""
    truncated = f" In {counts['truncated']:,} rows the ranker read only the beginning of a text." if counts["truncated"] else ""
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
    """Return captions of figures and tables by name; for a figure that could not be drawn, the reason."""
    return {
        "scores": _scores(numbers),
        "map": _map(numbers),
        "map-sources": _map_sources(numbers),
        "surprisal": _surprisal(numbers),
        "spreads": "The standard deviation of each measure over the rows kept, relative to all rows, with its 95 % interval. "
        "Blue is narrower, orange is wider, grey may be chance. Grey bands: random draws of the same size. Diamonds: draws "
        "with the same lengths."
        if any(row["spread_change"] is not None for row in numbers["style"]["measures"].values())
        else "There are too few rows to compare spreads.",
        "table": _table(numbers),
        "sources": f"Share kept of each {numbers['group_by']}, of all rows." if numbers["groups"] else _no_sources(numbers),
        "lengths": _lengths(numbers),
        "examples": "Up to 300 rows: the best, the worst, evenly spaced rows between them, and some without a score or left "
        "out by curation. Click on the text of a row to read more of it.",
        "again": "The same command on the same data writes the same rows, byte for byte. scar-hf verify checks an output "
        "against its manifest.",
    }


def foot_of(numbers: Mapping[str, Any]) -> str:
    """Return the footer: versions and samples."""
    versions, samples = numbers["manifest"].get("versions") or {}, numbers["samples"]
    return (
        f"Made by scar-hf {versions.get('scar-hf', '')}. SCAR: ACL 2025, arXiv 2406.10882. The ranker judges style, not "
        f"truth. Rows were sampled with seed {samples['seed']}."
    )


def _scores(numbers: Mapping[str, Any]) -> str:
    counts = numbers["counts"]
    if counts["threshold"] is None:
        return "No row has a score, so nothing was kept." if not counts["kept"] else ""
    what = f"the {counts['kept']:,} rows kept score at least {counts['threshold']:.3f}"
    rest = "" if counts["by_score"] else ", though the score alone did not decide"
    scored = counts["rows"] - counts["skipped"] - counts["unscored"]
    return f"Scores of {scored:,} rows: {what}{rest}. Scores have no unit; only their order matters."


def _map(numbers: Mapping[str, Any]) -> str:
    points = numbers["map"]
    if points is None:
        return "No map: it needs the encoder of the ranker and at least three responses."
    sampled = (
        ""
        if len(points["x"]) == numbers["counts"]["rows"] - numbers["counts"]["skipped"]
        else (" The rows are a sample in which those kept are overrepresented.")
    )
    return (
        "Each point is a response: its vector of linguistic form, projected on the two principal axes of "
        f"{len(points['x']):,} responses. Responses of similar style lie close together.{sampled}"
    )


def _map_sources(numbers: Mapping[str, Any]) -> str:
    points = numbers["map"]
    if points is None or not points["group"] or len(numbers["groups"]) < 2:
        return ""
    return f"The same map by {numbers['group_by']}: groups with different styles separate."


def _surprisal(numbers: Mapping[str, Any]) -> str:
    found = numbers["surprisal"]
    if found is None:
        return (
            "Instructional surprisal was not measured. Pass --lm MODEL (lm= in Python) to add its density here and its spread "
            "to the table. The ranker itself represents surprisal only as a vector, not as a number."
        )
    if not found["grid"]:
        return "The language model could not measure any row."
    return (
        f"How surprising the responses are to {found['model']}, given their instructions, in samples of both sets. A narrower "
        "curve means a more consistent set."
    )


def _table(numbers: Mapping[str, Any]) -> str:
    samples, counts = numbers["samples"], numbers["counts"]
    whole = samples["before"] == counts["rows"] - counts["skipped"] and samples["after"] == counts["kept"]
    rows = "all rows" if whole else f"samples of {samples['before']:,} rows before and {samples['after']:,} after"
    read = f", surprisal on {samples['lm_before']:,} and {samples['lm_after']:,}" if samples["lm_before"] else ""
    return (
        f"The spread is the standard deviation over the rows; smaller means a more consistent style. Measured on {rows}"
        f"{read}. Intervals are 95 % bootstrap intervals, somewhat too wide for a subset of the same rows.{_baselines(numbers)}"
    )


def _baselines(numbers: Mapping[str, Any]) -> str:
    draws = numbers["style"].get("draws")
    return (
        f" Random draw and Same lengths show {draws} draws of the same size without a ranker: at random, and with the same "
        "distribution of lengths."
        if draws
        else ""
    )


def _no_sources(numbers: Mapping[str, Any]) -> str:
    return (
        ""
        if numbers["group_by"]
        else "Pass --group-by COLUMN (group_by= in Python) to show the share kept of each source or other group."
    )


def _lengths(numbers: Mapping[str, Any]) -> str:
    samples, counts = numbers["samples"], numbers["counts"]
    if not numbers["lengths"]:
        return "No response contains words to count."
    estimated = samples["before"] < counts["rows"] - counts["skipped"]
    return f"Share kept of short and long responses{', estimated from the samples' if estimated else ''}."
