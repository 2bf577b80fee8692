"""Scores and distances -> which rows are kept: the best that are not near-duplicates of each other."""

import math
from collections.abc import Callable

import numpy as np
import torch

from .criteria import check_diversity
from .top_k import order_of

# At diversity 1 the rows are chosen from so many times as many.
_WIDEST_POOL = 5
# Directions in which a pool hardly varies are noise: this part of the mean variance is added to each before they are levelled.
_SHRINKAGE = 0.3
# Rows decided on between two passes over the pool, and rows of the pool that one product of matrices takes.
_BATCH, _BLOCK = 512, 16_384
# Novelty is rounded to so many decimals, so that the last bits of a product of matrices decide nothing.
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
    Keep the best rows of each group by maximal marginal relevance (MMR): as far as they differ from those kept before them.

    Of a group with the quota q its best floor(q · (1 + 4 · diversity)) rows are the pool. From all pools together rows are
    kept one after another, each time the one with the greatest

        (1 - diversity) · standing + diversity · novelty

    whose group's quota is not full. Standing is 1 for the best row of a pool and falls evenly to near 0 for its last; novelty
    is 1 minus the cosine to the nearest row kept so far, of any group, at most 1. So `diversity=1` is the greedy k-centre of
    the pool, begun at the best row; 0 keeps the best by score.

    Args:
        scores (`np.ndarray` of shape `(n,)`): NaN where a row has none; such rows are never kept.
        quotas (`np.ndarray` of shape `(groups,)`, int64): rows to keep of each group, at most those with a score.
        labels (`np.ndarray` of shape `(n,)`, int64): the number of each row's group.
        diversity (`float`): in [0, 1].
        embed (`Callable`): given numbers of rows, ascending, returns their vectors of shape `(rows, 2, H)`, as
            [`~scar_hf.ScarScorer.embed_rows`] does. Not called where only scores decide.
        device (`str`, *optional*, defaults to `"cpu"`): where distances are computed.

    Returns:
        `np.ndarray`: int64, the numbers of the rows kept, ascending; of each group exactly its quota.

    Raises:
        `ValueError`: if `diversity` is out of range.
    """
    check_diversity(diversity)
    order = order_of(scores)[: np.count_nonzero(~np.isnan(scores))]
    sizes = np.floor(np.round(quotas * (1 + (_WIDEST_POOL - 1) * float(diversity)), 9)).astype(np.int64)
    place = _places(labels[order], len(quotas))
    in_pool = place < sizes[labels[order]]
    pool, place = order[in_pool], place[in_pool]
    if len(pool) == quotas.sum():
        return np.sort(pool)
    groups = labels[pool]
    # Where a group has fewer rows than its pool may have, the last of them still stands near 0.
    standing = 1 - place / np.bincount(groups, minlength=len(quotas))[groups]
    ascending = np.argsort(pool)
    space = content_space(embed(pool[ascending]))[np.argsort(ascending)]
    return np.sort(pool[spread(space, standing, groups, quotas, diversity, device)])


def content_space(vectors: np.ndarray) -> np.ndarray:
    """
    Make vectors whose cosines tell near-duplicates. As they come from the encoder, all rows lie in a narrow cone, along few
    directions which are mostly style; here every direction in which these rows vary counts alike, and the instruction as much
    as the response.

    Args:
        vectors (`np.ndarray` of shape `(n, 2, H)`, n >= 1): first-token vectors of instructions and responses.

    Returns:
        `np.ndarray` of shape `(n, 2·H)`, float32: of length 1; zeros where a row is the mean of all.
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
    Choose rows greedily by standing and novelty; see [`choose`]. Exact, in n · k · d operations for k rows of n, as products
    of matrices: novelty only falls, so what a row was worth at the last pass over the pool bounds what it is worth now, and
    the rows of a batch are decided among themselves while they are worth more than the best row outside of it.

    Args:
        space (`np.ndarray` of shape `(n, d)`, float32): vectors of length 1.
        standing (`np.ndarray` of shape `(n,)`): in [0, 1].
        groups (`np.ndarray` of shape `(n,)`, int64): the number of each row's group.
        quotas (`np.ndarray` of shape `(groups,)`, int64): rows to choose of each group, at most those that it has.
        diversity (`float`): the weight of novelty, in [0, 1].
        device (`str`, *optional*, defaults to `"cpu"`): where the products are computed.

    Returns:
        `np.ndarray`: int64, the rows' numbers in the order of choice; ties go to the earlier row.
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
    """Choose rows of a batch while one is worth more than the best outside of it; counts down what is left of the quotas."""
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
    """Numbers of the best rows, ascending, and the worth and number of the best row besides; ties go to the earlier row."""
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
    """The cosine of each row to the nearest of those just kept."""
    blocks = [(block @ kept.T).amax(dim=1) for block in vectors.split(_BLOCK)]
    return torch.cat(blocks).cpu().numpy()


def _novelty(cosine: np.ndarray) -> np.ndarray:
    return np.round(1 - np.clip(cosine.astype(np.float64), 0, 1), _DECIMALS)


def _places(labels: np.ndarray, count: int) -> np.ndarray:
    """The place of each row in its own group, counted from 0 in the given order."""
    by_group = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=count)
    places = np.empty(len(labels), dtype=np.int64)
    places[by_group] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
