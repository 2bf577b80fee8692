"""The SCAR ranker: an encoder, two vectors of style, one score."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_scar import ScarConfig
from .encoding_scar import ScarMLP, build_encoder, encode_together, real_tokens_first
from .pipeline_scar import score_pairs
from .triples_scar import score_triples


@dataclass
class ScarOutput(ModelOutput):
    """
    Output of [`ScarModel`]. For a batch of B pairs, the shapes have no T; for B triples, T is 3, in the order direct,
    referenced, human, or 4 with a negative at the end, and values of absent members are NaN.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*):
            Ranking loss plus the weighted triplet and cross-instruction losses; only for triples.
        scores (`torch.FloatTensor` of shape `(B,)` or `(B, T)`):
            The ranker's score R(x, y), higher is better.
        linguistic_form (`torch.FloatTensor` of shape `(B, H)` or `(B, T, H)`):
            The vector v_p: the maximum of each state over the response's tokens.
        instructional_surprisal (`torch.FloatTensor` of shape `(B, C)` or `(B, T, C)`):
            The vector v_c; C is the config's `surprisal_size`.
    """

    loss: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    linguistic_form: torch.Tensor | None = None
    instructional_surprisal: torch.Tensor | None = None


# Arguments of `from_pretrained` that locate a config.
_READING = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class ScarPreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading of SCAR rankers."""

    config_class = ScarConfig
    base_model_prefix = "encoder"
    main_input_name = "instruction_input_ids"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    # Attention happens in the encoder, which rejects implementations that it does not support.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # Initialise single layers, because loading visits layers with missing weights, not the heads that contain them.
        heads = [head for head in self.children() if isinstance(head, ScarMLP)]
        if isinstance(module, nn.Linear) and any(module in (head.dense, head.out_proj) for head in heads):
            # PyTorch's default, as in the paper. With N(0, 0.02), all scores would start almost equal.
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)


class ScarModel(ScarPreTrainedModel):
    r"""
    The SCAR ranker (paper, section 3). Token states H of one encoder give, for instruction x and response y,
    linguistic form `v_p = maxpool(H_y)`, instructional surprisal `v_c = MLP_c([h_x; h_y])` with the first-token
    vectors h, and the score `R(x, y) = MLP_r([v_c; v_p])`. [`ScarConfig`] has two options beyond the paper: `pooling`
    makes h the mean of the states, and `surprisal_features` adds products and differences of h_x and h_y.

    Args:
        config ([`ScarConfig`]):
            The ranker's configuration. The encoder is built from `config.encoder_config` with random weights; to start
            from a pretrained one use [`ScarModel.from_encoder`].

    Example:

    ```python
    >>> import scar_hf
    >>> from transformers import AutoModel, AutoTokenizer

    >>> model = AutoModel.from_pretrained("scar-ranker")  # the folder written by `scar-hf export scar-ranker`
    >>> tokenizer = AutoTokenizer.from_pretrained("scar-ranker")
    >>> x = tokenizer(["What do bees eat?"], return_tensors="pt")
    >>> y = tokenizer(["Bees eat nectar and pollen."], return_tensors="pt")
    >>> scores = model(x["input_ids"], y["input_ids"], x["attention_mask"], y["attention_mask"]).scores
    ```
    """

    # Set by scar-hf. This file is saved with rankers and must work without it.
    uploader: ClassVar[Callable[..., Any] | None] = None
    _UPLOADER_TAKES = frozenset(("tokenizer", "private", "revision", "token", "commit_message", "card", "dry_run", "overwrite"))

    def __init__(self, config: ScarConfig) -> None:
        super().__init__(config)
        self.encoder = build_encoder(config)
        if getattr(self.encoder, "pooler", None) is None:
            config.use_pooler = False
        width, head_size = config.hidden_size, config.head_size or config.hidden_size
        surprisal_size = config.surprisal_size or head_size
        features = 4 if config.surprisal_features == "interaction" else 2
        self.surprisal_head = ScarMLP(features * width, head_size, surprisal_size)
        self.score_head = ScarMLP(surprisal_size + width, head_size, 1)
        self.post_init()

    @classmethod
    def from_encoder(cls, encoder: str, config: ScarConfig | None = None, **kwargs: Any) -> "ScarModel":
        """
        Start a ranker from a pretrained encoder, with new heads.

        Args:
            encoder (`str`):
                Folder or Hub id of an encoder that transformers supports natively.
            config ([`ScarConfig`], *optional*):
                Settings of the ranker; its `encoder_config` is replaced by that of the encoder.
            kwargs:
                Passed to `AutoModel.from_pretrained` (`revision`, `dtype`, `attn_implementation`, ...).

        Returns:
            [`ScarModel`]: in evaluation mode.
        """
        pretrained = AutoModel.from_pretrained(encoder, **{"trust_remote_code": False, **kwargs})
        settings = config.to_diff_dict() if config is not None else {}
        if config is not None and config.surprisal_size == config.head_size:
            settings.pop("surprisal_size", None)
        if config is not None and config.head_size == config.hidden_size:
            settings.pop("head_size", None)  # the default is the width of the new encoder
        settings["encoder_config"] = pretrained.config
        model = cls(ScarConfig(**settings)).to(pretrained.dtype)
        missing, unexpected = model.encoder.load_state_dict(pretrained.state_dict(), strict=False)
        if [key for key in unexpected if not key.startswith("pooler.")] or missing:
            raise ValueError(f"The weights of {encoder!r} do not match its config: missing {missing}, unexpected {unexpected}.")
        return model.eval()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Resize the token embeddings, and store the new size in the encoder's config, from which the encoder is built."""
        embeddings = self.encoder.resize_token_embeddings(*args, **kwargs)
        self.config.encoder_config.vocab_size = self.encoder.config.vocab_size
        return embeddings

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Load a ranker; see [`~transformers.PreTrainedModel.from_pretrained`].

        Raises:
            `ValueError`: if it is another model, such as an encoder; see [`ScarModel.from_encoder`].
        """
        path = pretrained_model_name_or_path
        if path is not None and kwargs.get("config") is None:
            reading = {name: kwargs[name] for name in _READING if name in kwargs}
            values, _ = ScarConfig.get_config_dict(path, **reading)
            if values.get("model_type", ScarConfig.model_type) != ScarConfig.model_type:
                raise ValueError(
                    f"{str(path)!r} is a model of type {values['model_type']!r}, not a SCAR ranker. Start a ranker with new "
                    f"heads from it by ScarModel.from_encoder({str(path)!r})."
                )
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Encode N texts, instructions and responses alike. Scores of pairs follow with [`ScarModel.rank`].

        Args:
            input_ids (`torch.LongTensor` of shape `(N, L)`):
                Token ids with the tokenizer's special tokens, padded on either side.
            attention_mask (`torch.LongTensor` of shape `(N, L)`, *optional*):
                1 for tokens, 0 for padding; by default, there is no padding.

        Returns:
            `tuple(torch.FloatTensor)`: the text vectors h (first-token or mean, by `config.pooling`) and the maximum over
            tokens, each of shape `(N, H)`.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        # Encoders with absolute positions count them from the left edge.
        input_ids, attention_mask = real_tokens_first(input_ids, attention_mask)
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states = output.last_hidden_state
        padding = attention_mask.unsqueeze(-1) == 0
        zero = getattr(self.encoder, "zero_on_padding", False)
        if self.config.pooling == "mean":
            summed = (states if zero else states.masked_fill(padding, 0.0)).sum(dim=1, dtype=torch.float32)
            text = (summed / attention_mask.sum(dim=1, keepdim=True).clamp(min=1)).to(states.dtype)
        else:
            text = output.pooler_output if self.config.use_pooler else states[:, 0]
        return text, (states if zero else states.masked_fill(padding, torch.finfo(states.dtype).min)).amax(dim=1)

    def rank(
        self, instruction: torch.Tensor, response: torch.Tensor, linguistic_form: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Score encoded pairs.

        Args:
            instruction, response, linguistic_form (`torch.FloatTensor` of shape `(..., H)`):
                h of the instruction, h of the response and the response's maximum over tokens, from [`ScarModel.encode`].

        Returns:
            `tuple(torch.FloatTensor)`: scores of shape `(...)` and instructional surprisal of shape `(..., C)`.
        """
        features = [instruction, response]
        if self.config.surprisal_features == "interaction":
            # With unit variance, the mean of x * y is their cosine, and the lengths of vectors do not matter.
            x, y = (F.normalize(h, dim=-1) * math.sqrt(h.shape[-1]) for h in features)
            features = [x, y, x * y, (x - y).abs()]
        surprisal = self.surprisal_head(torch.cat(features, dim=-1))
        scores = self.score_head(torch.cat([surprisal, linguistic_form], dim=-1)).squeeze(-1)
        return scores, surprisal

    @torch.no_grad()
    def measure_probe(self, probe: dict[str, Any]) -> dict[str, float]:
        """
        Score the probe, the pair of texts that reveals a damaged ranker.

        Args:
            probe (`dict`): see [`ScarConfig`]; `instruction_ids` and `response_ids` are read.

        Returns:
            `dict`: `score`, and the norms of the vectors `linguistic_form` and `instructional_surprisal`, without dropout.
        """
        training = self.training
        try:
            ids = [torch.tensor([probe[name]], device=self.device) for name in ("instruction_ids", "response_ids")]
            output = self.eval()(*ids, return_dict=True)
            vectors = {name: output[name].float().norm() for name in ("linguistic_form", "instructional_surprisal")}
            return {name: round(float(value), 5) for name, value in {"score": output.scores[0], **vectors}.items()}
        finally:
            self.train(training)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """
        Save the ranker, and update the score of the config's probe.

        Args:
            save_directory (`str` or `os.PathLike`): the output folder.
            kwargs: see [`~transformers.PreTrainedModel.save_pretrained`].
        """
        if self.config.probe is not None:
            # Sharded weights, and those of a separate `state_dict`, cannot be scored here.
            here = kwargs.get("state_dict") is None and all(p.is_floating_point() and not p.is_meta for p in self.parameters())
            probe = self.config.probe
            self.config.probe = {**probe, **self.measure_probe(probe)} if here else None
        super().save_pretrained(save_directory, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:
        """
        Upload the ranker. If scar-hf is installed, it is uploaded with a card, in one commit; see
        `scar_hf.hub_cards.push_model`, which takes `tokenizer`, `private`, `revision`, `token`, `commit_message`, `card`,
        `dry_run` and `overwrite`. Otherwise, see [`~transformers.PreTrainedModel.push_to_hub`].

        Args:
            repo_id (`str`): the repository, such as `"me/my-ranker"`.
            kwargs: see above.
        """
        upload = type(self).uploader
        if upload is None or not set(kwargs) <= self._UPLOADER_TAKES:
            return super().push_to_hub(repo_id, **kwargs)
        return upload(self, repo_id, **kwargs)

    def score(
        self,
        tokenizer: PreTrainedTokenizerBase,
        instructions: Sequence[str],
        responses: Sequence[str],
        batch_size: int = 32,
        max_length: int | None = None,
    ) -> torch.Tensor:
        """
        Score pairs of texts with the model alone. [`~scar_hf.ScarScorer`] returns the same scores, faster.

        Args:
            tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
                The ranker's tokenizer.
            instructions (`Sequence[str]`):
                n instructions; an empty one is allowed.
            responses (`Sequence[str]`):
                Their n responses.
            batch_size (`int`, *optional*, defaults to 32):
                Number of pairs per batch. Affects speed, not scores.
            max_length (`int`, *optional*, defaults to the config's):
                Maximum number of tokens of each instruction and response.

        Returns:
            `torch.FloatTensor` of shape `(n,)`: float32 on the CPU, in input order; higher is better.

        Raises:
            `ValueError`: if the lengths differ, a text is not a string, a response is empty, or `max_length` exceeds the
            encoder's positions.

        Example:

        ```python
        >>> model.score(tokenizer, ["What do bees eat?"], ["Bees eat nectar and pollen."]).shape
        torch.Size([1])
        ```
        """
        return score_pairs(self, tokenizer, instructions, responses, batch_size, max_length)

    @can_return_tuple
    def forward(
        self,
        instruction_input_ids: torch.Tensor,
        response_input_ids: torch.Tensor | None = None,
        instruction_attention_mask: torch.Tensor | None = None,
        response_attention_mask: torch.Tensor | None = None,
        direct_input_ids: torch.Tensor | None = None,
        direct_attention_mask: torch.Tensor | None = None,
        referenced_input_ids: torch.Tensor | None = None,
        referenced_attention_mask: torch.Tensor | None = None,
        human_input_ids: torch.Tensor | None = None,
        human_attention_mask: torch.Tensor | None = None,
        negative_input_ids: torch.Tensor | None = None,
        negative_attention_mask: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
        ratings: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> ScarOutput:
        r"""
        Score pairs (instruction and response), or compute the loss of triples (instruction and up to three members).

        Args:
            instruction_input_ids (`torch.LongTensor` of shape `(B, L)`):
                Instructions, tokenised alone.
            response_input_ids (`torch.LongTensor` of shape `(B, M)`, *optional*):
                Responses, tokenised alone. Exclusive with the members of a triple.
            instruction_attention_mask, response_attention_mask (`torch.LongTensor`, *optional*):
                1 for tokens, 0 for padding on either side.
            direct_input_ids, referenced_input_ids, human_input_ids (`torch.LongTensor` of shape `(B, M)`, *optional*):
                Members of the triples, each with its `..._attention_mask`. Widths may differ; at least two are required.
            negative_input_ids (`torch.LongTensor` of shape `(B, M)`, *optional*):
                A response that must rank below all members of its row, such as a refusal or an answer to another question.
                Counts as one of the two required members.
            present (`torch.BoolTensor` of shape `(B, 3)`, or `(B, 4)` with a negative, *optional*):
                Which of direct, referenced, human and negative each row has; by default all that are passed. Absent
                members are not encoded.
            ratings (`torch.FloatTensor` of shape `(B, 3)`, *optional*):
                Quality of each member in [0, 9]. A pair counts if both exceed `config.sigma`; NaN means unknown. A negative has
                no rating: every member ranks above it.
            return_loss (`bool`, *optional*, defaults to `True`):
                Whether to compute the loss of triples; [`~transformers.Trainer`] relies on this argument.

        Returns:
            [`ScarOutput`].

        Raises:
            `TypeError`: if there is any other argument.
            `ValueError`: if neither a response nor two members are passed, or both.
        """
        _check_arguments(kwargs)
        members = [
            (direct_input_ids, direct_attention_mask),
            (referenced_input_ids, referenced_attention_mask),
            (human_input_ids, human_attention_mask),
        ]
        if negative_input_ids is not None:
            members.append((negative_input_ids, negative_attention_mask))
        given = sum(ids is not None for ids, _ in members)
        if (response_input_ids is None) == (given < 2) or (response_input_ids is not None and given):
            raise ValueError(
                "ScarModel takes `response_input_ids` to score pairs, or at least two of `direct_input_ids`, "
                "`referenced_input_ids`, `human_input_ids` and `negative_input_ids` to train; "
                f"got {'a' if response_input_ids is not None else 'no'} response and {given} member(s)."
            )
        instruction = (instruction_input_ids, instruction_attention_mask)
        if response_input_ids is None:
            output = score_triples(self, instruction, members, present, ratings)
            return ScarOutput(**(output if return_loss else output | {"loss": None}))
        (h_x, h_y), (_, v_p) = encode_together(self.encode, [instruction, (response_input_ids, response_attention_mask)])
        scores, v_c = self.rank(h_x, h_y, v_p)
        return ScarOutput(scores=scores, linguistic_form=v_p, instructional_surprisal=v_c)


def _check_arguments(kwargs: dict[str, Any]) -> None:
    """Reject unknown arguments of `forward`; the Trainer passes the number of examples to all models."""
    asked = [name for name in ("output_hidden_states", "output_attentions") if kwargs.pop(name, None)]
    if asked:
        raise ValueError(f"ScarModel returns vectors of texts, and no {asked[0]}: call `model.encoder` with it.")
    kwargs.pop("num_items_in_batch", None)
    if kwargs:
        raise TypeError(f"ScarModel.forward() got unexpected arguments: {', '.join(sorted(kwargs))}.")


__all__ = ["ScarModel", "ScarOutput", "ScarPreTrainedModel"]
