"""Apply curation steps to datasets, and give a reason for each dropped row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..files import open_shards
from ..rows.pairs import PairReader, RowPairs
from ..rows.source import check_dataset, rows_of, rows_of_shard
from ..scoring.scorer import SCORE_COLUMN
from .contamination import Contamination
from .row_step import Step
from .texts import batches_of

Columns = Mapping[str, str] | Sequence[str] | None
Formatting = Callable[[dict[str, Any]], Any] | None


class Curation:
    """
    Applies several steps in order, each to the rows that earlier steps kept. Place steps that choose among rows
    ([`ExactDuplicates`], [`NearDuplicates`]) after steps that judge each row separately.

    Args:
        steps (`Sequence[Step]`): the steps in order.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)

    def settings(self) -> list[dict[str, Any]]:
        """Return the settings of each step that determine the result, for a manifest (`list[dict]`)."""
        return [step.settings() for step in self.steps]

    def add(self, rows: Iterable[RowPairs]) -> None:
        """Add rows (`Iterable[RowPairs]`), read a thousand at a time; numbering continues."""
        for batch in batches_of(rows):
            for step in self.steps:
                step.add(batch)

    def dropped(self, scores: np.ndarray | None = None) -> dict[int, str]:
        """
        Return the rows to drop.

        Args:
            scores (`np.ndarray` of shape `(n,)`, *optional*):
                NaN for missing scores. The best-scored of duplicate rows is kept; without scores, the earliest.

        Returns:
            `dict[int, str]`: reasons by row number, ascending; each reason is that of the first step that drops the row.

        Raises:
            `ValueError`: if the number of scores differs from the number of rows.
        """
        dropped: dict[int, str] = {}
        for step in self.steps:
            dropped |= step.dropped(scores, dropped)
        return dict(sorted(dropped.items()))


@dataclass
class Curated:
    """
    The result of curating a dataset.

    Args:
        dataset ([`~datasets.Dataset`]): the remaining rows in their original order, with all columns.
        dropped (`dict[int, str]`): reasons of the dropped rows by row number in the input, ascending.
    """

    dataset: Dataset
    dropped: dict[int, str] = field(default_factory=dict)


def curate(
    ds: Dataset,
    steps: Sequence[Step],
    *,
    scores: str | Sequence[float] | None = None,
    columns: Columns = None,
    turn: str = "first",
    formatting_func: Formatting = None,
) -> Curated:
    """
    Drop rows with one or more steps, each applied to the rows that earlier steps kept. Rows without a readable instruction
    and response are kept: scoring skips and reports them.

    Args:
        ds ([`~datasets.Dataset`]): the rows, in any format that [`~scar_hf.rows.pairs.PairReader`] supports.
        steps (`Sequence[Step]`): steps such as [`Languages`], [`Contamination`], [`ExactDuplicates`] and [`NearDuplicates`].
        scores (`str` or `Sequence[float]`, *optional*):
            Name of a column with scores, or one score per row: the best-scored of duplicate rows is kept, on ties the
            earliest. By default the column `scar_score` if the data has it; without scores, the earliest row is kept.
        columns, turn, formatting_func: see [`~scar_hf.rows.pairs.PairReader`].

    Returns:
        [`Curated`]: the remaining rows, and reasons such as "duplicate of row 17", "near-duplicate of row 17 (Jaccard 0.83)"
        or "language: de (0.98)".

    Raises:
        `ValueError`: if the columns match no format, or the scores are not one number per row.
        `TypeError`: if `ds` is not a [`~datasets.Dataset`].

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from scar_hf.curation import ExactDuplicates, Refusals, curate

    >>> responses = ["A plant.", "I'm sorry, but I can't help with that.", "A plant."]
    >>> ds = Dataset.from_dict({"instruction": ["What is moss?"] * 3, "response": responses})
    >>> curated = curate(ds, [Refusals(), ExactDuplicates()])
    >>> len(curated.dataset), sorted(curated.dropped)
    (1, [1, 2])
    >>> curated.dropped[2]
    'duplicate of row 0'
    ```
    """
    check_dataset(ds, "Curation")
    curation = Curation([step.fresh() for step in steps])
    numbers = _numbers(ds, scores)
    curation.add(rows_of(ds, PairReader(columns, turn, formatting_func)))
    dropped = curation.dropped(numbers)
    return Curated(ds.select(np.setdiff1d(np.arange(len(ds)), np.fromiter(dropped, np.int64, len(dropped)))), dropped)


def contamination_of(evaluation: Dataset | Mapping[str, Dataset], *, columns: Columns = None, **settings: Any) -> Contamination:
    """
    Create a step that drops rows that overlap with evaluation sets.

    Args:
        evaluation ([`~datasets.Dataset`] or `Mapping[str, Dataset]`): one set, or several by name.
        columns (`dict` or `tuple`, *optional*): columns of the evaluation sets; see [`~scar_hf.rows.pairs.PairReader`].
        settings: `ngram`, `max_rows` and `on`; see [`Contamination`].

    Returns:
        [`Contamination`].

    Raises:
        `ValueError`: if a setting is out of range or the evaluation sets have no readable row.

    Example:

    ```python
    >>> clean = curate(ds, [contamination_of({"gsm8k": load_dataset("openai/gsm8k", "main", split="test")})])
    ```
    """
    sets = (
        evaluation if isinstance(evaluation, Mapping) else {str(getattr(evaluation, "split", None) or "evaluation"): evaluation}
    )
    for one in sets.values():
        check_dataset(one, "Curation")
    reader = PairReader(columns)
    return Contamination({name: rows_of(one, reader) for name, one in sets.items()}, **settings)


def contamination_of_files(paths: Sequence[str]) -> Contamination:
    """Create the step of [`contamination_of`] from files, folders, or datasets on the Hub."""
    # Reasons name the set without its path, because they are published with the selection.
    names = [Path(path).name if Path(path).exists() else path for path in paths]
    names = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]
    shards = {name: open_shards(path) for name, path in zip(names, paths, strict=True)}
    reader = PairReader()
    return Contamination({name: (row for s in found for row in rows_of_shard(s, reader)) for name, found in shards.items()})


def _numbers(ds: Dataset, scores: str | Sequence[float] | None) -> np.ndarray | None:
    """Return the scores as an array, NaN for missing ones; `None` without scores."""
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
