"""Count all rows and read the texts of a sample in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..rows.counting import GroupCounts, clean
from ..rows.pairs import RowPairs
from ..runs.selected import Selected

# Most characters kept of a text: this bounds memory and leaves nearly all texts whole.
MOST_CHARACTERS = 20_000


@dataclass
class Samples:
    """
    Row numbers of random samples, each ascending except `shown`.

    Args:
        before (`np.ndarray`): sample of all rows with a score.
        after (`np.ndarray`): sample of the rows kept.
        shown (`np.ndarray`): examples, from best to worst, then rows left out by curation and rows without a score.
        mapped (`np.ndarray`): rows on the map, half of them kept if there are enough.
        read (`np.ndarray`): rows of `before` for the language model.
        read_after (`np.ndarray`): rows of `after` for the language model.
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
    The result of one pass over the rows.

    Args:
        rows (`dict[int, RowPairs]`): the sampled rows, by row number.
        groups (`dict[int, str]`): their values in the `group_by` column.
        counts ([`~scar_hf.rows.counting.GroupCounts`]): number of rows, and of rows kept, with each value.
    """

    rows: dict[int, RowPairs] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)
    counts: GroupCounts = field(default_factory=GroupCounts)


def choose(selected: Selected, sample: int, examples: int, map_rows: int, lm_rows: int, seed: int) -> Samples:
    """
    Draw the samples.

    Args:
        selected ([`Selected`]): the selection.
        sample (`int`): maximum number of rows to measure, both of all rows and of the rows kept.
        examples (`int`): maximum number of rows in the table of examples.
        map_rows (`int`): maximum number of rows on the map.
        lm_rows (`int`): maximum number of rows for the language model, both of all rows and of the rows kept.
        seed (`int`): seed of the draws.

    Returns:
        [`Samples`].
    """
    rng = np.random.default_rng(seed)
    scores, kept = selected.scored.scores, selected.indices
    order = np.argsort(selected.explainer.ranks)
    ranked = order[: selected.explainer.counted]
    scored = np.union1d(ranked, np.flatnonzero(selected.scored.is_unscored))
    others = np.setdiff1d(scored, kept)
    some_kept = _draw(rng, kept, max(map_rows // 2, map_rows - len(others)))
    mapped = np.sort(np.concatenate([some_kept, _draw(rng, others, map_rows - len(some_kept))]))
    curated = np.array(sorted(i for i in selected.curated if not np.isnan(scores[i])), dtype=np.int64)
    # Rows left out by curation and unscored rows get up to a tenth of the table each; all ranks share the rest.
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
        samples ([`Samples`]): the rows to keep.
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
    for place, columns, values in selected.rows.batches([] if group_by is None else [group_by]):
        start, total = place.start, place.stop
        if total > n:
            break
        names |= dict.fromkeys([*columns, *values])
        here = np.flatnonzero(wanted[start:total])
        if group_by is not None:
            groups = seen.counts.add(values.get(group_by, [None] * len(place)), is_kept[start:total])
            seen.groups |= {start + int(i): groups[i] for i in here}
        rows = selected.rows.reader.read({name: [column[i] for i in here] for name, column in columns.items()})
        seen.rows |= {start + int(i): _bounded(row) for i, row in zip(here, rows, strict=True)}
    if total != n:
        raise ValueError(f"{selected.rows.name} changed after it was scored: the number of rows differs. Run the report again.")
    if group_by is not None and n and group_by not in names:
        raise ValueError(f"There is no column {group_by!r} to group by. Columns: {list(names)}.")
    return seen


def _bounded(row: RowPairs) -> RowPairs:
    pair = clean(row.instruction[:MOST_CHARACTERS]), clean(row.response[:MOST_CHARACTERS])
    return RowPairs((pair,), row.problem)


def _draw(rng: np.random.Generator, numbers: np.ndarray | Sequence[int], most: int) -> np.ndarray:
    """Draw at most `most` of the numbers at random, and return them in ascending order."""
    numbers = np.asarray(numbers, dtype=np.int64)
    return np.sort(rng.choice(numbers, size=max(0, most), replace=False)) if len(numbers) > most else np.sort(numbers)
