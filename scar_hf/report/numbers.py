"""The numbers of a report: everything that its figures and tables show, as JSON-compatible values."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from ..curation.refusals import count_refusals
from ..progress import hidden
from ..rows.counting import OTHERS
from ..rows.pairs import kind_of_reason
from ..runs.selected import Selected
from ..scoring.encoders.torch_encoder import one_thread_per_operation
from ..scoring.scorer import ScarScorer
from ..selecting.top_k import threshold_of
from ..style import SURPRISAL, StyleChange, StyleMeasures, Surprisal, compare, style_measures
from .sampling import Samples, Seen

_MOST_GROUPS = 12
_TEXTS_AT_ONCE = 512
ENCODER_MISSING = "There is no map, because the ranker was only in memory. Pass it with report(scorer=...)."
# Limits of response lengths in words, roughly doubling to suit both short and long sets.
_LENGTHS = (0, 10, 25, 50, 100, 200, 400, 800)
_GRID = 160
# Most characters of a reason, which may quote the data.
_MOST_REASON = 300
# Measures in the table of examples, with their short names.
SHOWN_MEASURES = {"words": "Words", "ttr": "TTR", "flesch": "Flesch", "surprisal": "Surprisal"}


@dataclass
class MeasuredStyle:
    """
    The style of the samples.

    Args:
        change ([`~scar_hf.style.StyleChange`]): change of each measure from before to after.
        shown (`dict[int, dict[str, float]]`): `SHOWN_MEASURES` of the examples, by row number.
        words (`dict[int, float]`): words per response, by row number.
        densities (`dict`, *optional*): densities of surprisal, if it was measured.
    """

    change: StyleChange
    shown: dict[int, dict[str, float]]
    words: dict[int, float]
    densities: dict[str, Any] | None


def measure(seen: Seen, samples: Samples, language: str, lm: Any, progress: bool) -> MeasuredStyle:
    """
    Measure the style of the samples.

    Args:
        seen ([`~scar_hf.report.sampling.Seen`]): the rows.
        samples ([`~scar_hf.report.sampling.Samples`]): the samples to measure.
        language, lm, progress: as for [`~scar_hf.style.style_measures`].

    Returns:
        [`MeasuredStyle`].
    """
    shown = [i for i in samples.shown.tolist() if seen.rows[i].problem is None]
    numbers = np.union1d(np.union1d(samples.before, samples.after), np.array(shown, dtype=np.int64))
    measures = style_measures(_dataset(seen, numbers), language=language, progress=progress)
    change = _change(measures, numbers, samples.before, samples.after)
    values = {name: _by_number(numbers, measures[name]) for name in SHOWN_MEASURES if name in measures.values}
    densities = None
    if lm is not None:
        numbers = np.union1d(samples.read, samples.read_after)
        surprisal = lm if isinstance(lm, Surprisal) else Surprisal(lm)
        read = style_measures(_dataset(seen, numbers), language=language, lm=surprisal, progress=progress)
        read.values = {name: read[name] for name in ("words", *SURPRISAL) if name in read.values}
        more = _change(read, numbers, samples.read, samples.read_after)
        change.changes |= {name: more.changes[name] for name in SURPRISAL}
        for baseline, draws in more.baselines.items():
            change.baselines.setdefault(baseline, {}).update({name: draws[name] for name in SURPRISAL if name in draws})
        change.notes += [note for note in more.notes if note not in change.notes]
        values["surprisal"] = _by_number(numbers, read["surprisal"])
        at = (np.searchsorted(numbers, rows) for rows in (samples.read, samples.read_after))
        densities = _densities(*(read["surprisal"][rows] for rows in at)) | {"model": read.lm}
    by_row = {i: {name: found[i] for name, found in values.items() if i in found} for i in shown}
    return MeasuredStyle(change, by_row, values.get("words", {}), densities)


def shares_by_group(seen: Seen) -> list[dict[str, Any]]:
    """Count rows and rows kept for each value of the column: frequent values separately, the others together."""
    rows, kept = seen.counts.rows, seen.counts.kept
    frequent = [name for name, _ in rows.most_common() if name != OTHERS]
    named, rest = frequent[:_MOST_GROUPS], [*frequent[_MOST_GROUPS:], *([OTHERS] if OTHERS in rows else [])]
    groups = [_group(name, rows[name], kept[name]) for name in named]
    if rest:
        label = f"{len(frequent) - len(named):,} others"
        groups.append(_group(label, sum(rows[n] for n in rest), sum(kept[n] for n in rest)))
    return groups


def shares_by_length(selected: Selected, samples: Samples, words: Mapping[int, float]) -> list[dict[str, Any]]:
    """Count rows and rows kept by words per response; counts from a sample are scaled up to all rows."""
    sets = []
    for rows, total in ((samples.before, selected.explainer.counted), (samples.after, len(selected.indices))):
        values = [words[i] for i in rows.tolist() if i in words]
        counts = np.histogram(values, bins=[*_LENGTHS, np.inf])[0]
        sets.append(np.rint(counts * (total / max(1, len(rows)))).astype(int).tolist())
    names = [f"{low} to {high - 1}" for low, high in pairwise(_LENGTHS)] + [f"{_LENGTHS[-1]} or more"]
    return [_group(name, n, min(n, k)) for name, n, k in zip(names, *sets, strict=True) if n]


def form_map(selected: Selected, seen: Seen, samples: Samples, scorer: ScarScorer, progress: bool) -> dict[str, Any] | None:
    """Return the positions of the mapped responses; `None` if there are fewer than three."""
    numbers = [i for i in samples.mapped.tolist() if seen.rows[i].problem is None and seen.rows[i].response.strip()]
    if len(numbers) < 3:
        return None
    positions, shares = principal_axes(form_vectors(scorer, [seen.rows[i].response for i in numbers], progress))
    return {
        "variance": [round(share, 4) for share in shares],
        "x": [round(float(x), 3) for x in positions[:, 0]],
        "y": [round(float(y), 3) for y in positions[:, 1]],
        "kept": [bool(selected.explainer.is_kept[i]) for i in numbers],
        "group": [seen.groups[i] for i in numbers] if seen.groups else None,
    }


def example_rows(
    selected: Selected, seen: Seen, samples: Samples, measures: Mapping[int, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Return score, rank, decision, reason and measures of each example, without its texts."""
    scores, explainer = selected.scored.scores, selected.explainer
    return [
        {
            "row": i,
            "rank": None if np.isnan(scores[i]) else int(explainer.ranks[i]),
            "score": _number(scores[i]),
            "decision": explainer.decision(i),
            "reason": explainer.reason(i)[:_MOST_REASON],
            "group": seen.groups.get(i),
            "measures": {name: _number(value) for name, value in measures.get(i, {}).items()},
        }
        for i in samples.shown.tolist()
    ]


def counts_of(selected: Selected) -> dict[str, Any]:
    """Count rows by outcome; kept, below (including unscored rows), curated and skipped add up to all rows."""
    scores = selected.scored.scores
    n, unscored = len(scores), int(np.count_nonzero(selected.scored.is_unscored))
    skipped = int(np.count_nonzero(np.isnan(scores))) - unscored
    curated = sum(1 for i in selected.curated if not np.isnan(scores[i]) and not selected.explainer.is_kept[i])
    kept = len(selected.indices)
    return {
        "rows": n,
        "kept": kept,
        "share": kept / n if n else None,
        "below": n - kept - curated - skipped,
        "curated": curated,
        "skipped": skipped,
        "unscored": unscored,
        "truncated": int(selected.scored.truncated.sum()),
        "truncated_kept": int(selected.scored.truncated[selected.indices].sum()),
        "threshold": _number(threshold_of(scores, selected.indices)),
        "by_score": selected.by_score,
    }


def reasons_of(selected: Selected) -> list[dict[str, Any]]:
    """Count the reasons why rows have no score or were left out by curation, most frequent first."""
    kinds = Counter(("skipped", reason[:_MOST_REASON]) for reason in selected.scored.skipped.values())
    # The kind of a reason is the text before the colon or row number: "near-duplicate of row 17 (Jaccard 0.83)".
    kinds.update(("curated", kind_of_reason(reason)[:_MOST_REASON]) for reason in selected.curated.values())
    return [{"what": what, "reason": reason, "rows": count} for (what, reason), count in kinds.most_common(20)]


def refusals_of(seen: Seen, samples: Samples) -> dict[str, Any]:
    """Count the sampled rows kept whose responses refuse, deflect or say nothing, by kind."""
    kinds = count_refusals(seen.rows[i].response for i in samples.after.tolist())
    return {"rows": len(samples.after), "kinds": dict(kinds.most_common())}


def form_vectors(scorer: ScarScorer, responses: Sequence[str], progress: bool = False) -> np.ndarray:
    """
    Encode each response as the maximum over its tokens' vectors (paper, section 3).

    Args:
        scorer ([`ScarScorer`]): the scorer whose encoder is used.
        responses (`Sequence[str]`): n texts.
        progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar.

    Returns:
        `np.ndarray` of shape `(n, H)`, float32.
    """
    hidden_size, parts = scorer.config.hidden_size, []
    with (
        one_thread_per_operation(),
        tqdm(total=len(responses), desc="Mapping", unit="row", disable=hidden(progress)) as bar,
    ):
        for start in range(0, len(responses), _TEXTS_AT_ONCE):
            some = responses[start : start + _TEXTS_AT_ONCE]
            texts = scorer._tokens_of(list(some))
            vectors, forms = scorer._encoder.encode(texts.token_ids)
            _, forms = texts.merge(vectors, forms, scorer.config.pooling)
            parts.append(forms)
            bar.update(len(some))
    return np.concatenate(parts) if parts else np.empty((0, hidden_size), dtype=np.float32)


def principal_axes(vectors: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """
    Project vectors on their first two principal axes.

    Args:
        vectors (`np.ndarray` of shape `(n, H)`): at least one.

    Returns:
        `tuple`: positions of shape `(n, 2)`, and the share of the variance along each axis, in [0, 1].
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    # Fix the sign of each axis so that its largest component is positive; otherwise the map could flip by chance.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    total = float(values.sum())
    shares = [float(max(0.0, value) / total) if total > 0 else 0.0 for value in values[::-1][:2]]
    return centred @ axes, shares


def _by_number(numbers: np.ndarray, values: np.ndarray) -> dict[int, float]:
    present = ~np.isnan(values)
    return dict(zip(numbers[present].tolist(), values[present].tolist(), strict=True))


def _change(measures: StyleMeasures, numbers: np.ndarray, before: np.ndarray, after: np.ndarray) -> StyleChange:
    sets = (measures.select(np.searchsorted(numbers, rows)) for rows in (before, after))
    return compare(*sets, sampled=not np.isin(after, before).all())


def _dataset(seen: Seen, numbers: Iterable[int]) -> Dataset:
    rows = [seen.rows[int(i)] for i in numbers]
    return Dataset.from_dict({"instruction": [r.instruction for r in rows], "response": [r.response for r in rows]})


def _densities(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Compute densities of surprisal with Gaussian kernels and Silverman's bandwidth, over the middle 99 % of both sets."""
    sets = [values[np.isfinite(values)] for values in (before, after)]
    both = np.concatenate(sets)
    if not len(both):
        return {"grid": [], "before": [], "after": [], "rows_before": 0, "rows_after": 0}
    low, high = np.quantile(both, [0.005, 0.995])
    room = max(0.1, 0.1 * (high - low))
    grid = np.linspace(max(0.0, low - room), high + room, _GRID)
    return {
        "grid": [round(float(x), 4) for x in grid],
        "before": _density(sets[0], grid),
        "after": _density(sets[1], grid),
        "rows_before": len(sets[0]),
        "rows_after": len(sets[1]),
    }


def _density(values: np.ndarray, grid: np.ndarray) -> list[float]:
    if len(values) < 2:
        return []
    low, high = np.quantile(values, [0.25, 0.75])
    width = max(1e-3, 0.9 * min(values.std(ddof=1), (high - low) / 1.34 or np.inf) * len(values) ** -0.2)
    kernels = np.exp(-0.5 * ((grid[:, None] - values[None, :]) / width) ** 2).sum(axis=1)
    return [round(float(y), 5) for y in kernels / (len(values) * width * math.sqrt(2 * math.pi))]


def _group(name: str, rows: int, kept: int) -> dict[str, Any]:
    return {"name": name, "rows": rows, "kept": kept, "share": kept / rows if rows else None}


def _number(value: float) -> float | None:
    return None if not math.isfinite(value) else round(float(value), 5)
