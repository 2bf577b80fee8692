"""A curriculum that starts with the best rows and gradually adds the others."""

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ..selecting.top_k import order_of


def curriculum_order(scores: np.ndarray, draws: int, start: int, widen: float = 0.5, seed: int = 0) -> np.ndarray:
    """
    Plan the order in which to draw rows. The pool starts with the `start` best rows and grows linearly to all rows. Each
    pass shuffles the current pool and draws every row in it once.

    Args:
        scores (`np.ndarray` of shape `(n,)`): higher is better; NaN comes last.
        draws (`int`): number of rows drawn in the whole training.
        start (`int`): size of the pool at the start, 1 to n.
        widen (`float`, *optional*, defaults to 0.5): share of the draws, in (0, 1], after which the pool contains all rows.
        seed (`int`, *optional*, defaults to 0): seed for shuffling.

    Returns:
        `np.ndarray` of shape `(draws,)`, int64: numbers of rows; the same for the same arguments.

    Raises:
        `ValueError`: if `start` or `widen` are out of range.

    Example:

    ```python
    >>> curriculum_order(np.array([0.1, 0.9, 0.5]), draws=6, start=1, widen=1.0).tolist()
    [1, 1, 1, 1, 2, 1]
    ```
    """
    n = len(scores)
    if not 1 <= start <= n:
        raise ValueError(f"A curriculum must begin with 1 to {n} rows, the number selected; got {start}.")
    if not 0 < widen <= 1:
        raise ValueError(f"`widen` must be a share in (0, 1], got {widen!r}.")
    ranked, shuffle = order_of(scores), np.random.default_rng(seed)
    passes: list[np.ndarray] = []
    drawn = 0
    while drawn < draws:
        grown = min(1.0, drawn / (widen * draws))
        pool = ranked[: start + math.floor((n - start) * grown)]
        passes.append(shuffle.permutation(pool))
        drawn += len(pool)
    return np.concatenate(passes)[:draws].astype(np.int64) if passes else np.empty(0, dtype=np.int64)


class ScarCurriculumSampler(Sampler[int]):
    """
    Samples the rows of a training set in the order of [`curriculum_order`]. An epoch draws n rows, so a run takes the same
    number of steps as without a curriculum. The order depends only on the arguments and the epoch, so it is the same for a
    resumed run and in every process of a distributed run.

    Args:
        scores (`np.ndarray` of shape `(n,)`): scores of the rows of the training set.
        start (`int`): size of the pool at the start.
        epochs (`float`): number of epochs of the whole training, above 0.
        widen (`float`, *optional*, defaults to 0.5): see [`curriculum_order`].
        seed (`int`, *optional*, defaults to 0): see [`curriculum_order`].

    Example:

    ```python
    >>> class MyTrainer(SFTTrainer):
    ...     def _get_train_sampler(self, train_dataset=None):
    ...         scores = np.array((train_dataset or self.train_dataset)["scar_score"][:])
    ...         return ScarCurriculumSampler(scores, start=1000, epochs=self.args.num_train_epochs, seed=self.args.seed)
    ```
    """

    def __init__(self, scores: np.ndarray, start: int, epochs: float, widen: float = 0.5, seed: int = 0) -> None:
        self.rows = len(scores)
        self.plan = curriculum_order(scores, math.ceil(epochs) * self.rows, start, widen * epochs / math.ceil(epochs), seed)
        self.epoch = 0

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        begin = self.epoch * self.rows
        # Epochs beyond the plan repeat the last one, with all rows.
        yield from (self.plan[begin : begin + self.rows] if begin < len(self.plan) else self.plan[-self.rows :]).tolist()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0. Trainers call this."""
        self.epoch = epoch
