"""Explains why single rows are kept or dropped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ..files import open_shards
from ..manifest.sidecars import places_of
from ..rows.source import RowSource
from ..scoring.datasets import ScoredRows, join
from ..scoring.scorer import ScarScorer
from ..selecting.cascade import score_for
from ..selecting.choice import Choice, decide
from ..selecting.criteria import Criteria
from ..selecting.explanations import Explainer
from .observations import MEASURES, Observations
from .run import score_shards


@dataclass
class ExplainedRow:
    """
    A row, the decision whether to keep it, and the reason.

    Args:
        number (`int`): its number, counted from 0 over all shards.
        shard (`str`): the shard it is in.
        decision (`str`): "kept", "dropped" or "skipped".
        reason (`str`): the reason.
        instruction, response (`str`): the scored texts.
        measures (`list[tuple]`): name, value and quartiles over the kept rows, for some measures of linguistic form.
    """

    number: int
    shard: str
    decision: str
    reason: str
    instruction: str = ""
    response: str = ""
    measures: list[tuple[str, float, float, float]] = field(default_factory=list)


def explain_rows(
    data: str | Path,
    scorer: ScarScorer,
    k: Criteria | float,
    numbers: Sequence[int],
    *,
    split: str | None = None,
    cache: bool = True,
    engine: Callable[..., list[ScoredRows]] | None = None,
) -> list[ExplainedRow]:
    """
    Explain rows of a selection. If the selection was run before, its scores are read from the cache.

    Args:
        data (`str` or `Path`): the data of the selection.
        scorer ([`ScarScorer`]): the scorer.
        k ([`~scar_hf.selecting.criteria.Criteria`], `float` or `int`): the criteria of the selection.
        numbers (`Sequence[int]`): the rows, counted from 0 over all shards.
        split, cache, engine: see [`~scar_hf.runs.select_files`].

    Returns:
        `list[ExplainedRow]`: in the order of `numbers`.

    Raises:
        `ValueError`: if there is no such row.
    """
    shards = open_shards(data, split)
    criteria = Criteria.of(k)
    choice = Choice(RowSource(shards, scorer.reader), criteria)
    parts = score_for(choice, scorer, partial(engine or score_shards, cache=cache, progress=True))
    scored = join(parts)
    n = len(scored.scores)
    outside = [number for number in numbers if not 0 <= number < n]
    if outside:
        raise ValueError(f"There is no row {outside[0]}: {data} has {n:,} rows, counted from 0.")
    kept, dropped = decide(choice, scored.scores, scorer, progress=True)
    explainer = Explainer(scored, kept, scorer.read_length, dropped, criteria.in_words())
    observations = Observations(scorer.reader, scored.scores, kept, examples=numbers)
    places = places_of(numbers, shards, [len(part.scores) for part in parts])
    names = scorer.reader.needed(shards[0].column_names() or []) if shards[0].column_names() else None
    start = 0
    for shard in shards:
        for batch in shard.batches(columns=names):
            observations.see(batch, start)
            start += len(batch)
    explained = []
    for number in numbers:
        row, _ = observations.examples[number]
        result = ExplainedRow(number, places[number][0], explainer.decision(number), explainer.reason(number))
        result.instruction, result.response = row.instruction, row.response
        for name, measure in MEASURES:
            if row.problem is None and observations.after[name]:
                low, high = np.nanquantile(observations.after[name], [0.25, 0.75])
                result.measures.append((name, float(measure(row.response)), float(low), float(high)))
        explained.append(result)
    return explained
