"""Combine several methods into one score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..ranks import mean_ranks
from ..rows.source import RowSource
from ..scoring.datasets import ScoredRows
from ..scoring.scorer import ScarScorer
from .options import COMBINATIONS
from .scorer import MethodScorer, score_with

# Reciprocal rank fusion: the larger this constant, the less the first ranks dominate (Cormack, Clarke and Buettcher, 2009).
_RANK_OFFSET = 60


class CombinedScorer(MethodScorer):
    """
    A weighted sum of methods. A row that any of them cannot score gets no score.

    Args:
        members (`Sequence` of `(ScarScorer, float)`): the methods and their nonzero weights. A negative weight favours low
            scores.
        combine (`str`, *optional*, defaults to `"reciprocal_rank"`):
            `"reciprocal_rank"`: each method adds its weight / (60 + rank), where rank 1 is the best row and equal scores share
            their mean rank. `"z_score"`: each method adds its weight times the score's distance from its mean, in standard
            deviations.
        settings: as for [`~scar_hf.ScarScorer`].

    Raises:
        `ValueError`: if `combine` or a weight is out of range.
    """

    def __init__(self, members: Sequence[tuple[ScarScorer, float]], combine: str = "reciprocal_rank", **settings: Any) -> None:
        super().__init__(**settings)
        if combine not in COMBINATIONS:
            raise ValueError(f"`combine` must be one of {COMBINATIONS}, got {combine!r}.")
        for scorer, weight in members:
            if not np.isfinite(weight) or not weight:
                raise ValueError(f"The weight of {scorer.method!r} must be a number other than 0, got {weight!r}.")
        self.members, self.combine = list(members), combine
        self.method = ",".join(f"{scorer.method}={weight:g}" for scorer, weight in members)

    @property
    def read_length(self) -> int:
        """The smallest number of tokens that any method reads of a text; 0 if all read the whole text."""
        return min((scorer.read_length for scorer, _ in self.members if scorer.read_length), default=0)

    @property
    def in_memory(self) -> bool:
        """Whether one of the methods uses a model in memory."""
        return any(scorer.in_memory for scorer, _ in self.members)

    def score_shards(self, source: RowSource, cache: bool, bar: tqdm) -> list[ScoredRows]:
        """Score all rows with each method, and add up the weighted scores."""
        bar.total = None if bar.total is None else bar.total * len(self.members)
        # Each method may read the rows differently.
        found = [score_with(scorer, RowSource(source.shards, scorer.reader), cache, bar) for scorer, _ in self.members]
        total: np.ndarray | None = None
        for parts, (_, weight) in zip(found, self.members, strict=True):
            scores = np.concatenate([part.scores for part in parts]).astype(np.float64) * np.sign(weight)
            scale = _reciprocal_ranks if self.combine == "reciprocal_rank" else _z_scores
            added = abs(weight) * scale(scores)
            total = added if total is None else total + added
        assert total is not None
        joined: list[ScoredRows] = []
        start = 0
        for of_shard in zip(*found, strict=True):
            end = start + len(of_shard[0].scores)
            skipped = {row: why for part in reversed(of_shard) for row, why in part.skipped.items()}
            truncated = np.logical_or.reduce([part.truncated for part in of_shard])
            joined.append(ScoredRows(total[start:end].astype(np.float32), truncated, of_shard[0].hashes, skipped))
            start = end
        return joined

    def own_identity(self) -> dict[str, Any]:
        """Return the identities and weights of the methods."""
        members = [{"weight": weight, **({} if s.in_memory else s.identity())} for s, weight in self.members]
        return {"combine": self.combine, "members": members}

    def describe(self) -> dict[str, Any]:
        """Return the identity for manifests, with the ranker if it is one of the methods."""
        ranker = next((s.describe() for s, _ in self.members if not isinstance(s, MethodScorer)), {})
        return super().describe() | {name: ranker[name] for name in ("model", "revision", "weights") if name in ranker}

    def _arguments(self) -> dict[str, Any]:
        return {"members": self.members, "combine": self.combine}


def _reciprocal_ranks(scores: np.ndarray) -> np.ndarray:
    return 1 / (_RANK_OFFSET + mean_ranks(-scores))


def _z_scores(scores: np.ndarray) -> np.ndarray:
    if np.isnan(scores).all():
        return scores
    return (scores - np.nanmean(scores)) / (np.nanstd(scores) or 1.0)
