"""An encoder that looks vectors of tokens up instead of computing them. The fast ranker is a [`ScarModel`] on this encoder."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput

from .configuration_scar import NUM_COUNTS, ScarStaticConfig


class ScarStaticEncoder(PreTrainedModel):
    r"""
    Looks up a vector for each token, adds weighted vectors of the tokens before and after it, counts how far the token is
    into the text and whether it occurred before, and projects all of these once. The mean and the maximum over a text thus hold
    its length and the share of words that it repeats, besides the words and groups of three words that it uses.

    Args:
        config ([`ScarStaticConfig`]): the encoder's configuration.
    """

    config_class = ScarStaticConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    # States are never negative, so that neither a sum nor a maximum over them needs to leave padding out.
    zero_on_padding = True

    def __init__(self, config: ScarStaticConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        # Weights of the token before and the token after, for each entry.
        self.neighbours = nn.Parameter(torch.zeros(2, config.embedding_size))
        self.projection = nn.Linear(config.embedding_size + NUM_COUNTS, config.hidden_size - NUM_COUNTS)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The vectors of the tokens."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the vectors of the tokens."""
        self.embeddings = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ScarStaticEncoder):
            init.zeros_(module.neighbours)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        """
        Encode N texts.

        Args:
            input_ids (`torch.LongTensor` of shape `(N, L)`): token ids, padded on the right.
            attention_mask (`torch.LongTensor` of shape `(N, L)`, *optional*): 1 on real tokens.

        Returns:
            `BaseModelOutput`: `last_hidden_state` of shape `(N, L, H)`, none of it negative, and 0 on padding.
        """
        vectors = self.embeddings(input_ids)
        before, after = self.neighbours
        width = vectors.shape[-1]
        # Entries and counts share one tensor from the start, because copying states takes as long as projecting them.
        states = vectors.new_empty(*input_ids.shape, width + NUM_COUNTS)
        states[..., :width] = vectors
        states[:, 1:, :width].addcmul_(vectors[:, :-1], before)
        states[:, :-1, :width].addcmul_(vectors[:, 1:], after)
        states[..., width] = 1.0
        states[..., width + 1] = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device).log() / math.log(512)
        states[..., width + 2] = _seen_before(input_ids)
        states = F.linear(states.relu_(), *self._projection_and_counts())
        if attention_mask is not None:
            states = states.masked_fill_(attention_mask.unsqueeze(-1) == 0, 0.0)
        states = states.relu_()
        return BaseModelOutput(last_hidden_state=states)

    def _projection_and_counts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the projection, with rows that pass the counts on unchanged."""
        weight, bias = self.projection.weight, self.projection.bias
        counts = F.pad(torch.eye(NUM_COUNTS, dtype=weight.dtype, device=weight.device), (weight.shape[1] - NUM_COUNTS, 0))
        return torch.cat([weight, counts]), F.pad(bias, (0, NUM_COUNTS))


def _seen_before(input_ids: torch.Tensor) -> torch.Tensor:
    """1 where a token occurred earlier in the text, else 0."""
    ordered, places = input_ids.sort(dim=1, stable=True)
    again = F.pad((ordered[:, 1:] == ordered[:, :-1]).float(), (1, 0))
    return torch.zeros_like(again).scatter(1, places, again)


__all__ = ["ScarStaticEncoder"]
