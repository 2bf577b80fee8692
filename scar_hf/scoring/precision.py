"""Chooses the device and precision for a ranker."""

import platform
from functools import lru_cache
from pathlib import Path

import torch

# Flags in /proc/cpuinfo for bfloat16 dot products on x86 and Arm.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# Flags for integer dot products, without which int8 is no faster than float32.
_INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


def check_device(device: str | torch.device) -> str:
    """
    Check that a device is there.

    Args:
        device (`str` or `torch.device`): such as `"cpu"`, `"cuda:1"` or `"mps"`.

    Returns:
        `str`: the same.

    Raises:
        `ValueError`: if PyTorch knows no such device, or this machine has none.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`device` must be a device of PyTorch, such as cpu, cuda:1 or mps, got {device!r}.") from error
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == "cuda" and (found.index or 0) >= count:
        raise ValueError(f"There is no device {device!r}: PyTorch finds {count} CUDA devices. Pass another, or omit `device`.")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"There is no device {device!r} on this machine. Pass another, or omit `device`.")
    return str(device)


def default_device() -> str:
    """Return a GPU if there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_dtype(device: str | torch.device) -> torch.dtype:
    """Return bfloat16 if the device supports it natively, otherwise float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if kind == "cpu" and _cpu_flags() & _BF16_FLAGS:
        return torch.bfloat16
    return torch.float32


def as_dtype(dtype: str | torch.dtype, device: str | torch.device) -> torch.dtype:
    """Convert the name of a precision to a `torch.dtype`; "auto" means [`default_dtype`]."""
    if dtype == "auto":
        return default_dtype(device)
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16, torch.int8):
        raise ValueError(f"`dtype` must be 'auto', 'float32', 'bfloat16', 'float16' or 'int8', got {dtype!r}.")
    return found


def precision_name(dtype: torch.dtype) -> str:
    """Return the name of a precision, such as `"bfloat16"`."""
    return str(dtype).removeprefix("torch.")


def int8_is_slow() -> bool:
    """Whether this machine's CPU is known to lack integer dot products."""
    return bool(_cpu_flags()) and not _cpu_flags() & _INT8_FLAGS


@lru_cache(maxsize=1)
def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not info.is_file():
        return set()
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return {flag for line in lines if line.lower().startswith(("flags", "features")) for flag in line.split()}
