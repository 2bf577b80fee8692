"""Apply curation steps to datasets: rows kept, and reasons for the rows dropped."""

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
    Several steps over the same rows, each over what those before it left: give those that choose among rows,
    [`ExactDuplicates`] and [`NearDuplicates`], after those that judge each row by itself.

    Args:
        steps (`Sequence[Step]`): the steps in order.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)

    def settings(self) -> list[dict[str, Any]]:
        """The settings of each step that determine the result, for a manifest."""
        return [step.settings() for step in self.steps]

    def add(self, rows: Iterable[RowPairs]) -> None:
        """Add rows (`Iterable[RowPairs]`), a thousand at a time; numbering continues."""
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
    The result of curating a dataset.

    Args:
        dataset ([`~datasets.Dataset`]): the rows kept, in their order, all columns.
        dropped (`dict[int, str]`): reason of each dropped row, by row number in the input, ascending.
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
    Leave out rows by one or more steps, each over the rows that those before it left. A row without a readable instruction and
    response stays: scoring skips it, and says so.

    Args:
        ds ([`~datasets.Dataset`]): the rows, of any format that [`~scar_hf.rows.pairs.PairReader`] knows.
        steps (`Sequence[Step]`): such as [`Languages`], [`Contamination`], [`ExactDuplicates`] and [`NearDuplicates`].
        scores (`str` or `Sequence[float]`, *optional*):
            Which of duplicates stays: the best by this column, or by these numbers, one a row; of equally good ones the
            earliest. By default the column `scar_score` where the data has it, else the earliest row stays.
        columns, turn, formatting_func: as for [`~scar_hf.rows.pairs.PairReader`].

    Returns:
        [`Curated`]: with reasons such as "duplicate of row 17", "near-duplicate of row 17 (Jaccard 0.83)", "language: de
        (0.98)".

    Raises:
        `ValueError`: if the columns fit no format, or the scores are not one number a row.
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
    Make a step that drops rows that overlap with evaluation sets.

    Args:
        evaluation ([`~datasets.Dataset`] or `Mapping[str, Dataset]`): one set, or several by their names.
        columns (`dict` or `tuple`, *optional*): as for [`~scar_hf.rows.pairs.PairReader`], of the evaluation sets.
        settings: `ngram`, `max_rows` and `on`, as for [`Contamination`].

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
    """The same for files, folders, or datasets on the Hub."""
    # Reasons contain the name of the set and not its path, because they are published with the selection.
    names = [Path(path).name if Path(path).exists() else path for path in paths]
    names = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]
    shards = {name: open_shards(path) for name, path in zip(names, paths, strict=True)}
    reader = PairReader()
    return Contamination({name: (row for s in found for row in rows_of_shard(s, reader)) for name, found in shards.items()})


def _numbers(ds: Dataset, scores: str | Sequence[float] | None) -> np.ndarray | None:
    """The scores as an array, NaN for missing ones."""
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
