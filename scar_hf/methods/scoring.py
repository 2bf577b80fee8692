"""Any scorer -> the scores of a whole set."""

from collections.abc import Sequence

from datasets import Dataset
from tqdm.auto import tqdm

from ..curation.coverage import score_watched
from ..files import Shard
from ..rows.source import RowSource
from ..scoring.datasets import ScoredRows
from ..scoring.scorer import ScarScorer
from ..selecting.cascade import score_all
from ..selecting.criteria import Criteria
from .scorer import MethodScorer


def score_with(scorer: ScarScorer, shards: Sequence[Shard], cache: bool, bar: tqdm) -> list[ScoredRows]:
    """
    Score shards in this process by the ranker or by another method.

    Args:
        scorer ([`~scar_hf.ScarScorer`]): with what.
        shards (`Sequence[Shard]`): the data, in order.
        cache (`bool`): whether to cache scores on disk.
        bar (`tqdm`): a progress bar of rows.

    Returns:
        `list[ScoredRows]`: one for each shard, row numbers counted over all of them.
    """
    if isinstance(scorer, MethodScorer):
        return scorer.score_shards(shards, cache, bar)
    return score_watched(scorer, shards, cache, bar)


def score_source(
    ds: Dataset, scorer: ScarScorer, cache: bool = True, progress: bool = False, criteria: Criteria | None = None
) -> ScoredRows:
    """Score a dataset by the ranker or by another method, as [`~scar_hf.selecting.cascade.score_all`]."""
    return score_all(criteria, score_with, RowSource(ds, scorer.reader), scorer, cache, progress)
