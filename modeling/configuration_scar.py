"""Configuration of the SCAR ranker."""

from typing import Any

from transformers import AutoConfig, BertConfig, PreTrainedConfig


class ScarConfig(PreTrainedConfig):
    r"""
    Configuration of a [`ScarModel`]: the encoder it wraps, its two heads, its training loss and its calibration.

    Args:
        encoder_config (`dict` or [`~transformers.PreTrainedConfig`], *optional*, defaults to a [`~transformers.BertConfig`]):
            Configuration of the encoder, of any encoder type that transformers has natively.
        head_size (`int`, *optional*, defaults to the encoder's hidden size):
            Width of both MLPs and of the instructional-surprisal vector.
        use_pooler (`bool`, *optional*, defaults to `True`):
            Whether a text's first-token vector is the encoder's `pooler_output` instead of its last hidden state at
            the first token. A model whose encoder has no pooler sets this to `False`.
        max_length (`int`, *optional*, defaults to 512):
            Tokens of an instruction, and of a response, that are read. Longer texts are cut at the end.
        alpha (`float`, *optional*, defaults to 0.5):
            Margin of the ranking loss (paper, section 3).
        triplet_margin (`float`, *optional*, defaults to 1.0):
            Margin of the two triplet losses on the representations.
        triplet_weight (`float`, *optional*, defaults to 0.1):
            Weight lambda of the triplet losses.
        sigma (`float`, *optional*, defaults to 5.0):
            Quality both members of a pair must exceed for the pair to count, in [0, 9]. Read only where ratings are given.
        calibration (`dict`, *optional*):
            `quantiles`, the scores at evenly spaced shares from the lowest (share 0) to the highest (share 1) over a
            reference set, `num_rows` and `data`, the size and description of that set.
        training (`dict`, *optional*):
            Where the weights come from: base encoder, data with licences, recipe and metrics.

    Example:

    ```python
    >>> from transformers import BertConfig
    >>> from scar_hf import ScarConfig, ScarModel

    >>> model = ScarModel(ScarConfig(encoder_config=BertConfig(num_hidden_layers=2), max_length=256))
    ```
    """

    model_type = "scar"
    sub_configs = {"encoder_config": AutoConfig}

    encoder_config: dict | PreTrainedConfig | None = None
    head_size: int | None = None
    use_pooler: bool = True
    max_length: int = 512
    alpha: float = 0.5
    triplet_margin: float = 1.0
    triplet_weight: float = 0.1
    sigma: float = 5.0
    calibration: dict[str, Any] | None = None
    training: dict[str, Any] | None = None

    def __post_init__(self, **kwargs):
        if self.encoder_config is None:
            self.encoder_config = BertConfig()
        elif isinstance(self.encoder_config, dict):
            self.encoder_config = _encoder_config(self.encoder_config)
        elif not isinstance(self.encoder_config, PreTrainedConfig):
            raise TypeError(f"`encoder_config` must be a dict or a PreTrainedConfig, got {type(self.encoder_config).__name__}.")
        if self.max_length < 3:
            raise ValueError(f"`max_length` must be at least 3 (two special tokens and a word), got {self.max_length}.")
        self.head_size = self.head_size or self.hidden_size
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Width of the encoder's token states and of the linguistic-form vector."""
        return self.encoder_config.hidden_size  # type: ignore[union-attr]


def _encoder_config(values: dict[str, Any]) -> PreTrainedConfig:
    """Build the encoder's config from its saved dict; only types that transformers itself knows, so no code is fetched."""
    values = dict(values)
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise ValueError('`encoder_config` has no "model_type": this is not the config.json of a SCAR ranker.')
    try:
        return AutoConfig.for_model(model_type, **values)
    except ValueError as error:
        raise ValueError(
            f"`encoder_config` has model_type {model_type!r}, which this version of transformers does not know. "
            "Use an encoder that transformers has natively, or upgrade transformers."
        ) from error


__all__ = ["ScarConfig"]
