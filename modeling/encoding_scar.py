"""Building blocks of the ranker: the encoder, the layers of the heads, and joint encoding of texts."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel

from .configuration_scar import ScarConfig, ScarStaticConfig
from .static_encoder_scar import ScarStaticEncoder


class ScarMLP(nn.Module):
    """Linear, ReLU, Linear (paper, section 3)."""

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, hidden_features)
        self.out_proj = nn.Linear(hidden_features, out_features)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map vectors of `in_features` to vectors of `out_features`."""
        return self.out_proj(F.relu(self.dense(hidden_states)))


def build_encoder(config: ScarConfig) -> PreTrainedModel:
    """Build the encoder with random weights, with its default pooler unless the config disables it."""
    encoder_config: Any = config.encoder_config  # a config by now, whatever was given
    if encoder_config.model_type == ScarStaticConfig.model_type:  # the class itself may have been loaded twice
        return ScarStaticEncoder(encoder_config)
    if not config.use_pooler:
        try:
            return AutoModel.from_config(encoder_config, trust_remote_code=False, add_pooling_layer=False)
        except TypeError:  # encoders without a pooler do not have this argument
            pass
    return AutoModel.from_config(encoder_config, trust_remote_code=False)


def real_tokens_first(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Move left padding to the right, in token ids and mask of shape `(N, L)`."""
    if not _is_traced() and bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all()):
        return input_ids, attention_mask
    # Distinct keys, padding last, instead of a stable sort, which ONNX lacks.
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    order = torch.where(attention_mask == 0, places + 2**32, places).argsort(dim=1)
    return input_ids.gather(1, order), attention_mask.gather(1, order)


def encode_together(
    encode: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    texts: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
    keep: Sequence[torch.Tensor] | None = None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """
    Encode several batches of B rows in one or two calls, so that short texts are not padded to the longest.

    Args:
        encode (`Callable`): [`ScarModel.encode`].
        texts (`Sequence` of `(input_ids, attention_mask)`): the batches, each `(B, L)` with its own L; the mask may be `None`.
        keep (`Sequence[torch.BoolTensor]` of shape `(B,)`, *optional*):
            The rows of each batch to encode, by default all; the vectors of the others are undefined.

    Returns:
        `tuple(list[torch.FloatTensor], list[torch.FloatTensor])`: for each batch, the text vectors and the maxima over
        tokens, of shape `(B, H)`.
    """
    width = max(ids.shape[1] for ids, _ in texts)
    all_ids = torch.cat([F.pad(ids, (0, width - ids.shape[1])) for ids, _ in texts])
    masks = [torch.ones_like(ids) if mask is None else mask for ids, mask in texts]
    all_masks = torch.cat([F.pad(mask, (0, width - mask.shape[1])) for mask in masks])
    if _is_traced():  # groups depend on the data, which a graph does not support
        # `chunk` would fix the number of rows.
        first, form = (vectors.unflatten(0, (len(texts), -1)) for vectors in encode(all_ids, all_masks))
        return list(first.unbind()), list(form.unbind())
    every = torch.ones(len(all_ids), dtype=torch.bool, device=all_ids.device)
    kept = (every if keep is None else torch.cat(list(keep))).nonzero().flatten()
    lengths, by_length = all_masks[kept].sum(dim=1).sort(stable=True)
    kept = kept[by_length]
    # Sort by length, so that a group can be cut to its longest row.
    all_ids, all_masks = real_tokens_first(all_ids, all_masks)
    firsts, forms = [], []
    for start, stop in _two_groups(lengths.tolist()):
        rows, longest = kept[start:stop], max(1, int(lengths[stop - 1]))
        first, form = encode(all_ids[rows, :longest], all_masks[rows, :longest])
        firsts.append(first)
        forms.append(form)
    back = torch.zeros(len(all_ids), dtype=torch.long, device=all_ids.device)
    back[kept] = torch.arange(len(kept), device=all_ids.device)
    first, form = torch.cat(firsts)[back], torch.cat(forms)[back]
    return list(first.chunk(len(texts))), list(form.chunk(len(texts)))


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing()


def _two_groups(lengths: list[int]) -> list[tuple[int, int]]:
    """Split rows sorted by length into at most two groups, with the fewest padded tokens in total."""
    n = len(lengths)
    cut = min(range(n), key=lambda i: i * lengths[i - 1] + (n - i) * lengths[-1] if i else n * lengths[-1])
    return [(0, cut), (cut, n)] if cut else [(0, n)]
