"""The one place that decides which rows are kept: those that curation leaves, by score, quotas and diversity."""

from collections.abc import Callable

import numpy as np

from ..curation import Curation
from ..rows.source import RowSource
from .criteria import Criteria, count_of, read_stratify_by
from .diversity import choose
from .quotas import Groups, group_values
from .top_k import top_indices


def decide(
    source: RowSource,
    scores: np.ndarray,
    criteria: Criteria,
    embed: Callable[[np.ndarray], np.ndarray] | None = None,
    device: str = "cpu",
) -> tuple[np.ndarray, dict[int, str]]:
    """
    Choose the rows to keep. The rows are read again only for what the criteria ask for: once for curation, one column for
    quotas, and the pool for diversity.

    Args:
        source ([`~scar_hf.rows.source.RowSource`]): n rows.
        scores (`np.ndarray` of shape `(n,)`): NaN where a row has none; such rows are never kept, unless neither `k` nor a
            threshold is given, which keeps all that curation leaves.
        criteria ([`Criteria`]): what is wanted.
        embed (`Callable`, *optional*): given numbers of rows, ascending, returns their vectors, for `diversity`.
        device (`str`, *optional*, defaults to `"cpu"`): where distances are computed.

    Returns:
        `tuple(np.ndarray, dict[int, str])`: the numbers of the rows kept, ascending, and why curation left rows out, by number.

    Raises:
        `ValueError`: if there is no such column, or no scorer to compare rows with.
    """
    if criteria.diversity and embed is None:
        raise ValueError(
            "`diversity` compares rows by the ranker's vectors, and this ranking has no scorer to make them: rank the data "
            "with scar_rank, or pass ScarRanking(..., scorer=...)."
        )
    curated: dict[int, str] = {}
    if criteria.curation:
        curation = Curation([step.fresh() for step in criteria.curation])
        curation.add(source.rows())
        curated = curation.dropped(scores)
    eligible = scores.copy()
    eligible[list(curated)] = np.nan
    if criteria.threshold is not None:
        return np.flatnonzero(eligible >= criteria.threshold), curated
    if criteria.k is None:
        return np.setdiff1d(np.arange(len(scores)), list(curated)), curated
    if criteria.by_score_alone:
        return top_indices(eligible, criteria.k), curated
    has_score = ~np.isnan(eligible)
    count = min(count_of(criteria.k, len(scores)), int(np.count_nonzero(has_score)))
    if criteria.stratify_by is None:
        groups = Groups(np.zeros(len(scores), dtype=np.int64), [None], [1])
    else:
        name, shares = read_stratify_by(criteria.stratify_by)
        groups = group_values(source.column(name), name, shares)
    vectors = embed or _no_vectors
    return choose(eligible, groups.quotas(count, has_score), groups.labels, criteria.diversity, vectors, device), curated


def _no_vectors(numbers: np.ndarray) -> np.ndarray:
    raise AssertionError("no vectors are needed without diversity")
