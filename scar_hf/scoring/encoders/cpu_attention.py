"""Attention for CPUs in bfloat16: one text at a time, without padding, and only as many heads as fit in the CPU cache."""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from ...modeling import ScarModel

# Name under which it is registered in transformers.
CPU_ATTENTION = "scar_cpu"
# Encoders with full attention and no bias on attention scores.
SUITED_ENCODERS = ("bert", "roberta", "xlm-roberta")
# Below this length, PyTorch's own attention is as fast.
_SHORT = 96
# Attention scores held at a time: 2 MB in bfloat16, about a core's L2 cache.
_SCORES_AT_A_TIME = 1 << 20


def cpu_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """
    Attend over all real tokens of each text. Implements `transformers.AttentionInterface`.

    Args:
        module (`torch.nn.Module`): the attention layer.
        query, key, value (`torch.Tensor` of shape `(B, heads, L, D)`): the tokens' states, padded on the right.
        attention_mask (`torch.Tensor` of shape `(B, L)`, *optional*): 1 on real tokens.
        scaling (`float`, *optional*): factor for the scores, by default 1 / sqrt(D).

    Returns:
        `tuple`: the attended values of shape `(B, L, heads, D)`, undefined on padding, and `None` instead of weights.
    """
    batch, heads, length, size = query.shape
    if length < _SHORT:
        mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        return output.transpose(1, 2), None
    scaling = size**-0.5 if scaling is None else scaling
    lengths = [length] * batch if attention_mask is None else attention_mask.sum(dim=1).tolist()
    result = query.new_zeros(batch, length, heads, size)
    step = max(1, _SCORES_AT_A_TIME // length**2)
    for row, n in enumerate(lengths):
        # Contiguous, because the products below read them many times.
        queries, keys, values = (states[row, :, :n].contiguous() for states in (query, key, value))
        queries, keys = queries * scaling, keys.transpose(1, 2)
        for head in range(0, heads, step):
            some = slice(head, head + step)
            weights = torch.bmm(queries[some], keys[some]).softmax(dim=-1)
            result[row, :n, some] = torch.bmm(weights, values[some]).transpose(0, 1)
    return result, None


def prefer_cpu_attention(model: ScarModel) -> None:
    """Switch a ranker that is used only for scoring to this attention if it is faster than PyTorch's own."""
    own, kind = model.encoder.config._attn_implementation, model.config.encoder_config.model_type
    if own == "sdpa" and kind in SUITED_ENCODERS and model.device.type == "cpu" and model.encoder.dtype == torch.bfloat16:
        model.encoder.set_attn_implementation(CPU_ATTENTION)


def _plain_mask(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """Pass the mask through unchanged; the attention needs only which tokens are real."""
    return attention_mask


AttentionInterface.register(CPU_ATTENTION, cpu_attention)
AttentionMaskInterface.register(CPU_ATTENTION, _plain_mask)
