"""Compute the numbers of a comparison of methods."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ..ranking import ScarRanking, scar_rank
from ..ranks import rank_correlation
from ..rows.pairs import READER_SETTINGS
from ..style import StyleMeasures, compare, style_consistency
from .report import MethodComparison

_MOST_GROUPS = 12


def compare_methods(
    ds: Dataset,
    k: Sequence[float] = (0.05, 0.1, 0.25),
    methods: Sequence[str | Mapping[str, float]] = ("scar", "random", "longest", "diversity"),
    *,
    group_by: str | None = None,
    lm: Any = None,
    seed: int = 0,
    language: str = "en",
    cache: bool = True,
    progress: bool = True,
    **rank: Any,
) -> MethodComparison:
    """
    Compare the rows that different methods keep.

    Args:
        ds ([`~datasets.Dataset`]): the rows.
        k (`Sequence[float]`, *optional*, defaults to `(0.05, 0.1, 0.25)`): shares or counts to keep.
        methods (`Sequence`, *optional*): as for [`~scar_hf.scar_rank`], at least one.
        group_by (`str`, *optional*): a column, such as `source`, to show the share of each of its values.
        lm, seed: as for [`~scar_hf.scar_rank`].
        language (`str`, *optional*, defaults to `"en"`): as for [`~scar_hf.style.style_measures`].
        cache (`bool`, *optional*, defaults to `True`):
            whether to cache scores on disk. Rows per second then measure reading the cache.
        progress (`bool`, *optional*, defaults to `True`): whether to show progress bars.
        rank: as for [`~scar_hf.scar_rank`].

    Returns:
        [`MethodComparison`]: overlap and rank correlation for each pair of methods; for each method and `k`, the spread of
        style with 95 % intervals, the median number of words and the share of each group; and rows per second.

    Raises:
        `ValueError`: if `methods` or `k` is empty, a method is unknown, or there is no column `group_by`.

    Example:

    ```python
    >>> from scar_hf.comparison import compare_methods

    >>> compare_methods(ds, k=[0.1], methods=["scar", "random", "longest"], group_by="source").save("comparison.html")
    ```
    """
    if not methods or not k:
        raise ValueError("Pass at least one method and one k.")
    if group_by is not None and group_by not in ds.column_names:
        raise ValueError(f"`group_by` names the column {group_by!r}, but the data has {ds.column_names}.")
    rankings: dict[str, ScarRanking] = {}
    seconds: dict[str, float] = {}
    for method in methods:
        name = method if isinstance(method, str) else ",".join(f"{part}={weight:g}" for part, weight in method.items())
        began = time.perf_counter()
        rankings[name] = scar_rank(ds, method=method, lm=lm, seed=seed, cache=cache, progress=progress, **rank)
        seconds[name] = time.perf_counter() - began
    names = list(rankings)
    groups = None if group_by is None else [str(value) for value in ds[group_by]]
    counts = Counter(groups or ())
    frequent = [group for group, _ in counts.most_common(_MOST_GROUPS)]
    reading = {name: rank[name] for name in READER_SETTINGS if name in rank}
    whole = style_consistency(ds, language=language, progress=progress, **reading)
    assert whole.measures is not None
    kept = {(name, share): rankings[name].select(share).indices for name in names for share in k}
    sets = []
    for (name, share), rows in kept.items():
        change = compare(whole, style_consistency(whole.measures.select(rows)))
        counted = Counter() if groups is None else Counter(groups[i] for i in rows.tolist())
        sets.append(
            {
                "method": name,
                "k": share,
                "rows": len(rows),
                "style": change.to_dict()["measures"],
                "words": _median_words(whole.measures.select(rows)),
                "groups": {group: counted[group] / max(1, len(rows)) for group in frequent},
            }
        )
    return MethodComparison(
        {
            "format": 1,
            "rows": len(ds),
            "words": _median_words(whole.measures),
            "group_by": group_by,
            "methods": names,
            "k": list(k),
            "rows_per_second": {name: round(len(ds) / max(1e-6, spent), 1) for name, spent in seconds.items()},
            "scored": {name: int(np.isfinite(ranking.scores).sum()) for name, ranking in rankings.items()},
            "groups": {group: counts[group] / max(1, len(ds)) for group in frequent},
            "correlation": [[_correlation(rankings[a].scores, rankings[b].scores) for b in names] for a in names],
            "overlap": [[[_jaccard(kept[a, share], kept[b, share]) for b in names] for a in names] for share in k],
            "sets": sets,
            "notes": list(whole.notes),
        }
    )


def _median_words(measures: StyleMeasures) -> float | None:
    words = measures.values.get("words")
    return None if words is None or not np.isfinite(words).any() else round(float(np.nanmedian(words)), 1)


def _jaccard(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the number of rows in both sets, divided by the number in either."""
    either = len(np.union1d(first, second))
    return round(len(np.intersect1d(first, second)) / either, 5) if either else None


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Spearman's rank correlation over the rows with both scores."""
    found = rank_correlation(first, second)
    return None if np.isnan(found) else round(found, 5)
