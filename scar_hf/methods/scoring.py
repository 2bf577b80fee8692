"""Any scorer -> the scores of a whole set."""

from collections.abc import Sequence

from datasets import Dataset
from tqdm.auto import tqdm

from ..curation.coverage import LanguageCoverage, score_watched
from ..files import Shard
from ..progress import hidden
from ..scoring.datasets import ScoredRows, report_skipped, score_each
from ..scoring.scorer import ScarScorer
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
    kept = scorer.cache() if cache and not scorer.in_memory else None
    coverage = LanguageCoverage.of(scorer)
    parts = score_each(scorer, shards, kept, bar, coverage.watch)
    coverage.report()
    return parts


def score_source(ds: Dataset, scorer: ScarScorer, cache: bool = True, progress: bool = False) -> ScoredRows:
    """
    Score a dataset by the ranker or by another method.

    Args:
        ds ([`~datasets.Dataset`]): n rows.
        scorer ([`~scar_hf.ScarScorer`]): with what.
        cache (`bool`, *optional*, defaults to `True`): whether to cache scores on disk.
        progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar.

    Returns:
        [`~scar_hf.scoring.datasets.ScoredRows`]: n scores. What was skipped or truncated is logged.
    """
    if not isinstance(scorer, MethodScorer):
        return score_watched(ds, scorer, cache, progress)
    with tqdm(total=len(ds), desc="Scoring", unit="row", disable=hidden(progress)) as bar:
        (scored,) = scorer.score_shards([Shard("the data", None, ds)], cache, bar)
    if len(ds):
        report_skipped(scored, scorer.read_length)
    return scored
