"""Datasets -> the rows kept."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict, Value
from tqdm.auto import tqdm

from .dataset_scoring import rows_of, score_dataset, with_scores
from .diversity import check_diversity, choose
from .provenance import dataset_source, describe_run, describe_selection
from .quotas import Groups, StratifyBy, check_stratify_by, group_rows
from .scoring import SCORE_COLUMN, ScarScorer
from .selection import (
    Explainer,
    ScoredRows,
    check_k,
    check_selected,
    count_of,
    criteria_in_words,
    order_of,
    threshold_of,
    top_indices,
)
from .settings import BUNDLED_RANKER, with_settings

if TYPE_CHECKING:
    from .hub_cards import PushReport
    from .report import SelectionReport

DatasetOrDict = TypeVar("DatasetOrDict", Dataset, DatasetDict)


@dataclass
class ScarRanking:
    """
    An instruction set with a score for each row.

    Args:
        dataset ([`~datasets.Dataset`]): n rows, all columns of the input, plus `scar_score`.
        scores (`np.ndarray` of shape `(n,)`, float32): the scores in the order of the rows; NaN where a row was skipped.
        skipped (`dict[int, str]`): why a row has no score, by its number.
        truncated (`np.ndarray` of shape `(n,)`, bool): whether a text of the row was longer than `max_length`.
        settings (`dict`): what was scored with what.
        source (`tuple(str, list[dict])`): the data's name, and what identifies it.
        scorer ([`ScarScorer`], *optional*): what scored them; `diversity` compares rows by its vectors.
        progress (`bool`, *optional*, defaults to `False`): whether to show a bar while it does.
    """

    dataset: Dataset
    scores: np.ndarray
    skipped: dict[int, str] = field(default_factory=dict)
    truncated: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))
    settings: dict[str, Any] = field(default_factory=dict)
    source: tuple[str, list[dict[str, Any]]] = ("a dataset in memory", [])
    scorer: ScarScorer | None = field(default=None, repr=False)
    progress: bool = False
    _chosen: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    def __getstate__(self) -> dict[str, Any]:
        """All but a scorer that is only in memory, which cannot be sent anywhere."""
        portable = self.scorer is not None and not self.scorer.in_memory
        return self.__dict__ | {"scorer": self.scorer if portable else None, "_chosen": {}}

    def indices(self, k: float, stratify_by: StratifyBy | None = None, diversity: float = 0.0) -> np.ndarray:
        """
        Numbers of the best rows, ascending. Ties go to the earlier row.

        Args:
            k (`float` or `int`): a float in (0, 1] is a share, floor(k·n) and at least 1; an int >= 1 is a count.
            stratify_by (`str` or `Mapping`, *optional*):
                A column: each of its values has the same share of the selection as of the data, by largest remainder; rows
                without a value are a group of their own. Or `{column: {value: share}}`. Groups with too few rows pass the
                rest on to the others.
            diversity (`float`, *optional*, defaults to 0.0):
                0 selects by score alone; values up to 1 favour rows that differ from those already selected, out of the
                best k · (1 + 4 · diversity); see [`~scar_hf.diversity.choose`].

        Returns:
            `np.ndarray`: int64; fewer than asked for only where fewer rows, or fewer of the groups named, have a score.

        Raises:
            `ValueError`: if `k`, `stratify_by` or `diversity` is out of range, or there is no scorer to compare rows with.
        """
        _check_choice(k, stratify_by, diversity, self.dataset.column_names)
        if stratify_by is None and not diversity:
            return top_indices(self.scores, k)
        key = repr((k, stratify_by, float(diversity)))
        if key not in self._chosen:
            self._chosen[key] = self._choose(k, stratify_by, diversity)
        return self._chosen[key].copy()

    def _choose(self, k: float, stratify_by: StratifyBy | None, diversity: float) -> np.ndarray:
        if diversity and self.scorer is None:
            raise ValueError(
                "`diversity` compares rows by the ranker's vectors, and this ranking has no scorer to make them: rank the data "
                "with scar_rank, or pass ScarRanking(..., scorer=...)."
            )
        scored = ~np.isnan(self.scores)
        count = min(count_of(k, len(self)), int(np.count_nonzero(scored)))
        groups = (
            Groups(np.zeros(len(self), dtype=np.int64), [None], [1])
            if stratify_by is None
            else group_rows(self.dataset, stratify_by)
        )
        device = "cpu" if self.scorer is None else self.scorer.device
        return choose(self.scores, groups.quotas(count, scored), groups.labels, diversity, self._embed, device)

    def _embed(self, rows: np.ndarray) -> np.ndarray:
        assert self.scorer is not None
        with tqdm(total=len(rows), desc="Comparing", unit="row", disable=not self.progress) as bar:
            return self.scorer.embed_rows(rows_of(self.dataset.select(rows), self.scorer.reader), bar)

    def order(self) -> np.ndarray:
        """Numbers of all rows from best to worst, ties in the order of the input, rows without a score last."""
        return order_of(self.scores)

    def top(self, k: float, stratify_by: StratifyBy | None = None, diversity: float = 0.0) -> Dataset:
        """
        The best rows in their original order; `k`, `stratify_by` and `diversity` as for [`ScarRanking.indices`]. A `ValueError`
        with the reasons if no row has a score.
        """
        kept = self.indices(k, stratify_by, diversity)
        check_selected(kept, len(self), self.skipped)
        return self.dataset.select(kept)

    def above(self, threshold: float) -> Dataset:
        """The rows that score at least `threshold`, in their original order."""
        return self.dataset.select(np.flatnonzero(self.scores >= threshold))

    def dropped(self, k: float, stratify_by: StratifyBy | None = None, diversity: float = 0.0) -> Dataset:
        """The rows that [`ScarRanking.top`] leaves out, in their original order, those without a score included."""
        return self.dataset.select(np.setdiff1d(np.arange(len(self)), self.indices(k, stratify_by, diversity)))

    def threshold(self, k: float, stratify_by: StratifyBy | None = None, diversity: float = 0.0) -> float:
        """The lowest score that [`ScarRanking.top`] keeps; NaN where there is nothing to keep."""
        return threshold_of(self.scores, self.indices(k, stratify_by, diversity))

    def explained(self, k: float, stratify_by: StratifyBy | None = None, diversity: float = 0.0) -> Dataset:
        """
        All rows with `scar_rank` (1 is the best), `scar_decision` ("kept", "dropped" or "skipped") and `scar_reason`.

        Args:
            k, stratify_by, diversity: as for [`ScarRanking.indices`].

        Returns:
            [`~datasets.Dataset`]: n rows in their order.

        Raises:
            `ValueError`: as [`ScarRanking.indices`], or if the data has such a column.
        """
        ds = self.dataset
        kept = self.indices(k, stratify_by, diversity)
        explainer = Explainer(
            self._scored(), kept, self.settings.get("max_length") or 0, criteria=criteria_in_words(stratify_by, diversity)
        )
        for name, values in explainer.columns(0, len(self)).items():
            if name in ds.column_names:
                raise ValueError(f"The data already has a column {name!r}. Remove it first.")
            feature = Value("int64") if name == "scar_rank" else Value("string")
            ds = ds.add_column(name, values.to_pylist(), feature=feature)
        return ds

    def manifest(self, k: float, stratify_by: StratifyBy | None = None, diversity: float = 0.0) -> dict[str, Any]:
        """
        Say what a selection was made of and with, as `manifest.json` has it beside an output of the command line.

        Args:
            k, stratify_by, diversity: as for [`ScarRanking.indices`].

        Returns:
            `dict`: data, ranker, settings, versions, counts and threshold; it holds nothing of the rows' texts.
        """
        options = {"k": k, "stratify_by": stratify_by, "diversity": float(diversity)}
        kept = self.indices(k, stratify_by, diversity)
        return describe_run(*self.source, None, self.settings, options) | {
            "selection": describe_selection(self._scored(), kept)
        }

    def _scored(self) -> ScoredRows:
        truncated = self.truncated if len(self.truncated) else np.zeros(len(self), dtype=bool)
        return ScoredRows(self.scores, truncated, np.empty(0, dtype=np.uint64), self.skipped)

    def save(self, folder: str | Path) -> None:
        """
        Save the scored rows (`Dataset.save_to_disk`) with `ranking.json`, the settings and the skipped rows.

        Args:
            folder (`str` or `Path`): where to; made if it does not exist.
        """
        self.dataset.save_to_disk(str(folder))
        report = {**self.settings, "rows": len(self), "skipped": {str(row): why for row, why in self.skipped.items()}}
        (Path(folder) / "ranking.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def report(
        self,
        path: str | Path | None = None,
        k: float = 0.1,
        stratify_by: StratifyBy | None = None,
        diversity: float = 0.0,
        *,
        group_by: str | None = None,
        **kwargs,
    ) -> "SelectionReport":
        """
        Show what a selection keeps and why, on one page that opens offline.

        Args:
            path (`str` or `Path`, *optional*): where the page is written; without it none is.
            k, stratify_by, diversity: as for [`ScarRanking.indices`].
            group_by (`str`, *optional*): a column, such as `source`, to count what came in and what stayed by.
            kwargs: as for [`~scar_hf.report.report_ranking`]: `lm` for surprisal, `language`, `seed`, and the sizes of samples.

        Returns:
            [`~scar_hf.report.SelectionReport`]: its `numbers`, and `.save_figures(folder)`.

        Raises:
            `ValueError`: as [`ScarRanking.indices`], or if there is no such column.
            `ImportError`: without matplotlib.

        Example:

        ```python
        >>> scar_rank(ds).report("report.html", k=0.1, group_by="source")
        ```
        """
        from .report import report_ranking

        report = report_ranking(self, k, stratify_by, diversity, group_by=group_by, **kwargs)
        if path is not None:
            report.save(path)
        return report

    def push_to_hub(
        self,
        repo_id: str,
        k: float = 0.1,
        stratify_by: StratifyBy | None = None,
        diversity: float = 0.0,
        *,
        card: Mapping[str, Any] | None = None,
        **kwargs,
    ) -> "PushReport":
        """
        Upload the best rows to the Hub, as a dataset with manifest, card and pictures, in one commit.

        Args:
            repo_id (`str`): where to, like `"me/dolly-scar-10pct"`.
            k, stratify_by, diversity: as for [`ScarRanking.indices`].
            card (`Mapping`, *optional*): what the card says, as for [`~scar_hf.hub_cards.selection_card`], such as `license`.
            kwargs: as for [`~scar_hf.hub_cards.push`]: `private`, `revision`, `token`, `message`, `dry_run`, `overwrite`.

        Returns:
            [`~scar_hf.hub_cards.PushReport`].

        Raises:
            `ValueError`, `OSError`: as [`~scar_hf.hub_cards.push`].

        Example:

        ```python
        >>> scar_rank(ds).push_to_hub("me/dolly-scar-10pct", k=0.1, private=True, card={"license": "cc-by-sa-3.0"})
        ```
        """
        from .hub_cards import push, ranking_contents

        def build(repo_id: str, found: str | None, folder: Path) -> Mapping[str, Path]:
            return ranking_contents(
                self, k, folder, stratify_by, diversity, **{"repo_id": repo_id, "card": found, **(card or {})}
            )

        _check_choice(k, stratify_by, diversity, self.dataset.column_names)
        return push(build, repo_id, "dataset", **kwargs)


@with_settings
def scar_rank(
    ds: Dataset,
    *,
    model: str | ScarScorer = BUNDLED_RANKER,
    overwrite: bool = False,
    cache: bool = True,
    progress: bool = True,
    **settings: Any,
) -> ScarRanking:
    """
    Score every row of an instruction set once.

    Args:
        ds ([`~datasets.Dataset`]): the rows, of any format that [`~scar_hf.pairs.PairReader`] knows.
        model (`str` or [`ScarScorer`], *optional*, defaults to `"scar-ranker"`):
            The bundled ranker by its name, a folder, a Hub id, or a scorer, whose own settings then hold.
        overwrite (`bool`, *optional*, defaults to `False`): whether a column `scar_score` may be replaced.
        cache (`bool`, *optional*, defaults to `True`):
            Whether scores are kept on disk, by the content of the rows and the ranker, and found again.
        progress (`bool`, *optional*, defaults to `True`): whether to show a bar with rows per second.
        settings: as for [`ScarScorer`].

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
    scorer = model if isinstance(model, ScarScorer) else ScarScorer(model, **settings)
    scored = score_dataset(ds, scorer, cache=cache, progress=progress)
    source = dataset_source(ds, sha256(scored.hashes.tobytes()).hexdigest())
    if SCORE_COLUMN in ds.column_names:
        ds = ds.remove_columns(SCORE_COLUMN)
    ds = with_scores(ds, scored.scores)
    return ScarRanking(ds, scored.scores, scored.skipped, scored.truncated, scorer.describe(), source, scorer, progress)


def scar_select(
    ds: DatasetOrDict, k: float = 0.1, *, stratify_by: StratifyBy | None = None, diversity: float = 0.0, **kwargs
) -> DatasetOrDict:
    """
    Keep the best rows of an instruction set: `scar_rank(ds).top(k, stratify_by, diversity)`.

    Args:
        ds ([`~datasets.Dataset`] or [`~datasets.DatasetDict`]): the rows, as for [`scar_rank`]; of several splits each
            by itself.
        k (`float` or `int`, *optional*, defaults to 0.1):
            A float in (0, 1] is a share, floor(k·n) and at least 1; an int >= 1 is a count.
        stratify_by (`str` or `Mapping`, *optional*):
            A column whose values keep their shares of the data, or `{column: {value: share}}`; see [`ScarRanking.indices`].
        diversity (`float`, *optional*, defaults to 0.0):
            In [0, 1]: how much a row counts for being unlike those kept before it; see [`ScarRanking.indices`].
        kwargs: as for [`scar_rank`].

    Returns:
        [`~datasets.Dataset`] or [`~datasets.DatasetDict`]: exactly so many rows in their original order, all columns,
        plus `scar_score`.

    Raises:
        `ValueError`: if `k`, `stratify_by` or `diversity` is out of range, and as [`scar_rank`].

    Example:

    ```python
    >>> SFTTrainer(model, train_dataset=scar_select(ds, k=0.1))
    >>> scar_select(ds, k=0.1, stratify_by="source", diversity=0.3)  # sources as in the data, and no near-duplicates
    ```
    """
    for split in ds.values() if isinstance(ds, DatasetDict) else [ds]:
        _check_choice(k, stratify_by, diversity, getattr(split, "column_names", None))
    if isinstance(ds, DatasetDict):
        return DatasetDict(
            {name: scar_select(split, k, stratify_by=stratify_by, diversity=diversity, **kwargs) for name, split in ds.items()}
        )
    return scar_rank(ds, **kwargs).top(k, stratify_by, diversity)


def _check_choice(k: float, stratify_by: StratifyBy | None, diversity: float, columns: Sequence[str] | None) -> None:
    check_k(k)
    check_diversity(diversity)
    if stratify_by is not None and columns is not None:
        check_stratify_by(stratify_by, columns)


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
