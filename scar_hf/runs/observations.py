"""Collects the contents of a summary while rows are written: examples, counts by a column, measures of a sample."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..curation.refusals import refusal_reason
from ..files import Batch, columns_of, take
from ..rows.counting import GroupCounts
from ..rows.pairs import PairReader, RowPairs
from ..rows.source import read_batch, values_of
from ..selecting.top_k import order_of
from ..style import count_words, type_token_ratio

_EXAMPLES = 5
# Number of rows to measure: enough to estimate quartiles within a few per mille for data of any size.
_SAMPLE = 20_000
MEASURES = (("words", count_words), ("type-token ratio", type_token_ratio))


class Observations:
    """
    Examines the rows of a run and keeps a few of them.

    Args:
        reader ([`~scar_hf.rows.pairs.PairReader`]): reads the rows.
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score.
        kept (`np.ndarray`): numbers of the rows kept.
        group_by (`str`, *optional*): the column by which rows are counted.
        examples (`Sequence[int]`, *optional*): numbers of rows to keep in addition to the best and the worst.
    """

    def __init__(
        self,
        reader: PairReader,
        scores: np.ndarray,
        kept: np.ndarray,
        group_by: str | None = None,
        examples: Sequence[int] = (),
    ) -> None:
        self.reader, self.scores, self.group_by = reader, scores, group_by
        order = order_of(scores)[: int(np.count_nonzero(~np.isnan(scores)))]
        self.best, self.worst = order[:_EXAMPLES].tolist(), order[::-1][:_EXAMPLES].tolist()
        self._shown = {*self.best, *self.worst, *examples}
        self.is_kept = np.zeros(len(scores), dtype=bool)
        self.is_kept[kept] = True
        self._of_all, self._of_kept = _sample(np.sort(order), len(scores)), _sample(kept, len(scores))
        self.examples: dict[int, tuple[RowPairs, str | None]] = {}
        self.groups = GroupCounts()
        self.refusals: Counter[str] = Counter()
        self._seen: dict[str, None] = {}
        self.measured_kept = int(np.count_nonzero(self._of_kept))
        # Whether the measures of all rows lack some of the rows kept.
        self.sampled = not self._of_all[self._of_kept].all()
        self.before: dict[str, list[float]] = {name: [] for name, _ in MEASURES}
        self.after: dict[str, list[float]] = {name: [] for name, _ in MEASURES}

    def see(self, batch: Batch, start: int) -> None:
        """
        Examine a batch.

        Args:
            batch (`Batch`): rows.
            start (`int`): number of the first row.
        """
        shown = {i - start for i in self._shown if start <= i < start + len(batch)}
        here = slice(start, start + len(batch))
        measured = set(np.flatnonzero(self._of_all[here] | self._of_kept[here]).tolist())
        groups = None
        if self.group_by is not None:
            groups = self.groups.add(values_of(batch, columns_of(batch), self.group_by), self.is_kept[here])
        wanted = sorted(shown | measured)
        if not wanted:
            return
        rows = read_batch(take(batch, wanted), self.reader, self._seen)
        for i, row in zip(wanted, rows, strict=True):
            number = start + i
            if i in shown:
                self.examples[number] = (row, None if groups is None else groups[i])
            if self._of_kept[number] and (kind := refusal_reason(row.response)) is not None:
                self.refusals[kind] += 1
            if i in measured:
                for name, measure in MEASURES:
                    value = float(measure(row.response))
                    if self._of_all[number]:
                        self.before[name].append(value)
                    if self._of_kept[number]:
                        self.after[name].append(value)


def _sample(numbers: np.ndarray, n: int) -> np.ndarray:
    """Return a mask of length `n` that marks an evenly spaced sample of `numbers`."""
    marks = np.zeros(n, dtype=bool)
    marks[numbers[:: max(1, len(numbers) // _SAMPLE)]] = True
    return marks
