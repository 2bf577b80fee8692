"""The result of a selection: the rows kept and dropped, the reasons, and methods to save, report and share it."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, Value, load_from_disk
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from .files import atomic_write
from .overview import Overview, Shown, best_and_worst
from .rows.pairs import PairReader, kind_of_reason
from .rows.source import RowSource
from .runs.selected import Selected
from .scoring.datasets import Prefilter, ScoredRows, with_scores
from .scoring.scorer import SCORE_COLUMN, ScarScorer
from .selecting.audit import audit_in_words

if TYPE_CHECKING:
    import pandas as pd

    from .hub_cards import PushReport
    from .report import SelectionReport

_MANIFEST, _SCORES = "manifest.json", "selection.safetensors"


@dataclass(eq=False, repr=False)
class Selection(Shown, Selected):
    """
    The result of [`ScarRanking.select`], or of a selection in files: [`Selection.from_files`].

    Args:
        rows, scored, indices, manifest, curated, output, notes, scorer: see [`~scar_hf.runs.selected.Selected`].

    Example:

    ```python
    >>> from scar_hf import scar_rank

    >>> selection = scar_rank(ds).select(0.25, stratify_by="source")
    >>> len(selection), len(selection.dropped), selection.threshold > 0
    (6, 18, ...)
    >>> best = selection.dataset
    ```
    """

    @cached_property
    def all_rows(self) -> Dataset:
        """All rows, with all columns and `scar_score`; rows from files are read into memory."""
        ds = self.rows.dataset
        return ds if SCORE_COLUMN in ds.column_names else with_scores(ds, self.scored.scores)

    @property
    def dataset(self) -> Dataset:
        """The kept rows, in their original order."""
        return self.all_rows.select(self.indices)

    @property
    def dropped(self) -> Dataset:
        """All other rows, including those without a score, in their original order."""
        return self.all_rows.select(np.setdiff1d(np.arange(len(self.all_rows)), self.indices))

    def explain(self) -> Dataset:
        """
        Return all rows with `scar_rank` (1 is the best), `scar_decision` ("kept", "dropped" or "skipped") and `scar_reason`.

        Raises:
            `ValueError`: if the data already has one of these columns.
        """
        ds = self.all_rows
        for name, values in self.explainer.columns(0, len(ds)).items():
            if name in ds.column_names:
                raise ValueError(f"The data already has a column {name!r}. Remove it first.")
            feature = Value("int64") if name == "scar_rank" else Value("string")
            ds = ds.add_column(name, values.to_pylist(), feature=feature)
        return ds

    def to_pandas(self) -> "pd.DataFrame":
        """Return the kept rows as a data frame, indexed by their row numbers in the data."""
        frame = self.dataset.to_pandas()
        frame.index = self.indices
        return frame

    def report(self, path: str | Path | None = None, *, group_by: str | None = None, **kwargs: Any) -> "SelectionReport":
        """
        Report which rows were kept and why, on an HTML page that opens offline.

        Args:
            path (`str` or `Path`, *optional*): the page to write; by default none is written.
            group_by (`str`, *optional*): a column by which to count rows, such as `source`.
            kwargs: see [`~scar_hf.report.report_selection`]: `lm` for surprisal, `language`, `seed`, and the sizes of samples.

        Returns:
            [`~scar_hf.report.SelectionReport`]: its `numbers`, and `.save_figures(folder)`.

        Raises:
            `ValueError`: if there is no such column.
            `ImportError`: without matplotlib.
        """
        from .report import report_selection

        report = report_selection(self, group_by=group_by, **kwargs)
        if path is not None:
            report.save(path)
        return report

    def push_to_hub(self, repo_id: str, *, card: Mapping[str, Any] | None = None, **kwargs: Any) -> "PushReport":
        """
        Upload the kept rows to the Hub in one commit, as a dataset with manifest, card and figures.

        Args:
            repo_id (`str`): the repository, such as `"me/dolly-scar-10pct"`.
            card (`Mapping`, *optional*): arguments of [`~scar_hf.hub_cards.selection_card`], such as `license`.
            kwargs: see [`~scar_hf.hub_cards.push`]: `private`, `revision`, `token`, `message`, `dry_run`, `overwrite`.

        Returns:
            [`~scar_hf.hub_cards.PushReport`].

        Raises:
            `ValueError`, `OSError`: see [`~scar_hf.hub_cards.push`].
        """
        from .hub_cards import push, ranking_contents

        def build(repo_id: str, found: str | None, folder: Path) -> Mapping[str, Path]:
            return ranking_contents(self, folder, **{"repo_id": repo_id, "card": found, **(card or {})})

        return push(build, repo_id, "dataset", **kwargs)

    def save(self, folder: str | Path) -> None:
        """
        Save all rows (`Dataset.save_to_disk`), their scores, the numbers of the kept rows and the manifest, for
        [`Selection.load`].

        Args:
            folder (`str` or `Path`): the output folder, created if needed.
        """
        folder = Path(folder)
        self.all_rows.save_to_disk(str(folder))
        arrays = {"scores": self.scored.scores, "truncated": self.scored.truncated, "indices": self.indices.astype(np.int64)}
        if self.scored.prefilter is not None:
            arrays["fast_scores"] = self.scored.prefilter.scores
        notes = {"skipped": self.scored.skipped, "curated": self.curated}
        save_file(arrays, folder / _SCORES, metadata={name: json.dumps(value) for name, value in notes.items()})
        with atomic_write(folder / _MANIFEST) as out:
            out.write(f"{json.dumps(self.manifest, indent=2, ensure_ascii=False)}\n".encode())

    @classmethod
    def load(cls, folder: str | Path, scorer: ScarScorer | None = None) -> "Selection":
        """
        Load a selection that [`Selection.save`] wrote.

        Args:
            folder (`str` or `Path`): the folder.
            scorer ([`ScarScorer`], *optional*):
                The scorer; required for the map in a report, and to read rows if it has a `formatting_func`.

        Returns:
            [`Selection`].

        Raises:
            `ValueError`: if the folder is not a saved selection, or is damaged.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            arrays = load_file(folder / _SCORES)
            with safe_open(folder / _SCORES, framework="np") as file:
                notes = {name: json.loads((file.metadata() or {})[name]) for name in ("skipped", "curated")}
            scores, truncated, indices = arrays["scores"], arrays["truncated"], arrays["indices"]
            all_rows = load_from_disk(str(folder))
            name, reader = str(manifest["data"]), PairReader.of(manifest["settings"]) if scorer is None else scorer.reader
            reasons = [{int(row): str(why) for row, why in notes[name].items()} for name in ("skipped", "curated")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ValueError(f"{folder} is not a saved selection, or is damaged: {error!r}.") from error
        whole = isinstance(all_rows, Dataset) and len(all_rows) == len(scores) == len(truncated)
        if not whole or (len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(scores)):
            raise ValueError(f"{folder} is damaged: its rows and its scores do not belong together.")
        report = manifest["selection"].get("prefilter")
        prefilter = Prefilter(arrays["fast_scores"], report) if report and "fast_scores" in arrays else None
        scored = ScoredRows(scores, truncated, np.empty(0, dtype=np.uint64), reasons[0], prefilter)
        return cls(RowSource(all_rows, reader, name=name), scored, indices, manifest, reasons[1], scorer=scorer)

    def overview(self) -> Overview:
        """Describe the selection, for shells and notebooks."""
        scores = self.scored.scores
        examples = best_and_worst(self.rows, scores) if self.rows.reader.can_read else []
        return Overview("Selection", self._facts(), scores, self.indices, examples)

    def _facts(self) -> list[tuple[str, str]]:
        n, skipped = len(self.scored.scores), self.scored.skipped
        facts = [("kept", f"{len(self):,} of {n:,} rows" + (f" ({len(self) / n:.1%})" if n else ""))]
        if len(self):
            facts.append(("threshold", f"{self.threshold:.3f}"))
        if self.scored.prefilter is not None:
            facts.append(("prefilter", audit_in_words(self.scored.prefilter.report)))
        if self.criteria:
            facts.append(("besides the score", self.criteria))
        for name, reasons in (("left out by curation", self.curated), ("without a score", skipped)):
            if reasons:
                kinds = Counter(map(kind_of_reason, reasons.values())).most_common(3)
                facts.append((name, f"{len(reasons):,} ({'; '.join(f'{count:,} × {kind}' for kind, count in kinds)})"))
        return facts
