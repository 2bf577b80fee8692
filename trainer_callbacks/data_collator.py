"""Selection within each batch, for streaming data."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..scoring.scorer import SCORE_COLUMN
from ..selecting.criteria import check_k, count_of
from ..selecting.top_k import order_of

# Key of the examples' weights in a batch. ScarSFTTrainer removes it before calling the model.
WEIGHT_KEY = "scar_weight"
_MODES = ("select", "weight")
_INSTEAD = (
    "the rows' scores do not survive it. Rank beforehand instead: train_dataset=scar_select(ds, k=...), which works with "
    "packing, or of a stream stream.filter(scar_filter(k=...), batched=True)"
)


class ScarDataCollator:
    r"""
    Wraps any collator for supervised fine-tuning and selects rows within each batch by their column `scar_score`. Intended
    for streams and mixtures built on the fly: `stream.map(scar_score(), batched=True)` scores rows as they arrive.

    [`ScarSFTTrainer`] needs no further setup: it draws batches 1/k times as large, so that the optimiser sees the requested
    batch size, keeps the column, and does not filter evaluation data. With TRL's own `SFTTrainer`, set
    `remove_unused_columns=False` and a `per_device_train_batch_size` that is 1/k times as large.

    Args:
        collator (`Callable`):
            Builds a batch from a list of rows, such as TRL's `DataCollatorForLanguageModeling(pad_token_id=...)`.
        k (`float` or `int`, *optional*, defaults to 0.5):
            How much of a batch to keep: a share in (0, 1], or a count. Ignored with `mode="weight"`.
        mode (`str`, *optional*, defaults to `"select"`):
            `"select"` keeps the best k rows; if no row of a batch has a score, it keeps the first. `"weight"` keeps all rows
            and multiplies their losses by weights that decrease linearly with their rank in the batch, with a mean of 1;
            rows without a score get weight 0. It requires [`ScarSFTTrainer`].

    Raises:
        `ValueError`: if `k` or `mode` is out of range, or the collator is padding-free, because it merges the rows.

    Example:

    ```python
    >>> from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    >>> collator = ScarDataCollator(DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id), k=0.25)
    >>> trainer = ScarSFTTrainer(model, args, collator, train_dataset=stream.map(scar_score(), batched=True))
    ```
    """

    def __init__(
        self, collator: Callable[[list[dict[str, Any]]], dict[str, Any]], k: float = 0.5, mode: str = "select"
    ) -> None:
        check_k(k)
        if mode not in _MODES:
            raise ValueError(f"`mode` must be one of {_MODES}, got {mode!r}.")
        if getattr(collator, "padding_free", False):
            raise ValueError(f"A ScarDataCollator cannot wrap a padding-free collator: {_INSTEAD}.")
        self.collator = collator
        self.k = k
        self.mode = mode
        # Set by a trainer that supports weights; any other trainer would pass them to the model as an input.
        self.weights_are_used = False

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """
        Select rows and build the batch.

        Args:
            features (`list[dict]`): rows with `scar_score`, which may be `None`.

        Returns:
            `dict`: the batch that the wrapped collator builds from the kept rows, in their order; with `mode="weight"` also
            `scar_weight`, of shape `(B,)`.

        Raises:
            `ValueError`: if a row has no `scar_score`.
        """
        missing = sum(SCORE_COLUMN not in row for row in features)
        if missing:
            raise ValueError(
                f"{missing} of {len(features)} rows of a batch have no {SCORE_COLUMN!r}. Score the training data, "
                "ds.map(scar_score(), batched=True), and set remove_unused_columns=False in the SFTConfig; or use "
                "ScarSFTTrainer, which keeps the column and leaves evaluation data alone."
            )
        given = [row[SCORE_COLUMN] for row in features]
        scores = np.array([np.nan if score is None else float(score) for score in given])
        plain = [{name: value for name, value in row.items() if name != SCORE_COLUMN} for row in features]
        if self.mode == "select":
            best = order_of(scores)[: min(count_of(self.k, len(plain)), max(1, int(np.isfinite(scores).sum())))]
            return self.collator([plain[i] for i in sorted(best)])
        if not self.weights_are_used:
            raise ValueError('ScarDataCollator(mode="weight") needs ScarSFTTrainer, which multiplies the losses.')
        batch = self.collator(plain)
        batch[WEIGHT_KEY] = torch.from_numpy(rank_weights(scores))
        return batch

    def drawn(self, batch_size: int) -> int:
        """
        Return the number of rows to draw so that `batch_size` remain.

        Args:
            batch_size (`int`): the batch size for the optimiser.

        Returns:
            `int`: `batch_size / k`, rounded up.

        Raises:
            `ValueError`: if `k` is a count other than `batch_size`, because no batch size changes it.
        """
        if self.mode == "weight":
            return batch_size
        if isinstance(self.k, int):
            raise ValueError(
                f"ScarSFTTrainer draws larger batches by a share, got the count k={self.k}. Pass k as a share in (0, 1]: of "
                "1/k times per_device_train_batch_size rows it then keeps that many."
            )
        drawn = batch_size
        while count_of(self.k, drawn) < batch_size:  # shares round down, so 1/k may be one row short
            drawn += 1
        return drawn


def rank_weights(scores: np.ndarray) -> np.ndarray:
    """
    Return weights that decrease linearly with the rank.

    Args:
        scores (`np.ndarray` of shape `(n,)`): NaN for rows without a score.

    Returns:
        `np.ndarray` of shape `(n,)`, float32: 1 on average over the rows that have a score, 0 for the others.
    """
    count = int(np.isfinite(scores).sum())
    weights = np.zeros(len(scores), dtype=np.float32)
    weights[order_of(scores)[:count]] = 2 * (1 - (np.arange(count) + 0.5) / max(1, count))
    return weights


def check_collator(collator: Any, packing: bool, padding_free: bool) -> None:
    """Raise a `ValueError` if a trainer's settings are incompatible with a [`ScarDataCollator`]."""
    if isinstance(collator, ScarDataCollator) and (packing or padding_free):
        setting = "packing=True" if packing else "padding_free=True"
        raise ValueError(f"A ScarDataCollator cannot be used with {setting}: {_INSTEAD}.")
