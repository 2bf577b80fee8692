"""Select rows that cover the data: the same number from each cluster."""

from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..rows.source import RowSource
from ..scoring.checkpoints import checkpoint_identity, resolve_checkpoint
from ..scoring.chunks import cut_chunks
from ..scoring.datasets import ScoredRows
from ..selecting.diversity import content_space
from .scorer import MethodScorer

_ROUNDS = 25
_BLOCK = 16_384


class DiversityScorer(MethodScorer):
    """
    Clusters rows by spherical k-means on the ranker's encodings of instruction and response, then takes the remaining row
    nearest to the centre from each cluster in turn. For any `k`, the clusters have equal shares of the selection until they
    run out of rows. The score falls linearly from 1 for the first row towards 0. One vector per row is kept in memory.

    Args:
        clusters (`int`, *optional*, defaults to 100): number of clusters; at most one for every five rows.
        seed (`int`, *optional*, defaults to 0): seed of the initial centres.
        settings: as for [`~scar_hf.ScarScorer`], including the ranker.

    Raises:
        `ValueError`: if `clusters` is not positive, or `preference="margin"`.
    """

    method = "diversity"

    def __init__(self, clusters: int = 100, seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        if clusters < 1:
            raise ValueError(f"`clusters` must be at least 1, got {clusters}.")
        self.clusters, self.seed = clusters, seed
        self.check_no_margin(self.method)

    def score_shards(self, source: RowSource, cache: bool, bar: tqdm) -> list[ScoredRows]:
        """Encode all rows, cluster them, and score."""
        vectors: list[np.ndarray] = []
        hashes: list[np.ndarray] = []
        skipped: dict[int, str] = {}
        counts = []
        for part in source.parts():
            before = sum(map(len, vectors))
            for chunk in cut_chunks(row for rows, _ in part for row in rows):
                number = sum(map(len, vectors))
                skipped |= {number + i: row.problem for i, row in enumerate(chunk.rows) if row.problem is not None}
                vectors.append(self.encode_rows(chunk.rows, bar)[:, :2])
                hashes.append(chunk.row_hashes)
            counts.append(sum(map(len, vectors)) - before)
        n = sum(counts)
        if self.settings.strict and skipped:
            row, why = next(iter(skipped.items()))
            raise ValueError(f"Row {row} cannot be scored: {why}.")
        scores = np.full(n, np.nan, dtype=np.float32)
        good = np.array([i for i in range(n) if i not in skipped], dtype=np.int64)
        if len(good):
            space = content_space(np.concatenate(vectors)[good])
            scores[good] = coverage_scores(space, min(self.clusters, max(1, len(good) // 5)), self.seed, self.device)
        ends = np.cumsum(counts)
        joined = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
        return [
            ScoredRows(
                scores[end - count : end],
                np.zeros(count, dtype=bool),
                joined[end - count : end],
                {row: why for row, why in skipped.items() if end - count <= row < end},
            )
            for count, end in zip(counts, ends, strict=True)
        ]

    def own_identity(self) -> dict[str, Any]:
        """Return the clusters, the seed and the ranker, whose encoder compares the rows."""
        weights = self._identity or checkpoint_identity(resolve_checkpoint(self.model_name), self.settings.revision)
        ranker = {"weights": weights, "backend": self.backend, "dtype": self._precision}
        return ranker | self._arguments()

    def describe(self) -> dict[str, Any]:
        """Return the identity for manifests, with the ranker's name and revision."""
        return super().describe() | {"model": self.model_name, "revision": self.settings.revision}

    def _arguments(self) -> dict[str, Any]:
        return {"clusters": self.clusters, "seed": self.seed}


def coverage_scores(space: np.ndarray, clusters: int, seed: int = 0, device: str = "cpu") -> np.ndarray:
    """
    Score rows so that any number of top rows is spread evenly over the clusters.

    Args:
        space (`np.ndarray` of shape `(n, d)`, float32): vectors of length 1.
        clusters (`int`): number of clusters, at most n.
        seed (`int`, *optional*, defaults to 0): seed of the initial centres.
        device (`str`, *optional*, defaults to `"cpu"`): the device that computes distances.

    Returns:
        `np.ndarray` of shape `(n,)`, float32: scores in (0, 1].
    """
    label, nearness = cluster(space, clusters, seed, device)
    by_cluster = np.lexsort((-nearness, label))
    starts = np.searchsorted(label[by_cluster], np.arange(clusters))
    place = np.empty(len(space), dtype=np.int64)
    place[by_cluster] = np.arange(len(space)) - starts[label[by_cluster]]
    order = np.lexsort((-nearness, place))
    scores = np.empty(len(space), dtype=np.float32)
    scores[order] = 1 - np.arange(len(space)) / len(space)
    return scores


def cluster(space: np.ndarray, clusters: int, seed: int = 0, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """
    Cluster vectors by spherical k-means, initialised with k-means++.

    Args:
        space, clusters, seed, device: as for [`coverage_scores`].

    Returns:
        `tuple(np.ndarray)` of shape `(n,)` each: the number of each row's cluster, and its cosine to that cluster's centre.
    """
    vectors = torch.from_numpy(space).to(device)
    centres = vectors[torch.from_numpy(_first_centres(vectors, clusters, seed)).to(device)]
    label = torch.full((len(space),), -1, device=device)
    for _ in range(_ROUNDS):
        nearness, now = _nearest(vectors, centres)
        if bool((now == label).all()):
            break
        label = now
        sums = torch.zeros_like(centres).index_add_(0, label, vectors)
        length = sums.norm(dim=1, keepdim=True)
        # A cluster that lost all its rows keeps its centre.
        centres = torch.where(length > 0, sums / length.clamp_min(1e-12), centres)
    nearness, label = _nearest(vectors, centres)
    return label.cpu().numpy(), np.round(nearness.cpu().numpy().astype(np.float64), 5)


def _first_centres(vectors: torch.Tensor, clusters: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < clusters:
        to_last = 1 - (vectors @ vectors[chosen[-1]]).cpu().numpy().astype(np.float64)
        distance = np.minimum(distance, np.maximum(to_last, 0) ** 2)
        distance[chosen] = 0
        total = distance.sum()
        left = np.setdiff1d(np.arange(len(vectors)), chosen)
        chosen.append(int(rng.choice(len(vectors), p=distance / total)) if total > 0 else int(left[0]))
    return np.array(chosen)


def _nearest(vectors: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    best = [(block @ centres.T).max(dim=1) for block in vectors.split(_BLOCK)]
    return torch.cat([found.values for found in best]), torch.cat([found.indices for found in best])
