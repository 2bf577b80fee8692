"""Datasets -> scores: their rows a slice at a time, whatever output format is set on them."""

from collections.abc import Iterator

import numpy as np
from datasets import Dataset, Value
from tqdm.auto import tqdm

from .pairs import PairReader, RowPairs
from .scoring import SCORE_COLUMN, ScarScorer, score_column
from .selection import ScoredRows, report_skipped, score_rows

_READ_ROWS = 1000


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
        scored = score_rows(scorer, rows_of(ds, scorer.reader), kept, bar)
    if len(ds):
        report_skipped(scored, scorer.read_length)
    return scored


def with_scores(ds: Dataset, scores: np.ndarray) -> Dataset:
    """The rows with their n scores as the column `scar_score`, float32, null where there is none."""
    return ds.add_column(SCORE_COLUMN, score_column(scores).to_pylist(), feature=Value("float32"))


def rows_of(ds: Dataset, reader: PairReader) -> Iterator[RowPairs]:
    """Read all rows, a slice at a time, whatever output format is set on the dataset."""
    if not ds.column_names:  # a file without rows has no columns that could be wrong
        return
    needed = reader.needed(ds.column_names)
    plain = ds.with_format(None) if needed is None else ds.with_format(None).select_columns(needed)
    for start in range(0, len(ds), _READ_ROWS):
        yield from reader.read(plain[start : start + _READ_ROWS])
