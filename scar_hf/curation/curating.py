"""Datasets -> the rows kept and, of the others, why not."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from datasets import Dataset, DatasetDict

from ..dataset_scoring import rows_of
from ..pairs import PairReader, RowPairs
from ..scoring import SCORE_COLUMN
from .contamination import Contamination
from .duplicates import ExactDuplicates
from .languages import Languages
from .near_duplicates import NearDuplicates
from .texts import batches_of

Columns = Mapping[str, str] | Sequence[str] | None
Formatting = Callable[[dict[str, Any]], Any] | None


class Step(Protocol):
    """What [`Curation`] takes, such as [`Languages`], [`Contamination`], [`Refusals`] and [`NearDuplicates`]."""

    def __len__(self) -> int: ...

    def settings(self) -> dict[str, Any]: ...

    def add(self, rows: Iterable[RowPairs]) -> None: ...

    def dropped(self, scores: np.ndarray | None = None, without: Collection[int] = ()) -> dict[int, str]: ...


class Curation:
    """
    Several steps over the same rows, each over what those before it left: give those that choose among rows,
    [`ExactDuplicates`] and [`NearDuplicates`], after those that judge each row by itself.

    Args:
        steps (`Sequence[Step]`): in their order.

    Example:

    ```python
    >>> curation = Curation([Languages(["en"]), ExactDuplicates(), NearDuplicates(0.8)])
    >>> curation.add(rows)
    >>> curation.dropped(scores)
    {3: 'near-duplicate of row 17 (Jaccard 0.83)', 8: 'language: de (0.98)'}
    ```
    """

    def __init__(self, steps: Sequence[Step]):
        self.steps = list(steps)

    def settings(self) -> list[dict[str, Any]]:
        """What decides the result, step by step, for a manifest."""
        return [step.settings() for step in self.steps]

    def add(self, rows: Iterable[RowPairs]) -> None:
        """Take in more rows (`Iterable[RowPairs]`), numbered on from those before, a thousand at a time."""
        for batch in batches_of(rows):
            for step in self.steps:
                step.add(batch)

    def dropped(self, scores: np.ndarray | None = None) -> dict[int, str]:
        """
        Say which rows to drop.

        Args:
            scores (`np.ndarray` of shape `(n,)`, *optional*):
                NaN where a row has none. Of duplicates the best-scored row stays; without scores the earliest.

        Returns:
            `dict[int, str]`: the reason by the row's number, ascending; of several steps the first one's.

        Raises:
            `ValueError`: if there is not one score for each row.
        """
        dropped: dict[int, str] = {}
        for step in self.steps:
            dropped |= step.dropped(scores, dropped)
        return dict(sorted(dropped.items()))


@dataclass
class Curated:
    """
    What curating left of a dataset.

    Args:
        dataset ([`~datasets.Dataset`]): the rows kept, in their order, all columns.
        dropped (`dict[int, str]`): why each other row was dropped, by its number in the input, ascending.
    """

    dataset: Dataset
    dropped: dict[int, str] = field(default_factory=dict)


def drop_duplicates(
    ds: Dataset,
    *,
    scores: str | Sequence[float] | None = None,
    columns: Columns = None,
    turn: str = "first",
    formatting_func: Formatting = None,
) -> Curated:
    """
    Drop rows whose instruction and response another row has to the letter.

    Args:
        ds ([`~datasets.Dataset`]): the rows, of any format that [`~scar_hf.pairs.PairReader`] knows. A row without a readable
            instruction and response stays, here and in the functions below: scoring skips it, and says so.
        scores (`str` or `Sequence[float]`, *optional*):
            Which of equal rows stays: the best by this column, or by these numbers, one a row; of equally good ones the
            earliest. By default the column `scar_score` where the data has it, else the earliest row stays.
        columns, turn, formatting_func: as for [`~scar_hf.pairs.PairReader`].

    Returns:
        [`Curated`]: with reasons such as "duplicate of row 17".

    Raises:
        `ValueError`: if the columns fit no format, or the scores are not one number a row.
        `TypeError`: if `ds` is no [`~datasets.Dataset`].

    Example:

    ```python
    >>> from scar_hf.curation import drop_duplicates

    >>> unique = drop_duplicates(ds)
    >>> len(unique.dataset), unique.dropped
    (998, {17: 'duplicate of row 3', 204: 'duplicate of row 3'})
    ```
    """
    return _curated(ds, ExactDuplicates(), PairReader(columns, turn, formatting_func), scores)


def drop_near_duplicates(
    ds: Dataset,
    *,
    threshold: float = 0.8,
    scores: str | Sequence[float] | None = None,
    num_perm: int = 256,
    ngram: int = 3,
    seed: int = 0,
    on: str = "both",
    response_threshold: float | None = None,
    columns: Columns = None,
    turn: str = "first",
    formatting_func: Formatting = None,
) -> Curated:
    """
    Drop rows that say nearly the same as a better-scored one.

    Args:
        ds, scores, columns, turn, formatting_func: as for [`drop_duplicates`].
        threshold, num_perm, ngram, seed, on, response_threshold: as for [`NearDuplicates`].

    Returns:
        [`Curated`]: with reasons such as "near-duplicate of row 17 (Jaccard 0.83)". "through others" stands there where a
        row is like others of its group, and only they, or others again, like the row that stays.

    Raises:
        `ImportError`: without `pip install "scar-hf[curation]"`.
        `ValueError`: as [`drop_duplicates`], and if a setting is out of range.

    Example:

    ```python
    >>> from scar_hf import scar_rank
    >>> from scar_hf.curation import drop_near_duplicates

    >>> curated = drop_near_duplicates(scar_rank(ds).dataset, threshold=0.7)
    >>> SFTTrainer(model, train_dataset=curated.dataset)
    ```
    """
    settings = {"num_perm": num_perm, "ngram": ngram, "seed": seed}
    finder = NearDuplicates(threshold, on=on, response_threshold=response_threshold, **settings)
    return _curated(ds, finder, PairReader(columns, turn, formatting_func), scores)


def drop_contaminated(
    ds: Dataset,
    evaluation: Dataset | Mapping[str, Dataset],
    *,
    ngram: int = 13,
    max_rows: int = 10,
    on: str = "both",
    evaluation_columns: Columns = None,
    columns: Columns = None,
    turn: str = "first",
    formatting_func: Formatting = None,
) -> Curated:
    """
    Drop rows that an evaluation set has too, so that what is measured on it is not what was learnt by heart.

    Args:
        ds, columns, turn, formatting_func: as for [`drop_duplicates`].
        evaluation ([`~datasets.Dataset`] or `Mapping[str, Dataset]`): one set, or several by their names.
        ngram, max_rows, on: as for [`Contamination`].
        evaluation_columns (`dict` or `tuple`, *optional*):
            As `columns`, of the evaluation sets. By default their format is known by the names of their columns.

    Returns:
        [`Curated`]: with reasons such as "in the evaluation set: row 12 of test, 13-gram '...' (1 of 9)".

    Raises:
        `ValueError`: as [`drop_duplicates`], and if a setting is out of range or the evaluation sets have no readable row.

    Example:

    ```python
    >>> from scar_hf.curation import drop_contaminated

    >>> clean = drop_contaminated(ds, {"gsm8k": load_dataset("openai/gsm8k", "main", split="test")})
    ```
    """
    sets = (
        evaluation if isinstance(evaluation, Mapping) else {str(getattr(evaluation, "split", None) or "evaluation"): evaluation}
    )
    for one in sets.values():
        _check_dataset(one)
    reader = PairReader(evaluation_columns)
    finder = Contamination({name: rows_of(one, reader) for name, one in sets.items()}, ngram=ngram, max_rows=max_rows, on=on)
    return _curated(ds, finder, PairReader(columns, turn, formatting_func), None)


def keep_languages(
    ds: Dataset,
    languages: Sequence[str],
    *,
    confidence: float = 0.8,
    letters: int = 20,
    columns: Columns = None,
    turn: str = "first",
    formatting_func: Formatting = None,
) -> Curated:
    """
    Drop rows in other languages than these. Code, formulas, short answers and names have none, and stay.

    Args:
        ds, columns, turn, formatting_func: as for [`drop_duplicates`].
        languages, confidence, letters: as for [`Languages`].

    Returns:
        [`Curated`]: with reasons such as "language: de (0.98)".

    Raises:
        `ImportError`: without `pip install "scar-hf[curation]"`.
        `ValueError`: as [`drop_duplicates`], and if a setting is out of range or a language unknown.

    Example:

    ```python
    >>> from scar_hf.curation import keep_languages

    >>> english = keep_languages(ds, ["en"]).dataset
    ```
    """
    finder = Languages(languages, confidence=confidence, letters=letters)
    return _curated(ds, finder, PairReader(columns, turn, formatting_func), None)


def _curated(ds: Dataset, step: Step, reader: PairReader, scores: str | Sequence[float] | None) -> Curated:
    _check_dataset(ds)
    numbers = _numbers(ds, scores)
    step.add(rows_of(ds, reader))
    dropped = step.dropped(numbers)
    return Curated(ds.select(np.setdiff1d(np.arange(len(ds)), np.fromiter(dropped, np.int64, len(dropped)))), dropped)


def _numbers(ds: Dataset, scores: str | Sequence[float] | None) -> np.ndarray | None:
    """The scores as an array, NaN where there is none."""
    if scores is None and SCORE_COLUMN in ds.column_names:
        scores = SCORE_COLUMN
    if isinstance(scores, str):
        if scores not in ds.column_names:
            raise ValueError(f"`scores` names the column {scores!r}, but the data has the columns {ds.column_names}.")
        scores = ds.with_format(None)[scores][:]
    if scores is None:
        return None
    try:
        return np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`scores` must be numbers, one a row, and null or NaN where there is none: {error}.") from error


def _check_dataset(ds: Any) -> None:
    if isinstance(ds, DatasetDict):
        raise TypeError(f"Curation takes one datasets.Dataset, got a DatasetDict: pass one of its splits, {list(ds)}.")
    if not isinstance(ds, Dataset):
        raise TypeError(f"Curation takes a datasets.Dataset, got {type(ds).__name__}.")
