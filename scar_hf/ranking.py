"""Datasets -> the rows kept."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict, Value
from tqdm.auto import tqdm

from .loading import BUNDLED_RANKER
from .pairs import PairReader, RowPairs
from .provenance import dataset_source, describe_run, describe_selection
from .scoring import SCORE_COLUMN, ScarScorer, score_column
from .selection import (
    Explainer,
    ScoredRows,
    check_k,
    order_of,
    report_skipped,
    score_rows,
    threshold_of,
    top_indices,
)

_READ_ROWS = 1000
DatasetOrDict = TypeVar("DatasetOrDict", Dataset, DatasetDict)


@dataclass
class ScarRanking:
    """
    An instruction set with a score for each row.

    Args:
        dataset ([`~datasets.Dataset`]): n rows, all columns of the input, plus `scar_score`.
        scores (`np.ndarray` of shape `(n,)`, float32): the scores in the order of the rows; NaN where a row was skipped.
        skipped (`dict[int, str]`): why a row has no score, by its number.
        cut (`np.ndarray` of shape `(n,)`, bool): whether a text of the row was longer than `max_length`, and cut.
        settings (`dict`): what was scored with what.
        source (`tuple(str, list[dict])`): the data's name, and what identifies it.
    """

    dataset: Dataset
    scores: np.ndarray
    skipped: dict[int, str] = field(default_factory=dict)
    cut: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))
    settings: dict[str, Any] = field(default_factory=dict)
    source: tuple[str, list[dict[str, Any]]] = ("a dataset in memory", [])

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
        return top_indices(self.scores, k)

    def order(self) -> np.ndarray:
        """Numbers of all rows from best to worst, ties in the order of the input, rows without a score last."""
        return order_of(self.scores)

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
        return threshold_of(self.scores, self.indices(k))

    def explained(self, k: float) -> Dataset:
        """
        All rows with `scar_rank` (1 is the best), `scar_decision` ("kept", "dropped" or "skipped") and `scar_reason`.

        Args:
            k (`float` or `int`): as for [`ScarRanking.indices`].

        Returns:
            [`~datasets.Dataset`]: n rows in their order.

        Raises:
            `ValueError`: if `k` is out of range, or the data has such a column.
        """
        ds = self.dataset
        explainer = Explainer(self._scored(), self.indices(k), self.settings.get("max_length") or 0)
        for name, values in explainer.columns(0, len(self)).items():
            if name in ds.column_names:
                raise ValueError(f"The data already has a column {name!r}. Remove it first.")
            feature = Value("int64") if name == "scar_rank" else Value("string")
            ds = ds.add_column(name, values.to_pylist(), feature=feature)
        return ds

    def manifest(self, k: float) -> dict[str, Any]:
        """
        Say what a selection was made of and with, as `manifest.json` has it beside an output of the command line.

        Args:
            k (`float` or `int`): as for [`ScarRanking.indices`].

        Returns:
            `dict`: data, ranker, settings, versions, counts and threshold; it holds nothing of the rows' texts.
        """
        run = describe_run(*self.source, None, self.settings, {"k": k})
        return run | {"selection": describe_selection(self._scored(), self.indices(k))}

    def _scored(self) -> ScoredRows:
        cut = self.cut if len(self.cut) else np.zeros(len(self), dtype=bool)
        return ScoredRows(self.scores, cut, np.empty(0, dtype=np.uint64), self.skipped)

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
    dtype: str = "auto",
    max_length: int | None = None,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    turn: str = "first",
    formatting: Callable[[dict[str, Any]], Any] | None = None,
    strict: bool = False,
    overwrite: bool = False,
    cache: bool = True,
    progress: bool = True,
    **kwargs,
) -> ScarRanking:
    """
    Score every row of an instruction set once.

    Args:
        ds ([`~datasets.Dataset`]): the rows, of any format that [`~scar_hf.pairs.PairReader`] knows.
        model (`str` or [`ScarScorer`], *optional*, defaults to `"scar-ranker"`):
            The bundled ranker by its name, a folder, a Hub id, or a scorer, whose own settings then hold.
        device, dtype, max_length, columns, turn, formatting: as for [`ScarScorer`].
        strict (`bool`, *optional*, defaults to `False`):
            Whether a row that cannot be scored is an error. By default it is left unscored, never selected, and counted.
        overwrite (`bool`, *optional*, defaults to `False`): whether a column `scar_score` may be replaced.
        cache (`bool`, *optional*, defaults to `True`):
            Whether scores are kept on disk, by the content of the rows and the ranker, and found again.
        progress (`bool`, *optional*, defaults to `True`): whether to show a bar with rows per second.
        kwargs: passed to [`ScarScorer`].

    Returns:
        [`ScarRanking`].

    Raises:
        `ValueError`: if the columns fit no format, or `scar_score` exists.

    Example:

    ```python
    >>> from datasets import load_dataset
    >>> from scar_hf import scar_rank

    >>> ranking = scar_rank(load_dataset("databricks/databricks-dolly-15k", split="train"))
    >>> best, threshold = ranking.top(0.1), ranking.threshold(0.1)
    ```
    """
    _check_dataset(ds)
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
            formatting=formatting,
            strict=strict,
            **kwargs,
        )
    scored = score_dataset(ds, scorer, cache=cache, progress=progress)
    source = dataset_source(ds, sha256(scored.hashes.tobytes()).hexdigest())
    if SCORE_COLUMN in ds.column_names:
        ds = ds.remove_columns(SCORE_COLUMN)
    ds = ds.add_column(
        SCORE_COLUMN, score_column(scored.scores).to_pylist() if scored.skipped else scored.scores, feature=Value("float32")
    )
    return ScarRanking(ds, scored.scores, scored.skipped, scored.cut, scorer.settings(), source)


def scar_select(ds: DatasetOrDict, k: float = 0.1, **kwargs) -> DatasetOrDict:
    """
    Keep the best rows of an instruction set: `scar_rank(ds).top(k)`.

    Args:
        ds ([`~datasets.Dataset`] or [`~datasets.DatasetDict`]): the rows, as for [`scar_rank`]; of several splits each
            by itself.
        k (`float` or `int`, *optional*, defaults to 0.1):
            A float in (0, 1] is a share, floor(k·n) and at least 1; an int >= 1 is a count.
        kwargs: as for [`scar_rank`].

    Returns:
        [`~datasets.Dataset`] or [`~datasets.DatasetDict`]: exactly so many rows in their original order, all columns,
        plus `scar_score`.

    Raises:
        `ValueError`: if `k` is out of range, and as [`scar_rank`].

    Example:

    ```python
    >>> SFTTrainer(model, train_dataset=scar_select(ds, k=0.1))
    ```
    """
    check_k(k)
    if isinstance(ds, DatasetDict):
        return DatasetDict({name: scar_select(split, k, **kwargs) for name, split in ds.items()})
    return scar_rank(ds, **kwargs).top(k)


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
    kept = scorer.cache() if cache and scorer.model_name != "in-memory" else None
    with tqdm(total=len(ds), desc="Scoring", unit="row", disable=not progress) as bar:
        scored = score_rows(scorer, rows_of(ds, scorer.reader), kept, bar)
    if len(ds):
        report_skipped(scored, scorer.read_length)
    return scored


def rows_of(ds: Dataset, reader: PairReader) -> Iterator[RowPairs]:
    """Read all rows, a slice at a time, whatever output format is set on the dataset."""
    if not ds.column_names:  # a file without rows has no columns that could be wrong
        return
    needed = reader.needed(ds.column_names)
    plain = ds.with_format(None) if needed is None else ds.with_format(None).select_columns(needed)
    for start in range(0, len(ds), _READ_ROWS):
        yield from reader.read(plain[start : start + _READ_ROWS])


def _check_dataset(ds: Any) -> None:
    if isinstance(ds, Dataset):
        return
    if isinstance(ds, DatasetDict):
        raise TypeError(f"scar_rank takes one datasets.Dataset, got a DatasetDict: pass one of its splits, {list(ds)}.")
    if isinstance(ds, (IterableDataset, IterableDatasetDict)):
        raise TypeError(
            "scar_rank takes a datasets.Dataset, got a stream, of which no best share is known before its end. Filter it by "
            "a score, ds.filter(scar_filter(threshold=...), batched=True), or load it with streaming=False."
        )
    raise TypeError(f"scar_rank takes a datasets.Dataset, got {type(ds).__name__}.")
