"""Datasets -> scores: their rows a slice at a time, whatever output format is set on them."""

import numpy as np
from datasets import Dataset, Value
from tqdm.auto import tqdm

from .row_source import DatasetRows
from .scoring import SCORE_COLUMN, ScarScorer, score_column
from .selection import ScoredRows, report_skipped, score_rows


def score_dataset(ds: Dataset, scorer: ScarScorer, cache: bool = True, progress: bool = False) -> ScoredRows:
    """
    Score a dataset, reading a slice of rows and the columns needed at a time.

    Args:
        ds ([`~datasets.Dataset`]): n rows, whatever output format is set on them.
        scorer ([`ScarScorer`]): with what.
        cache (`bool`, *optional*, defaults to `True`): whether scores are kept on disk and found again.
        progress (`bool`, *optional*, defaults to `False`): whether to show a bar.

    Returns:
        [`~scar_hf.selection.ScoredRows`]: n scores. What was skipped or cut is logged.
    """
    kept = scorer.cache() if cache and not scorer.in_memory else None
    with tqdm(total=len(ds), desc="Scoring", unit="row", disable=not progress) as bar:
        scored = score_rows(scorer, DatasetRows(ds, scorer.reader).rows(), kept, bar)
    if len(ds):
        report_skipped(scored, scorer.read_length)
    return scored


def with_scores(ds: Dataset, scores: np.ndarray) -> Dataset:
    """The rows with their n scores as the column `scar_score`, float32, null where there is none."""
    return ds.add_column(SCORE_COLUMN, score_column(scores).to_pylist(), feature=Value("float32"))
