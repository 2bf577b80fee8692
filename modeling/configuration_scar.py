"""Configuration of the SCAR ranker."""

import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

PIPELINE_TASK = "scar-ranking"
POOLINGS = ("first_token", "mean")
SURPRISAL_FEATURES = ("concat", "interaction")
# Entries of a static encoder's states that count: 1, how far into the text, and whether the token was seen before.
NUM_COUNTS = 3
# Classes for loading without scar-hf, in the files ..._scar.py that are saved with the weights.
_AUTO_MAP = {"AutoConfig": "configuration_scar.ScarConfig", "AutoModel": "modeling_scar.ScarModel"}
_CUSTOM_PIPELINES = {PIPELINE_TASK: {"impl": "pipeline_scar.ScarRankingPipeline", "pt": ["AutoModel"], "type": "text"}}


class ScarStaticConfig(PreTrainedConfig):
    r"""
    Configuration of a [`ScarStaticEncoder`].

    Args:
        vocab_size (`int`, *optional*, defaults to 30522): number of tokens.
        embedding_size (`int`, *optional*, defaults to 128): width of a token's vector.
        hidden_size (`int`, *optional*, defaults to 128): width of a token's state, of which three entries count.
        max_position_embeddings (`int`, *optional*, defaults to 512): maximum number of tokens of a text.
        pad_token_id (`int`, *optional*, defaults to 0): the tokenizer's padding.
    """

    model_type = "scar-static"

    vocab_size: int = 30522
    embedding_size: int = 128
    hidden_size: int = 128
    max_position_embeddings: int = 512
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.embedding_size < 1:
            raise ValueError(f"`embedding_size` must be at least 1, got {self.embedding_size}.")
        if self.hidden_size <= NUM_COUNTS:
            raise ValueError(f"`hidden_size` must be more than {NUM_COUNTS}, the entries that count, got {self.hidden_size}.")
        super().__post_init__(**kwargs)


class ScarConfig(PreTrainedConfig):
    r"""
    Configuration of a [`ScarModel`]: the encoder it wraps, its two heads, its training loss and its calibration.

    Args:
        encoder_config (`dict` or [`~transformers.PreTrainedConfig`], *optional*, defaults to a [`~transformers.BertConfig`]):
            Configuration of the encoder, of any type that transformers supports natively, or a [`ScarStaticConfig`].
        head_size (`int`, *optional*, defaults to the encoder's hidden size):
            Width of both MLPs.
        surprisal_size (`int`, *optional*, defaults to `head_size`):
            Width of the instructional-surprisal vector.
        use_pooler (`bool`, *optional*, defaults to `True`):
            Whether a text's first-token vector is the encoder's `pooler_output` instead of its last hidden state at
            the first token. A model whose encoder has no pooler sets this to `False`.
        pooling (`str`, *optional*, defaults to `"first_token"`):
            The text vector for the surprisal head: `"first_token"`, as in the paper, or `"mean"`, the mean of the last
            hidden states. `"mean"` does not use the pooler.
        surprisal_features (`str`, *optional*, defaults to `"concat"`):
            The input of the surprisal head for instruction x and response y: `"concat"`, the paper's `[h_x; h_y]`, or
            `"interaction"`, `[h_x; h_y; h_x * h_y; |h_x - h_y|]` of vectors scaled to unit variance. In our experiments,
            only the latter learned whether the response answers the instruction.
        max_length (`int`, *optional*, defaults to 512):
            Maximum number of tokens of each instruction and response. Longer texts are truncated.
        alpha (`float`, *optional*, defaults to 0.5):
            Margin of the ranking loss (paper, section 3).
        triplet_margin (`float`, *optional*, defaults to 1.0):
            Margin of the two triplet losses on the representations.
        triplet_weight (`float`, *optional*, defaults to 0.1):
            Weight lambda of the triplet losses.
        cross_instruction_weight (`float`, *optional*, defaults to 0.0):
            Weight of an in-batch ranking loss that is not in the paper: it ranks each direct response above the human
            responses to other instructions, as selection compares them.
        sigma (`float`, *optional*, defaults to 5.0):
            Quality, in [0, 9], that both members of a pair must exceed for the pair to count. Used only with ratings.
        calibration (`dict`, *optional*):
            `quantiles`, scores of a reference set at evenly spaced quantiles from 0 to 1, and `num_rows` and `data`, the
            size and description of that set.
        training (`dict`, *optional*):
            The origin of the weights: base encoder, data with licences, recipe and metrics.
        probe (`dict`, *optional*):
            A pair of texts with its token ids and score, used to detect damaged rankers when loading.

    Example:

    ```python
    >>> from transformers import BertConfig
    >>> from scar_hf import ScarConfig, ScarModel

    >>> model = ScarModel(ScarConfig(encoder_config=BertConfig(num_hidden_layers=2), max_length=256))
    ```
    """

    model_type = "scar"
    sub_configs = {"encoder_config": AutoConfig}
    # Set by scar-hf. This file is saved with rankers and must work without it.
    when_made: ClassVar[Callable[[], Any] | None] = None

    encoder_config: dict | PreTrainedConfig | None = None
    head_size: int | None = None
    surprisal_size: int | None = None
    use_pooler: bool = True
    pooling: str = "first_token"
    surprisal_features: str = "concat"
    max_length: int = 512
    alpha: float = 0.5
    triplet_margin: float = 1.0
    triplet_weight: float = 0.1
    cross_instruction_weight: float = 0.0
    sigma: float = 5.0
    calibration: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    probe: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if ScarConfig.when_made is not None:
            ScarConfig.when_made()
        if self.encoder_config is None:
            self.encoder_config = AutoConfig.for_model("bert")
        elif isinstance(self.encoder_config, dict):
            self.encoder_config = _encoder_config(self.encoder_config)
        elif not isinstance(self.encoder_config, PreTrainedConfig):
            raise TypeError(f"`encoder_config` must be a dict or a PreTrainedConfig, got {type(self.encoder_config).__name__}.")
        if self.max_length < 3:
            raise ValueError(f"`max_length` must be at least 3 (two special tokens and a word), got {self.max_length}.")
        for name, known in (("pooling", POOLINGS), ("surprisal_features", SURPRISAL_FEATURES)):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}.")
        if self.pooling == "mean":
            self.use_pooler = False
        self.head_size = self.head_size or self.hidden_size
        self.surprisal_size = self.surprisal_size or self.head_size
        if not __name__.startswith("transformers_modules."):
            # The installed package needs no code from a checkpoint, but transformers would still run its custom pipeline.
            kwargs.pop("auto_map", None)
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """
        Save the config together with the code that its `auto_map` and `custom_pipelines` refer to, so that the ranker loads
        with `trust_remote_code=True` where scar-hf is not installed. Saving a model calls this method.

        Args:
            save_directory (`str` or `os.PathLike`): the output folder, created if needed.
            push_to_hub (`bool`, *optional*, defaults to `False`): whether to upload the config as well.
            kwargs: see [`~transformers.PreTrainedConfig.save_pretrained`].
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for file in Path(__file__).parent.glob("*_scar.py"):
            (folder / file.name).write_bytes(file.read_bytes())
        saved = deepcopy(self)
        saved.auto_map, saved.custom_pipelines = _AUTO_MAP, _CUSTOM_PIPELINES
        super(ScarConfig, saved).save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @property
    def hidden_size(self) -> int:
        """Width of the encoder's token states and of the linguistic-form vector."""
        return self.encoder_config.hidden_size  # type: ignore[union-attr]


def _encoder_config(values: dict[str, Any]) -> PreTrainedConfig:
    """Build the encoder's config from its saved dict. Only native types of transformers are allowed, so no code is fetched."""
    values = dict(values)
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise ValueError('`encoder_config` has no "model_type": this is not the config.json of a SCAR ranker.')
    if model_type == ScarStaticConfig.model_type:
        return ScarStaticConfig(**values)
    try:
        return AutoConfig.for_model(model_type, **values)
    except ValueError as error:
        raise ValueError(
            f"`encoder_config` has model_type {model_type!r}, which this version of transformers does not know. "
            "Use an encoder that transformers has natively, or upgrade transformers."
        ) from error


__all__ = ["ScarConfig", "ScarStaticConfig"]
