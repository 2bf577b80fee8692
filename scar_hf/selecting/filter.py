"""Selection as a predicate: what `ds.filter` takes."""

import itertools
import logging
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from ..curation.languages import report_languages, score_watched
from ..files import columns_of
from ..progress import hidden
from ..rows._callers import calling_dataset, calling_numbers, calling_stream, from_the_start, is_fingerprinting
from ..rows.batches import as_columns, plain
from ..rows.pairs import RowPairs, check_rows
from ..rows.source import RowSource
from ..scoring.chunks import cut_chunks, short_hash
from ..scoring.scorer import SCORE_COLUMN, ScarScorer
from ..scoring.settings import BUNDLED_RANKER, with_settings
from .cascade import score_all
from .choice import Choice, decide
from .criteria import Criteria, with_criteria
from .top_k import check_selected, threshold_of, top_indices

logger = logging.getLogger(__name__)
# Rows that a stream's threshold is estimated from: enough to keep a tenth to within one percentage point.
CALIBRATION_ROWS = 1000
_DROP, _KEEP, _BY_NUMBER = 0, 1, 2
_ADVICE = "Write scar_select(ds, k=...), fit the filter first with scar_filter(ds, k=...), or pass threshold=."


class ScarFilter:
    """
    A predicate for `ds.filter` that keeps the same rows as [`scar_select`]. Created by [`scar_filter`].

    `Dataset.filter` does not tell a predicate which dataset it filters. Unless the filter was fitted, it looks the dataset up
    in the call stack (of the call, or of its pickling for workers), scores it once, in batches, in the process that called
    `filter`, and then decides each row by its content. For a stream, it scores the first rows, uses the lowest score among
    their best k as the threshold, and logs at the end how many rows were kept.

    Args:
        scorer ([`ScarScorer`]): scores the rows.
        criteria ([`~scar_hf.selecting.criteria.Criteria`]): the selection criteria.
        cache (`bool`, *optional*, defaults to `True`): whether to cache scores on disk.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar while scoring.
        calibration_rows (`int`, *optional*, defaults to 1000): number of rows that a stream's threshold is estimated from.

    Attributes:
        seen, kept (`int`): rows of a stream seen and kept in this pass.
    """

    def __init__(
        self,
        scorer: ScarScorer,
        criteria: Criteria,
        cache: bool = True,
        progress: bool = True,
        calibration_rows: int = CALIBRATION_ROWS,
    ) -> None:
        if isinstance(calibration_rows, bool) or not isinstance(calibration_rows, int) or calibration_rows < 1:
            raise ValueError(f"`calibration_rows` must be at least 1, got {calibration_rows!r}.")
        if criteria.k is None and criteria.threshold is None:
            raise ValueError("Pass either `k` or `threshold`, got neither.")
        self.scorer, self.criteria = scorer, criteria
        self.cache = cache
        self.progress = progress
        self._decisions: _Decisions | None = None
        self._fitted_by_hand = False
        self._caller: Dataset | None = None
        self.calibration_rows = calibration_rows
        self._stream: weakref.ref[Any] | None = None
        self._stream_threshold: float | None = None
        self._stream_scores: dict[int, float] = {}
        self._pass: Any = None
        self._counts = _Counts(criteria.k)
        weakref.finalize(self, self._counts.report)

    @property
    def seen(self) -> int:
        """Rows of a stream seen in this pass."""
        return self._counts.seen

    @property
    def kept(self) -> int:
        """Rows of a stream kept in this pass."""
        return self._counts.kept

    def fit(self, ds: Dataset | IterableDataset) -> "ScarFilter":
        """
        Decide on the rows of a dataset now, or estimate the threshold from the first rows of a stream.

        Args:
            ds ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): the rows to select from.

        Returns:
            [`ScarFilter`]: itself. From now on it decides by this dataset, whichever dataset calls it.

        Raises:
            `TypeError`: if `ds` is neither.
        """
        if isinstance(ds, IterableDataset):
            self._calibrate(iter(ds.with_format(None)))
        elif isinstance(ds, Dataset):
            self._decide(ds)
        else:
            raise TypeError(f"`ds` must be a datasets.Dataset or IterableDataset, got {type(ds).__name__}.")
        self._fitted_by_hand = True
        return self

    def __call__(self, row: Mapping[str, Any], number: int | Sequence[int] | None = None) -> bool | list[bool]:
        """
        Decide on a row, or on a batch of rows (`batched=True`).

        Args:
            row (`Mapping`): the row, or columns of n values.
            number (`int`, *optional*): the row number or numbers, if `filter` is called with `with_indices=True`.

        Returns:
            `bool`, or a list of n.

        Raises:
            `ValueError`: if the row's dataset cannot be determined, or is not the one that the filter was fitted to, or the row
                cannot be read although it could when the filter was fitted.
        """
        columns, is_batch = as_columns(row, self.scorer.reader)
        rows = self.scorer.reader.read(columns)
        if not self._fitted_by_hand:
            self._follow_caller()
        if self._decisions is None:
            verdicts = self._by_score(rows)
        else:
            numbers = calling_numbers() if number is None else np.atleast_1d(number).tolist()
            self._decisions.check_readable(rows, None if self._fitted_by_hand else numbers)
            verdicts = [
                row.problem is None and self._decisions.keeps(short_hash(row), None if numbers is None else numbers[i])
                for i, row in enumerate(rows)
            ]
        return verdicts if is_batch else verdicts[0]

    def _follow_caller(self) -> None:
        """Decide on the calling dataset, unless there is none or it was the last one decided on."""
        caller = calling_dataset()
        if caller is not None:
            self._caller = caller
        if self._caller is not None and (self._decisions is None or self._decisions.fingerprint != self._caller._fingerprint):
            self._decide(self._caller)

    def _decide(self, ds: Dataset) -> None:
        if SCORE_COLUMN in ds.column_names:
            logger.warning("The data has a column %r, which is ignored: all rows are scored again.", SCORE_COLUMN)
        self.criteria.check_columns(ds.column_names)
        choice = Choice(RowSource(ds, self.scorer.reader), self.criteria)
        scored = score_all(choice, score_watched, self.scorer, self.cache, self.progress)
        kept, curated = decide(choice, scored.scores, self.scorer, self.progress)
        if self.criteria.k is not None:
            check_selected(kept, len(ds), scored.skipped, curated)
        self._decisions = _Decisions.of(scored.hashes, kept, ds._fingerprint)

    def _by_score(self, rows: list) -> list[bool]:
        """Decide by score alone, for rows whose dataset is unknown."""
        if not self.criteria.by_score_alone or self.criteria.curation or self.criteria.prefilter is not None:
            raise ValueError(
                "scar_filter with `stratify_by`, `diversity`, `curation` or `prefilter` compares the rows of a dataset, but "
                f"cannot determine which dataset is being filtered. {_ADVICE}"
            )
        stream = calling_stream()
        # `datasets` creates the position in a stream anew for each pass.
        place = getattr(stream, "_state_dict", stream)
        if stream is not None and place is not self._pass:
            self._counts.report()
            self._pass = place
        found = self.criteria.threshold
        threshold = found if found is not None else self._threshold_of_stream(stream)
        if self.scorer.settings.strict:
            check_rows(rows)
        verdicts = (self._scores_of(rows) >= threshold).tolist()
        self._counts.add(verdicts)
        return verdicts

    def _scores_of(self, rows: Sequence[RowPairs], bar: tqdm | None = None) -> np.ndarray:
        """Score rows, reusing the scores of the calibration rows."""
        known = [self._stream_scores.get(short_hash(row)) if self._stream_scores else None for row in rows]
        new = [row for row, score in zip(rows, known, strict=True) if score is None]
        found = iter([float(s) for _, result in self.scorer.score_chunks(cut_chunks(new), bar=bar) for s in result.scores])
        return np.array([next(found) if score is None else score for score in known], dtype=np.float32)

    def _threshold_of_stream(self, stream: Any) -> float:
        """Return the threshold of the calling stream. Each stream has its own."""
        if self._fitted_by_hand and self._stream_threshold is not None:
            return self._stream_threshold
        if stream is None:
            raise ValueError(
                f"scar_filter(k={self.criteria.k}) cannot determine which dataset is being filtered, because it was not called "
                f"by `Dataset.filter` in the same process. {_ADVICE}"
            )
        if self._stream is None or self._stream() is not stream or self._stream_threshold is None:
            self._calibrate(from_the_start(stream))
            self._stream = weakref.ref(stream)
        assert self._stream_threshold is not None
        return self._stream_threshold

    def _calibrate(self, stream: Iterable[Mapping[str, Any]]) -> None:
        """Set the threshold to the lowest score among the best k of a stream's first rows."""
        k, size = self.criteria.k, self.calibration_rows
        if not isinstance(k, float):
            raise ValueError(
                f"scar_filter(k={k}) cannot filter a stream, because its best {k} rows are unknown before its end. Pass a "
                "share (k=0.1), which is kept approximately, or threshold=, or load the data with streaming=False."
            )
        first = [plain(row) for row in itertools.islice(stream, size)]
        rows = self.scorer.reader.read(columns_of(first)) if first else []
        report_languages(self.scorer, rows)
        with tqdm(total=len(rows), desc="Calibrating", unit="row", disable=hidden(self.progress)) as bar:
            scores = self._scores_of(rows, bar)
        best = top_indices(scores, float(k)) if len(rows) else np.empty(0, dtype=np.int64)
        check_selected(best, len(rows), {i: row.problem for i, row in enumerate(rows) if row.problem is not None})
        self._stream_scores = {short_hash(row): float(score) for row, score in zip(rows, scores, strict=True)}
        is_new, self._stream_threshold = self._stream_threshold is None, threshold_of(scores, best) if len(best) else np.inf
        if is_new and len(rows) == size:
            logger.warning(
                "scar_filter(k=%s) keeps an approximate share of a stream: rows that score at least %.4f, the threshold of the "
                "best %s of its first %s rows (calibration_rows). If the stream is sorted, shuffle it first: "
                "stream.shuffle(buffer_size=10_000).",
                k,
                self._stream_threshold,
                f"{k:.1%}",
                f"{size:,}",
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings alone for a fingerprint, and the decisions as well for a worker."""
        if is_fingerprinting():
            self._caller = calling_dataset() or self._caller
            fitted = self._decisions.fingerprint if self._fitted_by_hand and self._decisions else None
            return {"scorer": self.scorer, "criteria": self.criteria.describe(), "fitted": fitted}
        if not self._fitted_by_hand:
            self._follow_caller()
        if self.criteria.curation and self._decisions is None:
            raise ValueError(f"scar_filter with `curation` must be fitted before it is sent to other processes. {_ADVICE}")
        state = {"scorer": self.scorer, "criteria": self.criteria.without_curation(), "cache": self.cache}
        state |= {"calibration_rows": self.calibration_rows, "stream": (self._stream_threshold, self._stream_scores)}
        return state | {"decisions": self._decisions, "by_hand": self._fitted_by_hand}

    def __setstate__(self, state: dict[str, Any]) -> None:
        made = (state["scorer"], state["criteria"], state["cache"], False, state["calibration_rows"])
        self.__init__(*made)  # type: ignore[misc]
        self._stream_threshold, self._stream_scores = state["stream"]
        self._decisions, self._fitted_by_hand = state["decisions"], state["by_hand"]


@dataclass
class _Counts:
    """Counts the rows of a stream."""

    k: float | None
    seen: int = 0
    kept: int = 0

    def add(self, verdicts: Sequence[bool]) -> None:
        self.seen, self.kept = self.seen + len(verdicts), self.kept + sum(verdicts)

    def report(self) -> None:
        """Log how many rows of a pass were kept, and reset the counts."""
        if self.k is not None and self.seen:
            share = f"{self.kept / self.seen:.1%}"
            logger.warning("scar_filter(k=%s) kept %s of %s rows (%s).", self.k, f"{self.kept:,}", f"{self.seen:,}", share)
        self.seen = self.kept = 0


class _Decisions:
    """Decisions by row content; by row number for equal rows of which only some are kept."""

    def __init__(
        self, hashes: np.ndarray, verdicts: np.ndarray, kept: np.ndarray, unreadable: Collection[int], fingerprint: str
    ) -> None:
        self.hashes, self.verdicts, self.kept, self.fingerprint = hashes, verdicts, kept, fingerprint
        self.unreadable = unreadable

    @classmethod
    def of(cls, hashes: np.ndarray, kept: np.ndarray, fingerprint: str) -> "_Decisions":
        is_kept = np.zeros(len(hashes), dtype=bool)
        is_kept[kept] = True
        distinct, where = np.unique(hashes, return_inverse=True)
        of_each = np.bincount(where, minlength=len(distinct))
        kept_of_each = np.bincount(where[is_kept], minlength=len(distinct))
        verdicts = np.where(kept_of_each == 0, _DROP, np.where(kept_of_each == of_each, _KEEP, _BY_NUMBER)).astype(np.uint8)
        # Rows with a problem all have the same hash.
        unreadable = frozenset(np.flatnonzero(hashes == np.uint64(short_hash(RowPairs((), "unreadable")))).tolist())
        return cls(distinct, verdicts, kept[verdicts[where[kept]] == _BY_NUMBER], unreadable, fingerprint)

    def check_readable(self, rows: Sequence[RowPairs], numbers: Sequence[int] | None) -> None:
        """Raise a `ValueError` for a row that cannot be read now, but could when the decisions were made."""
        for i, row in enumerate(rows):
            if row.problem is None or (self.unreadable if numbers is None else numbers[i] in self.unreadable):
                continue
            raise ValueError(
                f"A row cannot be read: {row.problem}. It could be when this scar_filter was fitted, which reads the dataset "
                "without its format or transform. Filter it without them, too: ds.with_format(None).filter(...)."
            )

    def keeps(self, row_hash: int, number: int | None) -> bool:
        at = int(np.searchsorted(self.hashes, np.uint64(row_hash)))
        if at == len(self.hashes) or int(self.hashes[at]) != row_hash:
            raise ValueError(f"A row does not belong to the dataset that this scar_filter was fitted to. {_ADVICE}")
        if self.verdicts[at] != _BY_NUMBER:
            return bool(self.verdicts[at] == _KEEP)
        if number is None:
            raise ValueError(
                "Several rows have the same instruction and response, only some of them are kept, and this row cannot be told "
                f"apart from the others. {_ADVICE}"
            )
        place = int(np.searchsorted(self.kept, number))
        return place < len(self.kept) and int(self.kept[place]) == number


@with_settings
@with_criteria
def scar_filter(
    ds: Dataset | IterableDataset | None = None,
    k: Criteria | float | None = None,
    *,
    model: str | ScarScorer = BUNDLED_RANKER,
    cache: bool = True,
    progress: bool = True,
    calibration_rows: int = CALIBRATION_ROWS,
    **settings: Any,
) -> ScarFilter:
    """
    Create a predicate for `ds.filter` that keeps exactly the rows that `scar_select(ds, k)` keeps. Streams can be filtered by a
    share `k` or by `threshold`; the other criteria compare the rows of a dataset.

    Args:
        ds ([`~datasets.Dataset`] or [`~datasets.IterableDataset`], *optional*):
            The dataset to select from. By default, the one whose `filter` is called.
        k ([`~scar_hf.selecting.criteria.Criteria`], `float` or `int`, *optional*):
            A share in (0, 1], a count >= 1, or complete criteria. An `IterableDataset` supports only a share, which is
            estimated from the scores of its first rows.
        {criteria}
        model (`str` or [`ScarScorer`], *optional*, defaults to `"scar-ranker"`): the ranker, as in [`scar_rank`].
        cache (`bool`, *optional*, defaults to `True`): whether to cache scores on disk.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar while scoring.
        calibration_rows (`int`, *optional*, defaults to 1000):
            Number of rows at the start of a stream from which to estimate the threshold. They are read twice but scored
            once.
        settings: further arguments of [`ScarScorer`].

    Returns:
        [`ScarFilter`]. For a stream, its `seen` and `kept` count rows and are logged at the end of each pass.

    Raises:
        `ValueError`: if both or neither of `k` and `threshold` are passed, or `k` is out of range.

    Example:

    ```python
    >>> ds = ds.filter(scar_filter(k=0.1))
    >>> ds = ds.filter(scar_filter(ds, k=0.1))  # the same, with an explicit dataset
    >>> stream = stream.filter(scar_filter(k=0.1), batched=True)
    >>> stream = stream.filter(scar_filter(threshold=1.5), batched=True)
    ```
    """
    if ds is not None and not isinstance(ds, (Dataset, IterableDataset)):
        raise TypeError(
            f"The first argument of scar_filter must be a datasets.Dataset, got {ds!r}. Pass a share as scar_filter(k=0.1)."
        )
    criteria, settings = Criteria.take(k, settings)
    scorer = model if isinstance(model, ScarScorer) else ScarScorer(model, **settings)
    made = ScarFilter(scorer, criteria, cache, progress, calibration_rows)
    return made if ds is None else made.fit(ds)
