"""One reading of the rows: what a report counts of all of them, and keeps of a sample."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..rows.pairs import RowPairs
from .source import Selected, batches_of

# Characters that are kept of a text: nearly all texts whole, and a bound on the memory.
MOST_CHARACTERS = 20_000
# Different values of a column that are counted by themselves.
_MOST_GROUPS = 10_000
OTHERS = "(others)"


@dataclass
class Samples:
    """
    Numbers of rows, each ascending, chosen by the seed.

    Args:
        before (`np.ndarray`): of all rows with a score.
        after (`np.ndarray`): of the rows kept.
        shown (`np.ndarray`): examples, from best to worst, then rows left out by curation and rows without a score.
        mapped (`np.ndarray`): for the map, half of them kept where there are enough.
        read (`np.ndarray`): of `before`, for the language model.
        read_after (`np.ndarray`): of `after`, for the language model.
    """

    before: np.ndarray
    after: np.ndarray
    shown: np.ndarray
    mapped: np.ndarray
    read: np.ndarray
    read_after: np.ndarray


@dataclass
class Seen:
    """
    What was seen of the rows.

    Args:
        rows (`dict[int, RowPairs]`): the rows of the samples, by their number.
        groups (`dict[int, str]`): their values in the column.
        counts (`Counter`): how often each value came in.
        counts_kept (`Counter`): and stayed.
    """

    rows: dict[int, RowPairs] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    counts_kept: Counter[str] = field(default_factory=Counter)


def choose(selected: Selected, sample: int, examples: int, map_rows: int, lm_rows: int, seed: int) -> Samples:
    """
    Choose the rows that are looked at.

    Args:
        selected ([`Selected`]): the selection.
        sample (`int`): rows at most for measures, of all and again of those kept.
        examples (`int`): rows at most in the table of examples.
        map_rows (`int`): rows at most on the map.
        lm_rows (`int`): rows at most for the language model, of all and again of those kept.
        seed (`int`): of the choice.

    Returns:
        [`Samples`].
    """
    rng = np.random.default_rng(seed)
    scores, kept = selected.scored.scores, selected.kept
    order = np.argsort(selected.explainer.ranks)
    ranked = order[: selected.explainer.counted]
    scored = np.sort(ranked)
    others = np.setdiff1d(scored, kept)
    some_kept = _draw(rng, kept, max(map_rows // 2, map_rows - len(others)))
    mapped = np.sort(np.concatenate([some_kept, _draw(rng, others, map_rows - len(some_kept))]))
    curated = np.array(sorted(i for i in selected.dropped if not np.isnan(scores[i])), dtype=np.int64)
    # The rare ones get a tenth of the table each, the others share the rest: the best, the worst, and all ranks between.
    rare = [_draw(rng, numbers, examples // 10) for numbers in (curated, np.flatnonzero(np.isnan(scores)))]
    room, n = examples - sum(map(len, rare)), len(ranked)
    third = min(room, n) // 3
    ends = np.union1d(np.arange(third), np.arange(n - third, n))
    middle = np.arange(third, n - third)
    steps = np.linspace(0, max(0, len(middle) - 1), num=min(len(middle), room - len(ends))).astype(np.int64)
    picked = np.union1d(ends, middle[steps])
    shown = np.array(list(dict.fromkeys(np.concatenate([ranked[picked], *rare]).tolist())), dtype=np.int64)
    before, after = _draw(rng, scored, sample), _draw(rng, kept, sample)
    return Samples(before, after, shown, mapped, _draw(rng, before, lm_rows), _draw(rng, after, lm_rows))


def look(selected: Selected, samples: Samples, group_by: str | None) -> Seen:
    """
    Read all rows once.

    Args:
        selected ([`Selected`]): the selection.
        samples ([`Samples`]): which rows to keep.
        group_by (`str`, *optional*): a column whose values are counted over all rows.

    Returns:
        [`Seen`].

    Raises:
        `ValueError`: if the data has no such column, or changed since it was scored.
    """
    n = len(selected.scored.scores)
    wanted = np.zeros(n, dtype=bool)
    for numbers in (samples.before, samples.after, samples.shown, samples.mapped):
        wanted[numbers] = True
    is_kept, seen, total = selected.explainer.is_kept, Seen(), 0
    names: dict[str, None] = {}
    for start, count, columns in batches_of(selected.shards, selected.reader, [] if group_by is None else [group_by]):
        total = start + count
        if total > n:
            break
        names |= dict.fromkeys(columns)
        here = np.flatnonzero(wanted[start:total])
        if group_by is not None:
            values = [_group(value) for value in columns.get(group_by, [None] * count)]
            values = [v if v in seen.counts or len(seen.counts) < _MOST_GROUPS else OTHERS for v in values]
            seen.counts.update(values)
            seen.counts_kept.update(values[i] for i in np.flatnonzero(is_kept[start:total]))
            seen.groups |= {start + int(i): values[i] for i in here}
        rows = selected.reader.read({name: [values[i] for i in here] for name, values in columns.items()})
        seen.rows |= {start + int(i): _bounded(row) for i, row in zip(here, rows, strict=True)}
    if total != n:
        raise ValueError(f"{selected.name} has another number of rows than when it was scored: it was changed meanwhile.")
    if group_by is not None and n and group_by not in names:
        raise ValueError(f"There is no column {group_by!r} to group by. Columns: {list(names)}.")
    return seen


def clean(text: str) -> str:
    """Text as any page and figure takes it: no surrogates that stand alone, no control characters but line ends and tabs."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(
        c if c in "\n\t" or c.isprintable() or c.isspace() or ord(c) > 159 else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _group(value: object) -> str:
    return "(none)" if value is None else " ".join(clean(str(value)[:200]).split())


def _bounded(row: RowPairs) -> RowPairs:
    pair = clean(row.instruction[:MOST_CHARACTERS]), clean(row.response[:MOST_CHARACTERS])
    return RowPairs((pair,), row.problem)


def _draw(rng: np.random.Generator, numbers: np.ndarray | Sequence[int], most: int) -> np.ndarray:
    """So many of the numbers at random, ascending."""
    numbers = np.asarray(numbers, dtype=np.int64)
    return np.sort(rng.choice(numbers, size=max(0, most), replace=False)) if len(numbers) > most else np.sort(numbers)
