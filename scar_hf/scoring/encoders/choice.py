"""Chooses the backend for an encoder if the user does not."""

import importlib.util

import torch

from ...modeling import ScarConfig
from .cpu_attention import SUITED_ENCODERS

# Hidden size below which scoring takes less time than converting to OpenVINO.
_WORTH_CONVERTING = 128


def default_backend(config: ScarConfig, device: str | torch.device, dtype: torch.dtype) -> str:
    """
    Choose OpenVINO if it is installed, measurably faster, and as exact as PyTorch.

    Args:
        config ([`ScarConfig`]): the ranker's config.
        device (`str` or `torch.device`): the device.
        dtype (`torch.dtype`): the encoder's precision.

    Returns:
        `str`: `"openvino"` for encoders of the BERT family in bfloat16 on a CPU, otherwise `"torch"`.
    """
    encoder = config.encoder_config
    suited = encoder.model_type in SUITED_ENCODERS and encoder.hidden_size >= _WORTH_CONVERTING
    on_cpu = torch.device(device).type == "cpu" and dtype == torch.bfloat16
    return "openvino" if suited and on_cpu and importlib.util.find_spec("openvino") else "torch"
