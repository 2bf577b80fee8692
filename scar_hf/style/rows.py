"""Measure the style of each row of an instruction set."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..progress import hidden
from ..rows.pairs import PairReader, RowPairs, reasons_in_words
from ..rows.source import check_dataset, rows_of
from .linguistic_form import FormReader
from .measures import SURPRISAL
from .surprisal import Surprisal, as_surprisal

logger = logging.getLogger(__name__)
# Fewer with a language model, to update the progress bar more often.
_ROWS_AT_ONCE, _ROWS_WITH_LM = 1000, 200


@dataclass
class StyleMeasures:
    """
    The style of n rows.

    Args:
        values (`dict[str, np.ndarray]`): by the names of [`~scar_hf.style.MEASURES`], each float64 of shape `(n,)`; NaN where
            undefined and where a row was skipped.
        rows (`int`): n.
        skipped (`dict[int, str]`): reasons why rows were not measured, by row number.
        notes (`list[str]`): notes on the values: measures left out, rows skipped or truncated.
        language (`str`): the language code.
        lm (`str`, *optional*): the language model that measured surprisal.
    """

    values: dict[str, np.ndarray]
    rows: int
    skipped: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    language: str = "en"
    lm: str | None = None

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def select(self, rows: Sequence[int] | np.ndarray) -> "StyleMeasures":
        """
        Return the measures of some rows, such as the rows kept, without measuring again.

        Args:
            rows (`Sequence[int]`): row numbers, or a mask of shape `(n,)`.

        Returns:
            [`StyleMeasures`].
        """
        picked = np.asarray(rows)
        numbers = np.flatnonzero(picked) if picked.dtype == bool else picked.astype(np.int64)
        skipped = {new: self.skipped[old] for new, old in enumerate(numbers.tolist()) if old in self.skipped}
        values = {name: values[numbers] for name, values in self.values.items()}
        return StyleMeasures(values, len(numbers), skipped, list(self.notes), self.language, self.lm)

    def to_dataset(self) -> Dataset:
        """Return the values as a [`~datasets.Dataset`] of n rows with one column per measure, null for missing values."""
        columns = {name: [None if np.isnan(v) else v for v in values.tolist()] for name, values in self.values.items()}
        return Dataset.from_dict(columns)


def style_measures(
    ds: Dataset,
    *,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    turn: str = "first",
    formatting_func: Callable[[dict[str, Any]], Any] | None = None,
    preference: str = "chosen",
    language: str = "en",
    lm: str | Path | PreTrainedModel | Surprisal | None = None,
    progress: bool = True,
    **kwargs: Any,
) -> StyleMeasures:
    """
    Measure the style of every row of an instruction set.

    Args:
        ds ([`~datasets.Dataset`]): n rows, in any format that [`~scar_hf.rows.pairs.PairReader`] reads.
        columns, turn, formatting_func, preference: as for [`~scar_hf.ScarScorer`]. With `turn="all"`, linguistic form
            covers all responses of a conversation together, and surprisal is the mean over them.
        language (`str`, *optional*, defaults to `"en"`): language of the responses; see [`linguistic_form`].
        lm (`str`, `Path`, `PreTrainedModel` or [`Surprisal`], *optional*):
            The language model that measures instructional surprisal; without it, surprisal is not measured.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.
        kwargs: passed to [`Surprisal`].

    Returns:
        [`StyleMeasures`].

    Raises:
        `TypeError`: if `ds` is not a [`~datasets.Dataset`].
        `ValueError`: if the columns match no format, and as [`Surprisal.measure`].
    """
    check_dataset(ds, "style_measures")
    if lm is None and kwargs:
        raise ValueError(f"The settings {sorted(kwargs)} are for a language model: pass `lm`.")
    form = FormReader(language)
    surprisal = None if lm is None else as_surprisal(lm, **kwargs)
    names = (*form.names, *(SURPRISAL if surprisal is not None else ()))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    skipped: dict[int, str] = {}
    cut, number = 0, 0
    at_once = _ROWS_AT_ONCE if surprisal is None else _ROWS_WITH_LM
    stream = rows_of(ds, PairReader(columns, turn, formatting_func, preference))
    with tqdm(total=len(ds), desc="Measuring style", unit="row", disable=hidden(progress)) as bar:
        while rows := list(islice(stream, at_once)):
            skipped |= {number + i: row.problem for i, row in enumerate(rows) if row.problem is not None}
            good = np.array([i for i, row in enumerate(rows) if row.problem is None], dtype=np.int64)
            measured = form.measure(rows[i].response for i in good) or {}
            if surprisal is not None:
                found, cut_here = _surprisal_of([rows[i] for i in good], surprisal)
                measured, cut = measured | found, cut + cut_here
            for name in names:
                values = np.full(len(rows), np.nan)
                if len(good):
                    values[good] = measured[name]
                parts[name].append(values)
            number += len(rows)
            bar.update(len(rows))
    notes = list(form.notes)
    if skipped:
        notes.append(f"{len(skipped):,} of {number:,} rows were not measured: {reasons_in_words(skipped)}.")
    if surprisal is not None and cut:
        notes.append(f"Of {cut:,} rows the language model read only the beginning ({surprisal.max_length} tokens).")
    for note in notes:
        logger.warning("%s", note)
    joined = {name: np.concatenate(values) if values else np.empty(0) for name, values in parts.items()}
    return StyleMeasures(joined, number, skipped, notes, language, None if surprisal is None else surprisal.name)


def _surprisal_of(rows: list[RowPairs], surprisal: Surprisal) -> tuple[dict[str, np.ndarray], int]:
    """Return the surprisal of each row, the mean over its pairs, and the number of truncated rows."""
    pairs = [pair for row in rows for pair in row.pairs]
    found = surprisal.measure([x for x, _ in pairs], [y for _, y in pairs], log=False)
    row_of = np.repeat(np.arange(len(rows)), [len(row.pairs) for row in rows])
    per_row = np.bincount(row_of, minlength=len(rows))
    values = {name: np.bincount(row_of, found[name], len(rows)) / per_row for name in SURPRISAL}
    return values, len(np.unique(row_of[found["truncated"]]))
