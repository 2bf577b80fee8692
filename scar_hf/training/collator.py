"""Text rows -> padded tensors for a training step."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .triples import MEMBERS


@dataclass
class TripleCollator:
    """
    Tokenizes and pads a batch of triples for [`ScarModel`].

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the encoder's tokenizer.
        max_length (`int`): tokens of each text that are read.
        instruction_max_length (`int`, *optional*): tokens of an instruction; by default `max_length`.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    instruction_max_length: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Return B padded instructions, members and, if a row has one, negatives, each with its mask; `present`, `(B, 3)` or
        with negatives `(B, 4)`; and, where given, `ratings`.
        """
        batch = self._pad("instruction", [row["instruction"] for row in rows], self.instruction_max_length or self.max_length)
        members = (*MEMBERS, "negative") if any(row["negative"] is not None for row in rows) else MEMBERS
        for member in members:
            # A missing response is an empty text here, and the model does not encode it.
            batch |= self._pad(member, [row[member] or "" for row in rows], self.max_length)
        batch["present"] = torch.tensor([[row[member] is not None for member in members] for row in rows])
        if any(not math.isnan(rating) for row in rows for rating in row["ratings"]):
            batch["ratings"] = torch.tensor([row["ratings"] for row in rows])
        return batch

    def _pad(self, name: str, texts: list[str], max_length: int) -> dict[str, torch.Tensor]:
        tokens = self.tokenizer(texts, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        return {f"{name}_input_ids": tokens["input_ids"], f"{name}_attention_mask": tokens["attention_mask"]}
