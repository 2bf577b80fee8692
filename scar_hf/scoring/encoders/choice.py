"""Chooses device, precision and backend for an encoder, and creates it."""

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from ...modeling import ScarConfig, ScarModel
from ..precision import as_dtype, check_device, default_device, int8_is_slow
from ..settings import ScorerSettings
from .cpu_attention import SUITED_ENCODERS
from .torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from ..chunks import Encoder

logger = logging.getLogger(__name__)
# Hidden size below which scoring takes less time than converting to OpenVINO.
_WORTH_CONVERTING = 128


def resolve_hardware(settings: ScorerSettings) -> tuple[str, torch.dtype, str]:
    """
    Resolve device, precision and backend on this machine.

    Args:
        settings ([`~scar_hf.scoring.settings.ScorerSettings`]): the settings as given.

    Returns:
        `tuple(str, torch.dtype, str)`: device, precision, and backend; the backend may still be `"auto"`.

    Raises:
        `ValueError`: if they contradict each other, or the device does not exist.
    """
    device, dtype, backend = settings.device, settings.dtype, settings.backend
    if backend == "auto" and as_dtype(dtype, "cpu") == torch.int8:
        backend = "openvino"
    found = check_device(device or ("cpu" if backend == "openvino" else default_device()))
    if backend == "openvino" and torch.device(found).type != "cpu":
        raise ValueError(f'backend="openvino" runs on the CPU, got device={device!r}. Use backend="torch" on a GPU.')
    precision = as_dtype("int8" if backend == "openvino" and dtype == "auto" else dtype, found)
    if precision == torch.int8 and backend == "torch":
        raise ValueError('dtype="int8" requires backend="openvino".')
    if backend == "openvino" and precision == torch.float16:
        raise ValueError('backend="openvino" supports int8, bfloat16 and float32, got dtype="float16".')
    return found, precision, backend


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


def make_encoder(
    model: ScarModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: ScorerSettings,
    path: str,
    backend: str,
    precision: str,
    threads: int,
) -> "Encoder":
    """
    Create what runs a ranker's encoder.

    Args:
        model, tokenizer: the loaded ranker.
        settings ([`~scar_hf.scoring.settings.ScorerSettings`]): the scorer's settings.
        path (`str`): the ranker's folder or Hub id.
        backend (`str`): `"torch"` or `"openvino"`.
        precision (`str`): such as `"bfloat16"`.
        threads (`int`): number of threads for all batches together.

    Returns:
        [`~scar_hf.scoring.chunks.Encoder`].

    Raises:
        `ValueError`: if `max_length` is longer than the encoder reads.
    """
    limit = getattr(model.config.encoder_config, "max_position_embeddings", None)
    if settings.max_length and limit and settings.max_length > limit:
        raise ValueError(
            f"`max_length` is {settings.max_length}, but the encoder of {settings.model!r} reads at most {limit} tokens."
        )
    if backend == "torch":
        return TorchEncoder(model, getattr(tokenizer, "pad_token_id", None) or 0, settings.tokens_per_batch, threads)
    from .openvino_encoder import OpenVinoEncoder

    if precision == "int8" and int8_is_slow():
        logger.warning('This CPU has no instructions for int8 products: dtype="float32" is as fast, and exact.')
    options: dict[str, Any] = {} if settings.tokens_per_batch is None else {"tokens_per_batch": settings.tokens_per_batch}
    return OpenVinoEncoder(path, revision=settings.revision, precision=precision, num_threads=threads, **options)
