"""Ranks and selects the rows of datasets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from datasets import Dataset, DatasetDict

from .manifest.description import dataset_source, describe_run, describe_selection
from .methods import method_scorer, score_source
from .overview import Overview, Shown, best_and_worst
from .rows.pairs import PairReader, reasons_in_words
from .rows.sft import SftRows, for_trl
from .rows.source import RowSource, check_dataset
from .scoring.datasets import Prefilter, ScoredRows, with_scores
from .scoring.scorer import SCORE_COLUMN, ScarScorer
from .scoring.settings import BUNDLED_RANKER, with_settings
from .selecting.choice import Choice, decide
from .selecting.criteria import Criteria, check_k, with_criteria
from .selecting.top_k import check_selected, order_of
from .selection import Selection

if TYPE_CHECKING:
    from .hub_cards import PushReport
    from .report import SelectionReport

_OF_A_STREAM = "ds.filter(scar_filter(k=0.1), batched=True)"
# Maximum number of selections that a ranking caches.
_REMEMBERED = 4
DatasetOrDict = TypeVar("DatasetOrDict", Dataset, DatasetDict)


@dataclass(repr=False)
class ScarRanking(Shown):
    """
    An instruction set with a score for each row.

    Args:
        dataset ([`~datasets.Dataset`]): n rows, all columns of the input, plus `scar_score`.
        scores (`np.ndarray` of shape `(n,)`, float32): the scores in row order; NaN for skipped rows.
        skipped (`dict[int, str]`): the reasons of the rows without a score, by row number.
        truncated (`np.ndarray` of shape `(n,)`, bool): whether a text of the row was longer than `max_length`.
        settings (`dict`): the scorer's settings.
        source (`tuple(str, list[dict])`): the data's name and identity.
        only_for, prefilter (*optional*): with a prefilter, the only criteria that the ranking selects by, and the prefilter's
            scores and description.
        scorer ([`ScarScorer`], *optional*): the scorer; `diversity` needs it to compare rows by their vectors.
        progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar during that comparison.
    """

    dataset: Dataset
    scores: np.ndarray
    skipped: dict[int, str] = field(default_factory=dict)
    truncated: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))
    settings: dict[str, Any] = field(default_factory=dict)
    source: tuple[str, list[dict[str, Any]]] = ("a dataset in memory", [])
    scorer: ScarScorer | None = field(default=None, repr=False)
    progress: bool = False
    only_for: Criteria | None = None
    prefilter: Prefilter | None = field(default=None, repr=False)
    _selected: list[tuple[Criteria, Selection]] = field(default_factory=list, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    def overview(self) -> Overview:
        """Describe the scores, for shells and notebooks."""
        found = self.scores[np.isfinite(self.scores)]
        named = [(name, self.settings.get(name)) for name in ("method", "model")]
        facts = [("rows", f"{len(self):,}"), *((name, str(value)) for name, value in named if value)]
        if len(found):
            facts.append(("scores", f"{found.min():.2f} to {found.max():.2f}, median {np.median(found):.2f}"))
        if self.skipped:
            facts.append(("without a score", f"{len(self.skipped):,} ({reasons_in_words(self.skipped)})"))
        if cut := int(self.truncated.sum()):
            facts.append(("longer than was read", f"{cut:,}"))
        source = RowSource(self.dataset, PairReader() if self.scorer is None else self.scorer.reader)
        return Overview("ScarRanking", facts, self.scores, None, best_and_worst(source, self.scores))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything except a scorer that exists only in memory."""
        portable = self.scorer is not None and not self.scorer.in_memory
        return self.__dict__ | {"scorer": self.scorer if portable else None, "_selected": []}

    @with_criteria
    def select(self, k: Criteria | float | None = None, **criteria: Any) -> Selection:
        """
        Select rows.

        Args:
            k ([`~scar_hf.selecting.criteria.Criteria`], `float` or `int`, *optional*):
                A share in (0, 1] or a count >= 1 of the best rows, or a complete set of criteria. Ties go to the earlier row.
            {criteria}

        Returns:
            [`~scar_hf.selection.Selection`]: it has fewer rows than requested only if too few rows, or too few rows of
            the listed groups, have a score.

        Raises:
            `ValueError`: if the criteria are out of range, name a column that does not exist, or need a scorer and the
            ranking has none.

        Example:

        ```python
        >>> selection = scar_rank(ds).select(0.1, stratify_by="source")
        >>> selection.dataset, selection.dropped, selection.threshold
        ```
        """
        wanted = Criteria.of(k, **criteria)
        if wanted.k is None and wanted.threshold is None and not isinstance(k, Criteria):
            check_k(k)
        wanted.check_columns(self.dataset.column_names)
        if (wanted.prefilter is not None or self.only_for is not None) and wanted != self.only_for:
            has = "all rows" if self.only_for is None else "only the rows that its own criteria need"
            raise ValueError(f"This ranking has scored {has}. `prefilter` decides that: pass all criteria to scar_select.")
        for known, selection in self._selected:
            if known == wanted:
                return selection
        kept, curated = decide(Choice(self._rows(), wanted), self.scores, self.scorer, self.progress)
        return self.remember(wanted, kept, wanted.describe(), curated)

    def remember(self, criteria: Criteria, kept: np.ndarray, options: dict[str, Any], curated: Mapping[int, str]) -> Selection:
        """Cache a selection that another process made with these criteria."""
        scored = self._scored()
        counts = describe_selection(scored, kept) | ({"dropped": len(curated)} if options.get("curation") else {})
        manifest = describe_run(*self.source, None, self.settings, options) | {"selection": counts}
        chosen = Selection(self._rows(), scored, kept, manifest, dict(curated), scorer=self.scorer)
        self._selected = [*self._selected, (criteria, chosen)][-_REMEMBERED:]
        return chosen

    @with_criteria
    def indices(self, k: Criteria | float | None = None, **criteria: Any) -> np.ndarray:
        """Return the numbers of the rows that [`ScarRanking.select`] keeps, ascending, int64."""
        return self.select(k, **criteria).indices.copy()

    def order(self) -> np.ndarray:
        """Return the numbers of all rows, best first. Ties keep the input order; rows without a score come last."""
        return order_of(self.scores)

    @with_criteria
    def top(self, k: Criteria | float | None = None, **criteria: Any) -> Dataset:
        """
        Return the rows that [`ScarRanking.select`] keeps, in their original order. Raises a `ValueError` with the reasons if
        none of `k` rows can be selected.
        """
        selection = self.select(k, **criteria)
        if selection.manifest["options"]["k"] is not None:  # no row may reach a threshold
            check_selected(selection.indices, len(self), self.skipped, selection.curated)
        return selection.dataset

    def above(self, threshold: float) -> Dataset:
        """Return the rows that score at least `threshold`, in their original order."""
        return self.select(threshold=threshold).dataset

    @with_criteria
    def dropped(self, k: Criteria | float | None = None, **criteria: Any) -> Dataset:
        """Return the rows that [`ScarRanking.top`] drops, in their original order, including those without a score."""
        return self.select(k, **criteria).dropped

    @with_criteria
    def threshold(self, k: Criteria | float | None = None, **criteria: Any) -> float:
        """Return the lowest score that [`ScarRanking.top`] keeps, or NaN if it keeps nothing."""
        return self.select(k, **criteria).threshold

    @with_criteria
    def explained(self, k: Criteria | float | None = None, **criteria: Any) -> Dataset:
        """Return all rows with rank, decision and reason; see [`~scar_hf.selection.Selection.explain`]."""
        return self.select(k, **criteria).explain()

    @with_criteria
    def manifest(self, k: Criteria | float | None = None, **criteria: Any) -> dict[str, Any]:
        """Return a selection's manifest; see [`~scar_hf.selection.Selection.manifest`]."""
        return self.select(k, **criteria).manifest

    def _rows(self) -> RowSource:
        reader = PairReader() if self.scorer is None else self.scorer.reader
        return RowSource(self.dataset, reader, name=self.source[0])

    def _scored(self) -> ScoredRows:
        truncated = self.truncated if len(self.truncated) else np.zeros(len(self), dtype=bool)
        return ScoredRows(self.scores, truncated, np.empty(0, dtype=np.uint64), self.skipped, self.prefilter)

    def save(self, folder: str | Path) -> None:
        """
        Save the scored rows with `Dataset.save_to_disk`, and settings and skipped rows in `ranking.json`.

        Args:
            folder (`str` or `Path`): the output folder, created if needed.
        """
        self.dataset.save_to_disk(str(folder))
        report = {**self.settings, "rows": len(self), "skipped": {str(row): why for row, why in self.skipped.items()}}
        (Path(folder) / "ranking.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @with_criteria
    def report(
        self,
        path: str | Path | None = None,
        k: Criteria | float | None = None,
        *,
        group_by: str | None = None,
        **kwargs: Any,
    ) -> "SelectionReport":
        """
        Report which rows a selection keeps and why, on an HTML page that opens offline.

        Args:
            path (`str` or `Path`, *optional*): the page to write; by default none is written.
            k: see [`ScarRanking.select`]; by default a tenth, unless `threshold` is given.
            {criteria}
            group_by, kwargs: see [`~scar_hf.selection.Selection.report`].

        Returns:
            [`~scar_hf.report.SelectionReport`]: the report, with `.numbers` and `.save_figures(folder)`.
        """
        criteria, more = Criteria.take(k, kwargs, default=0.1)
        return self.select(criteria).report(path, group_by=group_by, **more)

    @with_criteria
    def push_to_hub(
        self, repo_id: str, k: Criteria | float | None = None, *, card: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> "PushReport":
        """
        Upload the best rows to the Hub in one commit, as a dataset with manifest, card and figures.

        Args:
            repo_id (`str`): the repository, such as `"me/dolly-scar-10pct"`.
            k: see [`ScarRanking.select`]; by default a tenth, unless `threshold` is given.
            {criteria}
            card, kwargs: see [`~scar_hf.selection.Selection.push_to_hub`].

        Returns:
            [`~scar_hf.hub_cards.PushReport`].

        Example:

        ```python
        >>> scar_rank(ds).push_to_hub("me/dolly-scar-10pct", k=0.1, private=True, card={"license": "cc-by-sa-3.0"})
        ```
        """
        criteria, more = Criteria.take(k, kwargs, default=0.1)
        return self.select(criteria).push_to_hub(repo_id, card=card, **more)


@with_settings
def scar_rank(
    ds: Dataset,
    *,
    model: str | ScarScorer = BUNDLED_RANKER,
    method: str | Mapping[str, float] = "scar",
    lm: Any = None,
    seed: int = 0,
    combine: str = "reciprocal_rank",
    overwrite: bool = False,
    criteria: Criteria | None = None,
    cache: bool = True,
    progress: bool = True,
    **settings: Any,
) -> ScarRanking:
    """
    Score every row of an instruction set once.

    Args:
        ds ([`~datasets.Dataset`]): the rows, in any format that [`~scar_hf.rows.pairs.PairReader`] reads.
        model (`str` or [`ScarScorer`], *optional*, defaults to `"scar-ranker"`):
            The name of the bundled ranker, a folder, a Hub id, or a scorer, whose settings are then used.
        method (`str` or `Mapping`, *optional*, defaults to `"scar"`):
            Method to rank by instead of SCAR: `"random"`, `"longest"`, `"perplexity"`, `"ifd"`, `"diversity"` or a numeric
            column (higher is better); or several with weights, `{"scar": 1, "ifd": 0.5}`. See docs/methods.md.
        lm (`str`, `Path`, `PreTrainedModel` or [`~scar_hf.style.Surprisal`], *optional*):
            The language model for `"perplexity"` and `"ifd"`.
        seed (`int`, *optional*, defaults to 0): seed for `"random"` and `"diversity"`.
        combine (`str`, *optional*, defaults to `"reciprocal_rank"`):
            How to combine several methods, or `"z_score"`; see [`~scar_hf.methods.CombinedScorer`].
        overwrite (`bool`, *optional*, defaults to `False`): whether to replace an existing column `scar_score`.
        criteria ([`~scar_hf.selecting.criteria.Criteria`], *optional*):
            With a `prefilter`, only rows that these criteria may select are scored, and the ranking selects by no others.
        cache (`bool`, *optional*, defaults to `True`):
            Whether to cache scores on disk, keyed by row content and ranker.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.
        settings: further arguments of [`ScarScorer`].

    Returns:
        [`ScarRanking`].

    Raises:
        `ValueError`: if the columns match no format, `scar_score` exists, or the method does not exist.

    Example:

    ```python
    >>> from datasets import load_dataset
    >>> from scar_hf import scar_rank

    >>> ranking = scar_rank(load_dataset("databricks/databricks-dolly-15k", split="train"))
    >>> best, threshold = ranking.top(0.1), ranking.threshold(0.1)
    ```
    """
    check_dataset(
        ds, "scar_rank", f"Its best rows are unknown before its end. Filter it with {_OF_A_STREAM}, or use streaming=False."
    )
    if SCORE_COLUMN in ds.column_names and not overwrite:
        raise ValueError(
            f"The data already has a column {SCORE_COLUMN!r}. Remove it, or pass overwrite=True (--overwrite-scores on the "
            "command line) to replace it."
        )
    scorer = _scorer_of(ds, model, method, {"lm": lm, "seed": seed, "combine": combine}, settings)
    scored = score_source(ds, scorer, cache, progress, criteria)
    source = dataset_source(ds, sha256(scored.hashes.tobytes()).hexdigest())
    if SCORE_COLUMN in ds.column_names:
        ds = ds.remove_columns(SCORE_COLUMN)
    ds = with_scores(ds, scored.scores)
    only_for = None if scored.prefilter is None else criteria
    of_rows = (ds, scored.scores, scored.skipped, scored.truncated)
    return ScarRanking(*of_rows, scorer.describe(), source, scorer, progress, only_for, scored.prefilter)


@with_criteria
def scar_select(
    ds: DatasetOrDict, k: Criteria | float | None = None, *, sft_format: bool = False, **kwargs: Any
) -> DatasetOrDict:
    """
    Keep the best rows of an instruction set: `scar_rank(ds).select(...).dataset`.

    Args:
        ds ([`~datasets.Dataset`] or [`~datasets.DatasetDict`]):
            The rows, as in [`scar_rank`]. Each split of a `DatasetDict` is selected separately.
        k ([`~scar_hf.selecting.criteria.Criteria`], `float` or `int`, *optional*):
            A share in (0, 1] (floor(k·n), at least 1), a count >= 1, or complete criteria. By default a tenth, unless
            `threshold` is given.
        {criteria}
        sft_format (`bool`, *optional*, defaults to `False`):
            Whether to convert the rows for TRL's `SFTTrainer` with [`~scar_hf.trainer_callbacks.to_sft_format`].
        kwargs: further arguments of [`scar_rank`].

    Returns:
        [`~datasets.Dataset`] or [`~datasets.DatasetDict`]: the kept rows in their original order, with all columns and
        `scar_score`.

    Raises:
        `ValueError`: if the criteria are out of range or name a column that does not exist, or as in [`scar_rank`].

    Example:

    ```python
    >>> SFTTrainer(model, train_dataset=scar_select(ds, k=0.1, sft_format=True))
    >>> scar_select(ds, k=0.1, stratify_by="source", diversity=0.3)  # keeps source shares, avoids near-duplicates
    >>> scar_select(ds, k=0.01, prefilter=0.1)  # scores only the most promising tenth, and reports what may be missing
    ```
    """
    criteria, kwargs = Criteria.take(k, kwargs, default=0.1)
    for split in ds.values() if isinstance(ds, DatasetDict) else [ds]:
        if getattr(split, "column_names", None) is not None:
            criteria.check_columns(split.column_names)
    if isinstance(ds, DatasetDict):
        return DatasetDict({name: scar_select(split, criteria, sft_format=sft_format, **kwargs) for name, split in ds.items()})
    scorer = kwargs.get("model")
    given = scorer.settings.formatting_func if isinstance(scorer, ScarScorer) else kwargs.get("formatting_func")
    if sft_format and given is not None:
        SftRows.of(ds.column_names, PairReader(formatting_func=given))  # raises before the rows are scored
    ranking = scar_rank(ds, criteria=criteria, **kwargs)
    best = ranking.top(criteria)
    return for_trl(best, ranking.scorer.reader) if sft_format and ranking.scorer is not None else best


def _scorer_of(
    ds: Dataset,
    model: str | ScarScorer,
    method: str | Mapping[str, float],
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> ScarScorer:
    if not isinstance(model, ScarScorer):
        return method_scorer(method, columns_of_data=ds.column_names, model=model, **options, **settings)
    if method != "scar":
        raise ValueError(f"Pass a scorer as `model`, or a method by its name, got both; the method is {method!r}.")
    return model
