"""Scores -> the rows kept."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Value

from ._version import __version__
from .scoring import BUNDLED_RANKER, SCORE_COLUMN, ScarScorer, check_pairs, pair_problem

logger = logging.getLogger(__name__)
_READ_ROWS = 10_000


@dataclass
class ScarRanking:
    """
    An instruction set with a score for each row.

    Args:
        dataset ([`~datasets.Dataset`]): n rows, all columns of the input, plus `scar_score`.
        scores (`np.ndarray` of shape `(n,)`, float32): the scores in the order of the rows; NaN where a row was skipped.
        skipped (`dict[int, str]`): why a row has no score, by its number.
        settings (`dict`): what was scored with what.
    """

    dataset: Dataset
    scores: np.ndarray
    skipped: dict[int, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def indices(self, k: float) -> np.ndarray:
        """
        Numbers of the best rows, ascending. Ties go to the earlier row.

        Args:
            k (`float` or `int`): a float in (0, 1] is a share, floor(k·n) and at least 1; an int >= 1 is a count.

        Returns:
            `np.ndarray`: int64; fewer than asked for only where fewer rows have a score.

        Raises:
            `ValueError`: if `k` is out of range.
        """
        count = min(count_of(k, len(self)), len(self) - int(np.isnan(self.scores).sum()))
        return np.sort(self.order()[:count])

    def order(self) -> np.ndarray:
        """Numbers of all rows from best to worst, ties in the order of the input, rows without a score last."""
        return np.argsort(-self.scores, kind="stable")

    def top(self, k: float) -> Dataset:
        """The best rows in their original order; `k` as for [`ScarRanking.indices`]."""
        return self.dataset.select(self.indices(k))

    def above(self, threshold: float) -> Dataset:
        """The rows that score at least `threshold`, in their original order."""
        return self.dataset.select(np.flatnonzero(self.scores >= threshold))

    def dropped(self, k: float) -> Dataset:
        """The rows that [`ScarRanking.top`] leaves out, in their original order, those without a score included."""
        return self.dataset.select(np.setdiff1d(np.arange(len(self)), self.indices(k)))

    def threshold(self, k: float) -> float:
        """The lowest score that [`ScarRanking.top`] keeps; NaN where there is nothing to keep."""
        kept = self.indices(k)
        return float(self.scores[kept].min()) if len(kept) else math.nan

    def save(self, folder: str | Path) -> None:
        """
        Save the scored rows (`Dataset.save_to_disk`) with `ranking.json`, the settings and the skipped rows.

        Args:
            folder (`str` or `Path`): where to; made if it does not exist.
        """
        self.dataset.save_to_disk(str(folder))
        report = {**self.settings, "rows": len(self), "skipped": {str(row): why for row, why in self.skipped.items()}}
        (Path(folder) / "ranking.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def scar_rank(
    ds: Dataset,
    *,
    model: str | ScarScorer = BUNDLED_RANKER,
    device: str | None = None,
    dtype: str = "float32",
    max_length: int | None = None,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    turn: str = "first",
    skip_invalid: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **kwargs,
) -> ScarRanking:
    """
    Score every row of an instruction set once.

    Args:
        ds ([`~datasets.Dataset`]): the rows, of any format that [`~scar_hf.pairs.PairReader`] knows.
        model (`str` or [`ScarScorer`], *optional*, defaults to `"scar-ranker"`):
            The bundled ranker by its name, a folder, a Hub id, or a scorer, whose own settings then hold.
        device, dtype, max_length, columns, turn: as for [`ScarScorer`].
        skip_invalid (`bool`, *optional*, defaults to `False`):
            Leave rows with a missing or empty response unscored, never selected and counted, instead of raising.
        overwrite (`bool`, *optional*, defaults to `False`): whether a column `scar_score` may be replaced.
        progress (`bool`, *optional*, defaults to `True`): whether to show a bar with rows per second.
        kwargs: passed to [`ScarScorer`].

    Returns:
        [`ScarRanking`].

    Raises:
        `ValueError`: if the columns fit no format, `scar_score` exists, or rows cannot be scored.

    Example:

    ```python
    >>> from datasets import load_dataset
    >>> from scar_hf import scar_rank

    >>> ranking = scar_rank(load_dataset("databricks/databricks-dolly-15k", split="train"))
    >>> best, threshold = ranking.top(0.1), ranking.threshold(0.1)
    ```
    """
    if not isinstance(ds, Dataset):
        raise TypeError(f"scar_rank takes a datasets.Dataset, got {type(ds).__name__}. Of a DatasetDict pass one split.")
    if SCORE_COLUMN in ds.column_names and not overwrite:
        raise ValueError(
            f"The data already has a column {SCORE_COLUMN!r}. Remove it, or pass overwrite=True (--overwrite-scores on the "
            "command line) to score anew."
        )
    if isinstance(model, ScarScorer):
        scorer = model
    else:
        scorer = ScarScorer(
            model,
            device=device,
            dtype=dtype,
            max_length=max_length,
            columns=columns,
            turn=turn,
            **kwargs,
        )
    instructions, responses = _read_pairs(ds, scorer)
    skipped = {}
    if skip_invalid:
        pairs = enumerate(zip(instructions, responses, strict=True))
        skipped = {i: why for i, pair in pairs if (why := pair_problem(*pair)) is not None}
    else:
        check_pairs(instructions, responses)
    usable = [i for i in range(len(ds)) if i not in skipped]
    scores = np.full(len(ds), np.nan, dtype=np.float32)
    scores[usable] = scorer.score([instructions[i] for i in usable], [responses[i] for i in usable], progress=progress)
    if skipped:
        logger.warning("%d of %d rows have no score: %s", len(skipped), len(ds), "; ".join(sorted(set(skipped.values()))))
    if SCORE_COLUMN in ds.column_names:
        ds = ds.remove_columns(SCORE_COLUMN)
    # A missing score is null in the table: NaN would be read as a number.
    column = [None if math.isnan(score) else score for score in scores.tolist()] if skipped else scores
    scored = ds.add_column(SCORE_COLUMN, column, feature=Value("float32"))
    settings: dict[str, Any] = {
        "scar_hf": __version__,
        "model": scorer.model_name,
        "revision": scorer.revision,
        "dtype": str(scorer.dtype),
    }
    settings |= {"max_length": scorer.max_length, "columns": scorer.reader.columns, "turn": scorer.reader.turn}
    return ScarRanking(scored, scores, skipped, settings)


def scar_select(ds: Dataset, k: float = 0.1, **kwargs) -> Dataset:
    """
    Keep the best rows of an instruction set: `scar_rank(ds).top(k)`.

    Args:
        ds ([`~datasets.Dataset`]): the rows, as for [`scar_rank`].
        k (`float` or `int`, *optional*, defaults to 0.1):
            A float in (0, 1] is a share, floor(k·n) and at least 1; an int >= 1 is a count.
        kwargs: as for [`scar_rank`].

    Returns:
        [`~datasets.Dataset`]: exactly so many rows in their original order, all columns, plus `scar_score`.

    Raises:
        `ValueError`: if `k` is out of range, and as [`scar_rank`].

    Example:

    ```python
    >>> SFTTrainer(model, train_dataset=scar_select(ds, k=0.1))
    ```
    """
    count_of(k, 1 if isinstance(k, float) else 10**18)  # a wrong k shows before the scoring, not after it
    return scar_rank(ds, **kwargs).top(k)


def count_of(k: float, n: int) -> int:
    """
    How many of n rows `k` means.

    Args:
        k (`float` or `int`): a float in (0, 1] is a share, an int >= 1 a count.
        n (`int`): number of rows.

    Returns:
        `int`: floor(k·n) for a share, at least 1; never more than n.

    Raises:
        `ValueError`: if `k` is out of range or no number.
    """
    if isinstance(k, bool) or not isinstance(k, (int, float, np.integer, np.floating)):
        raise ValueError(f"`k` must be a share in (0, 1] or a count >= 1, got {k!r}.")
    if isinstance(k, (int, np.integer)):
        if k < 1:
            raise ValueError(f"`k` must be a share in (0, 1] or a count >= 1, got {k}.")
        return min(int(k), n)
    if not 0 < k <= 1:
        raise ValueError(f"`k` must be a share in (0, 1] or a count >= 1, got {k}. For a number of rows pass an int.")
    # The product in decimal, as the user wrote it: 0.29 * 100 is 28.999999999999996 in binary.
    return min(n, max(1, math.floor(round(float(k) * n, 9))))


def _read_pairs(ds: Dataset, scorer: ScarScorer) -> tuple[list[str | None], list[str | None]]:
    """Read all pairs, a slice of rows at a time, whatever output format is set on the dataset."""
    plain = ds.with_format(None)
    instructions: list[Any] = []
    responses: list[Any] = []
    if not len(ds) and ds.column_names:  # a file without rows has no columns that could be wrong
        scorer.reader.read_batch({name: [] for name in ds.column_names})
    for start in range(0, len(ds), _READ_ROWS):
        asked, answered = scorer.reader.read_batch(plain[start : start + _READ_ROWS])
        instructions += asked
        responses += answered
    return instructions, responses
