"""Converts checkpoints of scar-tool, the paper's code, to native rankers. Every key is checked, and no code is executed."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from .configuration_scar import ScarConfig
from .modeling_scar import ScarModel

_MODEL_TYPE = "style_ranker"
_HEADS = {
    "relation_network.0": "surprisal_head.dense",
    "relation_network.2": "surprisal_head.out_proj",
    "output_layer.0": "score_head.dense",
    "output_layer.2": "score_head.out_proj",
}
# Not weights: counted from 0, all zero, or computed from the config.
_BUFFERS = ("position_ids", "token_type_ids", "inv_freq", "cos_cached", "sin_cached")
# Default number of tokens that scar-tool reads per text.
_MAX_LENGTH = 512

# Encoders of GTE v1.5 have the type "new", implemented by code in their repositories. First the options that the native model
# shares, then the only value of each other option that it implements.
_GTE_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)
_GTE_FIXED = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "logn_attention_scale": False,
    "pack_qkv": True,
}


def convert_scar_tool_checkpoint(
    checkpoint: str, encoder: str | None = None, revision: str | None = None
) -> tuple[ScarModel, PreTrainedTokenizerBase]:
    """
    Convert a ranker saved by scar-tool, such as `lizhuang144/scar-gte-base`.

    Args:
        checkpoint (`str`):
            Folder or Hub id, with `config.json` of type `style_ranker`, `model.safetensors` or `pytorch_model.bin`, and the
            tokenizer.
        encoder (`str`, *optional*, defaults to the checkpoint's `encoder_name`):
            Folder, Hub id or `config.json` of the base encoder, of which only the config is read.
        revision (`str`, *optional*):
            Branch, tag or commit of a checkpoint on the Hub.

    Returns:
        `tuple(ScarModel, PreTrainedTokenizerBase)`: the ranker, in evaluation mode and in the checkpoint's precision, and
        its tokenizer.

    Raises:
        `ValueError`: if it is not such a checkpoint, the encoder's config cannot be read or is not supported, the weights are
        damaged, or a key is missing, unexpected or of another shape.

    Example:

    ```python
    >>> from scar_hf.modeling.convert_scar_tool_checkpoint import convert_scar_tool_checkpoint

    >>> model, tokenizer = convert_scar_tool_checkpoint("lizhuang144/scar-gte-base")
    >>> model.save_pretrained("scar-gte-base")
    ```
    """
    published = _read_config(checkpoint, "the checkpoint", revision)
    if published.get("model_type") != _MODEL_TYPE:
        raise ValueError(
            f"{checkpoint!r} is of type {published.get('model_type')!r}, not {_MODEL_TYPE!r} of scar-tool. "
            "Rankers of scar-hf need no conversion."
        )
    encoder = encoder or published.get("encoder_name")
    if encoder is None:
        raise ValueError(f"The config of {checkpoint!r} names no encoder: pass `encoder`, its folder, Hub id or config.json.")
    encoder_config = _native_encoder_config(_read_config(encoder, "the base encoder; pass another as `encoder`"))
    weights = _renamed(_read_weights(checkpoint, revision), checkpoint)
    # An empty config, as the checkpoint's own is of a type that transformers does not know.
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, revision=revision, config=PreTrainedConfig(), trust_remote_code=False)
    positions = encoder_config.get("max_position_embeddings") or _MAX_LENGTH
    config = ScarConfig(
        encoder_config=encoder_config,
        head_size=len(weights["surprisal_head.dense.bias"]),
        surprisal_size=len(weights["surprisal_head.out_proj.bias"]),
        max_length=min(_MAX_LENGTH, tokenizer.model_max_length, positions),
        training={
            "encoder": published.get("encoder_name"),
            "converted_from": Path(checkpoint).name if Path(checkpoint).is_dir() else checkpoint,
        },
    )
    model, info = ScarModel.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=weights["score_head.out_proj.bias"].dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    _check_keys(
        checkpoint, **{name: sorted(map(str, info[f"{name}_keys"])) for name in ("missing", "unexpected", "mismatched")}
    )
    return model.eval(), tokenizer


def ntk_as_linear(theta: float, factor: float, head_dim: int) -> dict[str, Any]:
    """
    Express the NTK scaling of GTE v1.5, `1 / (theta * factor) ** (2i / d) / factor ** (2 / d)` for the i-th frequency, as the
    linear scaling that transformers has: a larger base, and a factor that divides all frequencies.

    Args:
        theta (`float`): the base, `rope_theta` of the published config.
        factor (`float`): `factor` of its `rope_scaling`, at least 1.
        head_dim (`int`): d, the width of an attention head.

    Returns:
        `dict`: `rope_parameters` of a native config.
    """
    return {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / head_dim)}


def _read_config(source: str, what: str, revision: str | None = None) -> dict[str, Any]:
    """Read a config.json without running code that it refers to."""
    try:
        values, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    except (OSError, TypeError, RecursionError) as error:
        raise ValueError(f"No config.json can be read at {source!r} ({what}): {error}") from error
    if not values or not isinstance(values, dict):
        raise ValueError(f"No config.json found at {source!r} ({what}).")
    return values


def _native_encoder_config(values: dict[str, Any]) -> dict[str, Any]:
    """Return the encoder's config without options of its own repository; for GTE v1.5, the native config."""
    values = {name: value for name, value in values.items() if name not in ("auto_map", "_name_or_path")}
    if values.get("model_type") != "new":
        return values
    missing = [name for name in (*_GTE_SETTINGS, "rope_theta") if name not in values]
    if missing:
        raise ValueError(f"The config of the GTE encoder lacks {missing}: pass the complete one, as published.")
    for name, expected in _GTE_FIXED.items():
        if values.get(name, expected) != expected:
            raise ValueError(f"A GTE encoder with {name}={values[name]!r} is not supported, only {expected!r}.")
    theta, scaling = values["rope_theta"], values.get("rope_scaling")
    if scaling is None:
        rope = {"rope_type": "default", "rope_theta": theta}
    elif scaling.get("type") == "ntk" and scaling.get("mixed_b") is None:
        rope = ntk_as_linear(theta, scaling["factor"], values["hidden_size"] // values["num_attention_heads"])
    else:
        raise ValueError(f'A GTE encoder with rope_scaling={scaling} is not supported, only type "ntk" without "mixed_b".')
    return {"model_type": "gte", "rope_parameters": rope} | {name: values[name] for name in _GTE_SETTINGS}


def _read_weights(checkpoint: str, revision: str | None) -> dict[str, torch.Tensor]:
    """Read the tensors from safetensors if possible, otherwise from a pickle that may contain only tensors."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        file = cached_file(checkpoint, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if file is not None:
            break
    else:
        raise ValueError(f"{checkpoint!r} has neither model.safetensors nor pytorch_model.bin.")
    try:
        weights = load_file(file) if name.endswith(".safetensors") else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise ValueError(
            f"{name} of {checkpoint!r} cannot be read: it is damaged, cut off, or holds more than tensors, which is not "
            f"executed. {str(error).partition(chr(10))[0]}"
        ) from error
    wrong = (
        [key for key, value in weights.items() if not isinstance(value, torch.Tensor)] if isinstance(weights, dict) else ["."]
    )
    if wrong:
        raise ValueError(f"{name} of {checkpoint!r} is not a state dict: {wrong[:4]} are not tensors.")
    return weights


def _renamed(weights: dict[str, torch.Tensor], checkpoint: str) -> dict[str, torch.Tensor]:
    """Rename the heads; transformers translates the encoder's keys if necessary."""
    renamed, unexpected = {}, []
    for key, tensor in weights.items():
        module, _, leaf = key.rpartition(".")
        if module in _HEADS:
            renamed[f"{_HEADS[module]}.{leaf}"] = tensor
        elif not key.startswith("encoder."):
            unexpected.append(key)
        elif leaf not in _BUFFERS:
            renamed[key] = tensor
    missing = [f"{module}.{leaf}" for module in _HEADS for leaf in ("weight", "bias") if f"{module}.{leaf}" not in weights]
    _check_keys(checkpoint, missing, unexpected)
    return renamed


def _check_keys(checkpoint: str, missing: list[str], unexpected: list[str], mismatched: list[str] | None = None) -> None:
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched or []}
    if any(wrong.values()):
        listed = "; ".join(f"{name}: {', '.join(keys)}" for name, keys in wrong.items() if keys)
        raise ValueError(
            f"The weights of {checkpoint!r} do not fit its config and encoder ({listed}). Check the checkpoint, and that the "
            "base encoder is the one it was trained from."
        )


__all__ = ["convert_scar_tool_checkpoint", "ntk_as_linear"]
