"""Which backend runs an encoder, where the user leaves it open."""

import importlib.util

import torch

from ...modeling import ScarConfig
from .cpu_attention import SUITED_ENCODERS

# A narrower encoder is done before OpenVINO has converted it.
_WORTH_CONVERTING = 128


def default_backend(config: ScarConfig, device: str | torch.device, dtype: torch.dtype) -> str:
    """
    Choose the backend: OpenVINO where it is installed, was measured to be faster, and computes as exactly as PyTorch.

    Args:
        config ([`ScarConfig`]): the ranker's.
        device (`str` or `torch.device`): where it runs.
        dtype (`torch.dtype`): the encoder's precision.

    Returns:
        `str`: `"openvino"` for encoders of the BERT family in bfloat16 on a CPU, else `"torch"`.
    """
    encoder = config.encoder_config
    suited = encoder.model_type in SUITED_ENCODERS and encoder.hidden_size >= _WORTH_CONVERTING
    on_cpu = torch.device(device).type == "cpu" and dtype == torch.bfloat16
    return "openvino" if suited and on_cpu and importlib.util.find_spec("openvino") else "torch"
