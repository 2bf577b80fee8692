"""Chooses rows by score and distance, so that the best rows are kept without near-duplicates."""

import math
from collections.abc import Callable

import numpy as np
import torch

from .criteria import check_diversity
from .top_k import order_of

# At diversity 1, the pool is this many times larger than the selection.
_WIDEST_POOL = 5
# Directions with little variance are noise: this fraction of the mean variance is added to each before whitening.
_SHRINKAGE = 0.3
# Rows decided between two passes over the pool, and rows of the pool per matrix product.
_BATCH, _BLOCK = 512, 16_384
# Decimals to which novelty is rounded, so that floating-point noise in matrix products cannot change the choice.
_DECIMALS = 4


def choose(
    scores: np.ndarray,
    quotas: np.ndarray,
    labels: np.ndarray,
    diversity: float,
    embed: Callable[[np.ndarray], np.ndarray],
    device: str = "cpu",
) -> np.ndarray:
    """
    Choose rows from each group by maximal marginal relevance (MMR), which trades score against similarity to the rows
    already chosen.

    For a group with quota q, the pool is its best floor(q · (1 + 4 · diversity)) rows. Among the rows of all pools whose
    group's quota is not yet full, each step chooses the one that maximises

        (1 - diversity) · standing + diversity · novelty

    Standing falls linearly from 1 for the best row of a pool to near 0 for its last. Novelty is 1 minus the cosine to the
    nearest row chosen so far, in any group, and at most 1. `diversity=1` is therefore greedy k-centre on the pool, starting
    at the best row; `diversity=0` keeps the best rows by score.

    Args:
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score, which are never kept.
        quotas (`np.ndarray` of shape `(groups,)`, int64): rows to keep per group, at most the group's rows with a score.
        labels (`np.ndarray` of shape `(n,)`, int64): the number of each row's group.
        diversity (`float`): in [0, 1].
        embed (`Callable`): maps row numbers (ascending) to vectors of shape `(rows, 2, H)`, the first two of
            [`~scar_hf.ScarScorer.encode_rows`]. Not called if scores alone decide.
        device (`str`, *optional*, defaults to `"cpu"`): device for computing distances.

    Returns:
        `np.ndarray`: int64, the numbers of the kept rows, ascending; exactly the quota of each group.

    Raises:
        `ValueError`: if `diversity` is out of range.
    """
    check_diversity(diversity)
    pool = best_of_groups(scores, pool_sizes(quotas, diversity), labels)
    if len(pool) == quotas.sum():
        return np.sort(pool)
    groups = labels[pool]
    place = _places(groups, len(quotas))
    # Divided by the actual pool size, so that the last row's standing is near 0 even if the group is smaller than its pool.
    standing = 1 - place / np.bincount(groups, minlength=len(quotas))[groups]
    ascending = np.argsort(pool)
    space = content_space(embed(pool[ascending]))[np.argsort(ascending)]
    return np.sort(pool[spread(space, standing, groups, quotas, diversity, device)])


def pool_sizes(quotas: np.ndarray, diversity: float) -> np.ndarray:
    """Return the size of each group's pool, int64; see [`choose`]."""
    return np.floor(np.round(quotas * (1 + (_WIDEST_POOL - 1) * float(diversity)), 9)).astype(np.int64)


def best_of_groups(scores: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """
    Return the best rows of each group.

    Args:
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score.
        sizes (`np.ndarray` of shape `(groups,)`, int64): rows to return of each group, fewer if it has fewer with a score.
        labels (`np.ndarray` of shape `(n,)`, int64): the number of each row's group.

    Returns:
        `np.ndarray`: int64, row numbers, best first; ties go to the earlier row.
    """
    order = order_of(scores)[: np.count_nonzero(~np.isnan(scores))]
    return order[_places(labels[order], len(sizes)) < sizes[labels[order]]]


def content_space(vectors: np.ndarray) -> np.ndarray:
    """
    Transform vectors so that their cosines separate near-duplicates.

    The encoder's vectors lie in a narrow cone and vary along a few directions, mostly style. Whitening gives every
    direction, and instruction and response, equal weight.

    Args:
        vectors (`np.ndarray` of shape `(n, 2, H)`, n >= 1): text vectors of instructions and responses, pooled as configured.

    Returns:
        `np.ndarray` of shape `(n, 2·H)`, float32: unit vectors; zeros for a row equal to the mean.
    """
    n, _, width = vectors.shape
    space = np.empty((n, 2 * width), dtype=np.float32)
    for part in range(2):
        centred = vectors[:, part] - vectors[:, part].mean(axis=0)
        variances, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64) / n)
        variances = np.maximum(variances, 0)
        floor = _SHRINKAGE * variances.sum() / min(n, width)
        levelled = directions / np.sqrt(variances + floor + np.finfo(np.float32).tiny)
        space[:, part * width : (part + 1) * width] = _unit(centred @ levelled.astype(np.float32))
    return _unit(space)


def spread(
    space: np.ndarray, standing: np.ndarray, groups: np.ndarray, quotas: np.ndarray, diversity: float, device: str = "cpu"
) -> np.ndarray:
    """
    Choose rows greedily by standing and novelty; see [`choose`].

    The result is exact and takes n · k · d operations for k of n rows, as matrix products. Novelty only decreases, so a row's
    value at the last pass over the pool is an upper bound. Rows of a batch are therefore compared only with each other, as
    long as their value exceeds that of the best row outside the batch.

    Args:
        space (`np.ndarray` of shape `(n, d)`, float32): unit vectors.
        standing (`np.ndarray` of shape `(n,)`): in [0, 1].
        groups (`np.ndarray` of shape `(n,)`, int64): the number of each row's group.
        quotas (`np.ndarray` of shape `(groups,)`, int64): rows to choose per group, at most the group's size.
        diversity (`float`): the weight of novelty, in [0, 1].
        device (`str`, *optional*, defaults to `"cpu"`): device for the matrix products.

    Returns:
        `np.ndarray`: int64, row numbers in the order of choice; ties go to the earlier row.
    """
    vectors = torch.from_numpy(space).to(device)
    novelty, worth = np.ones(len(space)), np.empty(len(space))
    left, chosen = quotas.copy(), [np.empty(0, dtype=np.int64)]
    taken = np.zeros(len(space), dtype=bool)
    while left.any():
        worth[:] = (1 - diversity) * standing + diversity * novelty
        worth[taken | (left[groups] == 0)] = -math.inf
        batch, bound = _best(worth, _BATCH)
        kept = _decide(vectors[torch.from_numpy(batch)], batch, bound, standing, novelty[batch], groups, left, diversity)
        chosen.append(kept)
        taken[kept] = True
        nearest = _nearest(vectors, vectors[torch.from_numpy(kept)])
        np.minimum(novelty, _novelty(nearest), out=novelty)
    return np.concatenate(chosen)


def _decide(
    vectors: torch.Tensor,
    batch: np.ndarray,
    bound: tuple[float, int],
    standing: np.ndarray,
    novelty: np.ndarray,
    groups: np.ndarray,
    left: np.ndarray,
    diversity: float,
) -> np.ndarray:
    """Choose rows of a batch while one has a higher value than the best row outside it; update the remaining quotas."""
    between = _novelty((vectors @ vectors.T).cpu().numpy())
    base, members, gone = (1 - diversity) * standing[batch], groups[batch], np.zeros(len(batch), dtype=bool)
    kept: list[int] = []
    while True:
        worth = np.where(gone, -math.inf, base + diversity * novelty)
        best = int(worth.argmax())
        if worth[best] == -math.inf or (-worth[best], batch[best]) > (-bound[0], bound[1]):
            return batch[kept]
        kept.append(best)
        left[members[best]] -= 1
        gone[best] = True
        if not left[members[best]]:
            gone |= members == members[best]
        np.minimum(novelty, between[best], out=novelty)


def _best(worth: np.ndarray, count: int) -> tuple[np.ndarray, tuple[float, int]]:
    """Return the numbers of the best rows, ascending, and value and number of the best other row; ties go to the earlier."""
    if len(worth) <= count:
        eligible = np.flatnonzero(worth > -math.inf)
        return eligible, (-math.inf, len(worth))
    edge = np.partition(worth, len(worth) - count - 1)[len(worth) - count - 1]
    above, level = np.flatnonzero(worth > edge), np.flatnonzero(worth == edge)
    if edge == -math.inf:
        return above, (-math.inf, len(worth))
    within = count - len(above)
    return np.sort(np.concatenate([above, level[:within]])), (float(edge), int(level[within]))


def _nearest(vectors: torch.Tensor, kept: torch.Tensor) -> np.ndarray:
    """Return the cosine of each row to the nearest row just kept."""
    blocks = [(block @ kept.T).amax(dim=1) for block in vectors.split(_BLOCK)]
    return torch.cat(blocks).cpu().numpy()


def _novelty(cosine: np.ndarray) -> np.ndarray:
    return np.round(1 - np.clip(cosine.astype(np.float64), 0, 1), _DECIMALS)


def _places(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the place of each row within its group, counted from 0 in the given order."""
    by_group = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=count)
    places = np.empty(len(labels), dtype=np.int64)
    places[by_group] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
