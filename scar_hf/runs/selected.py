"""A selection with its inputs: the base class of `Selection`, and the source of reports and cards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..files import Shard, file_named, open_shards
from ..manifest.description import describe_files, describe_selection, hash_inputs
from ..manifest.sidecars import find_manifest, manifest_of
from ..rows.pairs import PairReader
from ..rows.source import RowSource
from ..scoring.chunks import short_hash
from ..scoring.datasets import ScoredRows, join
from ..scoring.scorer import NOT_FINITE, SCORE_COLUMN, ScarScorer
from ..selecting.cascade import score_for
from ..selecting.choice import Choice, decide
from ..selecting.criteria import Criteria, criteria_in_words
from ..selecting.explanations import Explainer
from ..selecting.top_k import eligible_scores, threshold_of, top_indices
from .run import score_shards

# A larger difference between scores of the same row means a different ranker or setting; bfloat16 and hardware cause less.
_SAME_SCORE = 0.05


@dataclass(eq=False)
class Selected:
    """
    A selection with its inputs: rows, scores, criteria and scorer.

    Args:
        rows ([`~scar_hf.rows.source.RowSource`]): all n rows, from a dataset or files.
        scored ([`~scar_hf.scoring.datasets.ScoredRows`]): their scores.
        indices (`np.ndarray`): int64, the numbers of the kept rows, ascending.
        manifest (`dict`): data, ranker, settings, versions, counts and threshold, as in `manifest.json`; contains no text
            from the rows.
        curated (`dict[int, str]`): the reasons of the rows that curation dropped, by row number.
        output (`str`, *optional*): the path of the kept rows.
        notes (`list[str]`): notes for readers of a report.
        scorer ([`ScarScorer`], *optional*): the scorer; required for the map in a report.
    """

    rows: RowSource
    scored: ScoredRows
    indices: np.ndarray
    manifest: dict[str, Any]
    curated: dict[int, str] = field(default_factory=dict)
    output: str | None = None
    notes: list[str] = field(default_factory=list)
    scorer: ScarScorer | None = None

    @classmethod
    def from_files(
        cls,
        before: str | Path,
        after: str | Path | None,
        scorer: ScarScorer,
        k: Criteria | float | None = None,
        *,
        split: str | None = None,
        cache: bool = True,
        engine: Callable[..., list[ScoredRows]] | None = None,
        progress: bool = True,
    ) -> Self:
        """
        Read a selection from files. Each of its rows is matched to one row of the data by instruction and response.

        Args:
            before (`str` or `Path`):
                The data, as read by [`~scar_hf.files.open_shards`]. Scores are taken from a column `scar_score` if there is
                one, otherwise computed or read from the cache.
            after (`str` or `Path`, *optional*): the selection; without it, `k` is applied.
            scorer ([`ScarScorer`]): reads and scores the data.
            k ([`~scar_hf.selecting.criteria.Criteria`], `float` or `int`, *optional*): criteria to apply instead of `after`.
            split, cache, engine, progress: see [`~scar_hf.runs.select_files`].

        Raises:
            `ValueError`: if neither or both of `after` and `k` are given, or no row of `after` is in `before`.
        """
        if (after is None) == (k is None):
            raise ValueError("A report needs the selection or `k`, and not both: name what scar-hf select wrote, or pass -k.")
        manifest = None if after is None else manifest_of(after)
        shards = open_shards(before, split)
        criteria = None if k is None else Criteria.of(k)
        scoring = partial(engine or score_shards, cache=cache, progress=progress)
        source = RowSource(shards, scorer.reader, str(before))
        choice = Choice(source, criteria or Criteria())
        parts = _scores_in(shards, scorer.reader) or score_for(choice, scorer, scoring)
        scored = join(parts)
        source.count = len(scored.scores)
        notes: list[str] = []
        if criteria is not None:
            criteria.check_columns(source.column_names())
            options = criteria.describe()
            kept, curated = decide(choice, scored.scores, scorer, progress)
        else:
            assert after is not None
            options = {"k": None}
            curated = _dropped_rows(after, manifest, shards, [len(part.scores) for part in parts])
            kept = _find(scored, curated, RowSource(open_shards(after), scorer.reader, name=str(after)), notes)
        if manifest is None:
            if after is not None:
                notes.append("The selection has no manifest, so it is unknown how it was made.")
            manifest = describe_files(before, shards, scorer, options)
            manifest["selection"] = describe_selection(scored, kept) | {"dropped": len(curated)}
        elif {entry.get("sha256") for entry in manifest["inputs"]} != {e.get("sha256") for e in hash_inputs(before, shards)}:
            notes.append("The data differs from the files named in the manifest of the selection.")
        return cls(source, scored, kept, manifest, curated, None if after is None else str(after), notes, scorer)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def threshold(self) -> float:
        """The lowest score kept, or NaN if nothing was kept."""
        return threshold_of(self.scored.scores, self.indices)

    @property
    def reasons(self) -> dict[int, str]:
        """The reason of each row that was not kept, by row number."""
        return {i: self.explainer.reason(i) for i in np.flatnonzero(~self.explainer.is_kept).tolist()}

    @cached_property
    def by_score(self) -> bool:
        """Whether the kept rows are simply the best of those that passed curation."""
        best = top_indices(eligible_scores(self.scored.scores, self.curated), len(self)) if len(self) else self.indices
        return np.array_equal(best, self.indices)

    @property
    def criteria(self) -> str:
        """The criteria other than score and curation, in words; empty if there are none."""
        options = self.manifest.get("options") or {}
        return criteria_in_words(options.get("stratify_by"), options.get("diversity") or 0.0)

    @cached_property
    def explainer(self) -> Explainer:
        """The rank, decision and reason of each row."""
        words = self.criteria or ("" if self.by_score else "criteria that its manifest does not name")
        read = (self.manifest.get("settings") or {}).get("max_length") or 0
        return Explainer(self.scored, self.indices, read, self.curated, words)


def _scores_in(shards: Sequence[Shard], reader: PairReader) -> list[ScoredRows] | None:
    """Read the scores in the data, one part per shard; return `None` if it has none."""
    parts, start = [], 0
    for shard, part in zip(shards, RowSource(shards, reader).parts([SCORE_COLUMN]), strict=True):
        scores, hashes = [np.empty(0, np.float32)], [np.empty(0, np.uint64)]
        skipped: dict[int, str] = {}
        for rows, columns in part:
            if not start and SCORE_COLUMN not in columns:
                return None
            values = _as_scores(columns.get(SCORE_COLUMN, [None] * len(rows)), shard.name)
            values[[i for i, row in enumerate(rows) if row.problem is not None]] = np.nan
            skipped |= {start + int(i): rows[i].problem or NOT_FINITE for i in np.flatnonzero(np.isnan(values))}
            scores.append(values)
            hashes.append(np.array([short_hash(row) for row in rows], dtype=np.uint64))
            start += len(rows)
        joined = np.concatenate(scores)
        parts.append(ScoredRows(joined, np.zeros(len(joined), dtype=bool), np.concatenate(hashes), skipped))
    return parts if start else None


def _as_scores(values: Sequence[Any], where: str) -> np.ndarray:
    try:
        scores = np.array([np.nan if value is None else value for value in values], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The column {SCORE_COLUMN!r} of {where} must hold numbers: {error}.") from error
    scores[~np.isfinite(scores)] = np.nan
    return scores


def _find(scored: ScoredRows, curated: Mapping[int, str], after: RowSource, notes: list[str]) -> np.ndarray:
    """Return the numbers of the rows of the data that are in the selection; among equal rows, the earliest."""
    hashes, scores = [np.empty(0, np.uint64)], [np.empty(0, np.float32)]
    for rows, columns in chain.from_iterable(after.parts([SCORE_COLUMN])):
        good = [i for i, row in enumerate(rows) if row.problem is None]
        hashes.append(np.array([short_hash(rows[i]) for i in good], dtype=np.uint64))
        scores.append(_as_scores(columns.get(SCORE_COLUMN, [None] * len(rows)), after.name)[good])
    wanted, first, counts = np.unique(np.concatenate(hashes), return_index=True, return_counts=True)
    numbers = np.flatnonzero(~np.isnan(eligible_scores(scored.scores, curated)))
    numbers = numbers[np.argsort(scored.hashes[numbers], kind="stable")]
    ordered = scored.hashes[numbers]
    at = np.minimum(np.searchsorted(wanted, ordered), max(0, len(wanted) - 1))
    found = wanted[at] == ordered if len(wanted) else np.zeros(len(ordered), dtype=bool)
    nth = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    taken = found & (nth < counts[at]) if len(wanted) else found
    missing = int(counts.sum()) - int(taken.sum())
    if missing and not taken.any():
        raise ValueError(
            f"None of the {missing:,} rows of {after.name} is in the data. Pass the data that it was selected from, and the "
            "same columns and turn."
        )
    if missing:
        notes.append(f"{missing:,} rows of the selection are not in the data and not shown here.")
    off = np.abs(np.concatenate(scores)[first][at[taken]] - scored.scores[numbers[taken]])
    if len(off) and np.nanmax(off, initial=0) > _SAME_SCORE:
        notes.append(
            f"The scores in the selection differ from those here by up to {np.nanmax(off):.2f}: they come from another ranker "
            "or from other settings."
        )
    return np.sort(numbers[taken])


def _dropped_rows(
    after: str | Path, manifest: Mapping[str, Any] | None, shards: Sequence[Shard], counts: Sequence[int]
) -> dict[int, str]:
    """Read the reasons of the rows left out by curation from the list next to the selection."""
    file, name = find_manifest(after), (manifest or {}).get("dropped_rows")
    if file is None or not name or not file_named(file.parent, name).is_file():
        return {}
    starts = dict(zip((shard.name for shard in shards), np.cumsum([0, *counts]).tolist(), strict=False))
    lines = [row for shard in open_shards(file_named(file.parent, name)) for batch in shard.batches() for row in batch]
    rows = {starts[line["shard"]] + line["row"]: str(line["reason"]) for line in lines if line.get("shard") in starts}
    return {number: reason for number, reason in rows.items() if number < sum(counts)}
