"""The input of a report: all rows, their scores, the rows kept, and the manifest of the run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..files import Shard, file_named, open_shards
from ..manifest.description import describe_files, describe_selection, hash_inputs
from ..manifest.sidecars import find_manifest, manifest_of
from ..rows.pairs import PairReader
from ..rows.source import ShardRows, columns_of_shard
from ..runs import score_shards
from ..runs.run import join
from ..scoring.chunks import short_hash
from ..scoring.datasets import ScoredRows
from ..scoring.scorer import NOT_FINITE, SCORE_COLUMN, ScarScorer
from ..selecting.choice import decide
from ..selecting.criteria import Criteria, criteria_in_words
from ..selecting.explanations import Explainer
from ..selecting.top_k import top_indices

# A larger difference between scores of the same row means another ranker or setting; bfloat16 and hardware cause less.
_SAME_SCORE = 0.05


@dataclass
class Selected:
    """
    A selection with all that it was made from.

    Args:
        name (`str`): the name of the data.
        shards (`list[Shard]`): the data.
        reader ([`~scar_hf.rows.pairs.PairReader`]): how its rows are read.
        scored ([`~scar_hf.scoring.datasets.ScoredRows`]): the scores of its n rows.
        kept (`np.ndarray`): numbers of the rows kept, ascending.
        manifest (`dict`): of the selection.
        dropped (`dict[int, str]`): reasons of the rows left out by curation, by row number.
        output (`str`, *optional*): path of the rows kept.
        notes (`list[str]`): notes for the reader.
    """

    name: str
    shards: list[Shard]
    reader: PairReader
    scored: ScoredRows
    kept: np.ndarray
    manifest: dict[str, Any]
    dropped: dict[int, str] = field(default_factory=dict)
    output: str | None = None
    notes: list[str] = field(default_factory=list)

    def _criteria(self) -> str:
        options = self.manifest.get("options") or {}
        found = criteria_in_words(options.get("stratify_by"), options.get("diversity") or 0.0)
        return found or "criteria that its manifest does not name"

    def __post_init__(self):
        eligible = self.scored.scores.copy()
        eligible[list(self.dropped)] = np.nan
        best = top_indices(eligible, len(self.kept)) if len(self.kept) else self.kept
        self.by_score = np.array_equal(best, self.kept)
        criteria = "" if self.by_score else self._criteria()
        if criteria:
            self.notes.append(f"The rows kept are not simply the {len(self.kept):,} best by score: {criteria} decided, too.")
        read = (self.manifest.get("settings") or {}).get("max_length") or 0
        self.explainer = Explainer(self.scored, self.kept, read, self.dropped, criteria)


def read_selection(
    before: str | Path,
    after: str | Path | None,
    scorer: ScarScorer,
    k: Criteria | float | None = None,
    *,
    split: str | None = None,
    cache: bool = True,
    engine: Callable[..., list[ScoredRows]] | None = None,
    progress: bool = True,
) -> Selected:
    """
    Match the rows of a selection to the data by instruction and response, each row of the selection once.

    Args:
        before (`str` or `Path`): what [`~scar_hf.files.open_shards`] reads. Scores are taken from a column `scar_score` if
            there is one, otherwise computed or read from the cache.
        after (`str` or `Path`, *optional*): the selection; without it, the best `k` are used.
        scorer ([`ScarScorer`]): reads and scores the data.
        k ([`~scar_hf.selecting.criteria.Criteria`], `float` or `int`, *optional*): criteria to apply instead of `after`.
        split, cache, engine, progress: as for [`~scar_hf.runs.select_files`].

    Returns:
        [`Selected`].

    Raises:
        `ValueError`: if neither or both of `after` and `k` are given, or no row of `after` is in `before`.
    """
    if (after is None) == (k is None):
        raise ValueError("A report needs the selection or `k`, and not both: name what scar-hf select wrote, or pass -k.")
    criteria = None if k is None else Criteria.of(k)
    manifest = None if after is None else manifest_of(after)
    shards = open_shards(before, split)
    after_shards = [] if after is None else open_shards(after)
    parts = _scores_in(shards, scorer.reader) or (engine or score_shards)(shards, scorer, cache=cache, progress=progress)
    scored = join(parts)
    notes: list[str] = []
    dropped: dict[int, str] = {}
    if after is None:
        assert criteria is not None
        source = ShardRows(shards, scorer.reader, len(scored.scores))
        kept, dropped = decide(source, scored.scores, criteria, scorer, progress)
    else:
        dropped = _dropped_rows(after, manifest, shards, [len(part.scores) for part in parts])
        kept = _find(scored, dropped, after_shards, scorer.reader, str(after), notes)
    if manifest is None:
        if after is not None:
            notes.append("The selection has no manifest, so it is unknown how it was made.")
        manifest = describe_files(before, shards, scorer, {"k": None} if criteria is None else criteria.describe())
        manifest["selection"] = describe_selection(scored, kept) | {"dropped": len(dropped)}
    elif {entry.get("sha256") for entry in manifest["inputs"]} != {e.get("sha256") for e in hash_inputs(before, shards)}:
        notes.append("The data differs from the files named in the manifest of the selection.")
    return Selected(
        str(before), shards, scorer.reader, scored, kept, manifest, dropped, None if after is None else str(after), notes
    )


def batches_of(
    shards: Sequence[Shard], reader: PairReader, extra: Sequence[str] = ()
) -> Iterator[tuple[int, int, dict[str, list]]]:
    """
    Read rows a thousand at a time; from columnar files, read only the columns needed.

    Args:
        shards (`Sequence[Shard]`): the data.
        reader ([`~scar_hf.rows.pairs.PairReader`]): determines which columns are needed.
        extra (`Sequence[str]`): additional columns; those that a shard lacks are left out.

    Returns:
        `Iterator` of the number of the first row, the number of rows, and the columns by name, `None` where a row has no value.
    """
    start = 0
    for shard in shards:
        for count, columns in columns_of_shard(shard, reader, extra):
            yield start, count, columns
            start += count


def _scores_in(shards: Sequence[Shard], reader: PairReader) -> list[ScoredRows] | None:
    """The scores in the data, one part per shard; `None` if it has none."""
    first = next(iter(batches_of(shards, reader, [SCORE_COLUMN])), None)
    if first is None or SCORE_COLUMN not in first[2]:
        return None
    parts, start = [], 0
    for shard in shards:
        scores, hashes = [np.empty(0, np.float32)], [np.empty(0, np.uint64)]
        skipped: dict[int, str] = {}
        for _, count, columns in batches_of([shard], reader, [SCORE_COLUMN]):
            values, rows = _as_scores(columns.get(SCORE_COLUMN, [None] * count), shard.name), reader.read(columns)
            values[[i for i, row in enumerate(rows) if row.problem is not None]] = np.nan
            skipped |= {start + int(i): rows[i].problem or NOT_FINITE for i in np.flatnonzero(np.isnan(values))}
            scores.append(values)
            hashes.append(np.array([short_hash(row) for row in rows], dtype=np.uint64))
            start += count
        joined = np.concatenate(scores)
        parts.append(ScoredRows(joined, np.zeros(len(joined), dtype=bool), np.concatenate(hashes), skipped))
    return parts


def _as_scores(values: Sequence[Any], where: str) -> np.ndarray:
    try:
        scores = np.array([np.nan if value is None else value for value in values], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The column {SCORE_COLUMN!r} of {where} must hold numbers: {error}.") from error
    scores[~np.isfinite(scores)] = np.nan
    return scores


def _find(
    scored: ScoredRows, dropped: Mapping[int, str], after: Sequence[Shard], reader: PairReader, name: str, notes: list[str]
) -> np.ndarray:
    """Numbers of the rows of the data that are in the selection; among equal rows, the earliest."""
    hashes, scores = [np.empty(0, np.uint64)], [np.empty(0, np.float32)]
    for _, count, columns in batches_of(after, reader, [SCORE_COLUMN]):
        rows = reader.read(columns)
        good = [i for i, row in enumerate(rows) if row.problem is None]
        hashes.append(np.array([short_hash(rows[i]) for i in good], dtype=np.uint64))
        scores.append(_as_scores(columns.get(SCORE_COLUMN, [None] * count), name)[good])
    wanted, first, counts = np.unique(np.concatenate(hashes), return_index=True, return_counts=True)
    eligible = ~np.isnan(scored.scores)
    eligible[list(dropped)] = False
    numbers = np.flatnonzero(eligible)
    numbers = numbers[np.argsort(scored.hashes[numbers], kind="stable")]
    ordered = scored.hashes[numbers]
    at = np.minimum(np.searchsorted(wanted, ordered), max(0, len(wanted) - 1))
    found = wanted[at] == ordered if len(wanted) else np.zeros(len(ordered), dtype=bool)
    nth = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    taken = found & (nth < counts[at]) if len(wanted) else found
    missing = int(counts.sum()) - int(taken.sum())
    if missing and not taken.any():
        raise ValueError(
            f"None of the {missing:,} rows of {name} is in the data. Pass the data that it was selected from, and the same "
            "columns and turn."
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
    """Reasons of the rows left out by curation, from the list next to the selection."""
    file, name = find_manifest(after), (manifest or {}).get("dropped_rows")
    if file is None or not name or not file_named(file.parent, name).is_file():
        return {}
    starts = dict(zip((shard.name for shard in shards), np.cumsum([0, *counts]).tolist(), strict=False))
    lines = [row for shard in open_shards(file_named(file.parent, name)) for batch in shard.batches() for row in batch]
    rows = {starts[line["shard"]] + line["row"]: str(line["reason"]) for line in lines if line.get("shard") in starts}
    return {number: reason for number, reason in rows.items() if number < sum(counts)}
