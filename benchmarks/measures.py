"""Compute reference values: the machine's matrix-multiply peak, the operations per text, and a rank correlation."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

# Widths of MiniLM's largest matrix products, and rows of tokens.
_WIDTH = 1536
_CPU_ROWS, _GPU_ROWS = 4096, 65_536


def matmul_peak(dtype: str, device: str, seconds: float = 2.0) -> float | None:
    """
    Measure the fastest matrix multiplication of a large product with all threads.

    Args:
        dtype (`str`): `"float32"`, `"bfloat16"`, `"float16"` or `"int8"`.
        device (`str`): the device.
        seconds (`float`, *optional*, defaults to 2.0): how long to repeat; the fastest repetition counts.

    Returns:
        `float`: operations per second, two for each multiply-add; `None` if torch cannot multiply this type.
    """
    rows = _GPU_ROWS if device.startswith("cuda") else _CPU_ROWS
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    if dtype == "int8":
        x = torch.randint(-8, 8, (rows, _WIDTH), dtype=torch.int8, device=device)
        w = torch.randint(-8, 8, (_WIDTH, _WIDTH), dtype=torch.int8, device=device).t()
        multiply: Callable = getattr(torch, "_int_mm", None)  # type: ignore[assignment]
    else:
        x = torch.randn(rows, _WIDTH, device=device).to(getattr(torch, dtype))
        w = torch.randn(_WIDTH, _WIDTH, device=device).to(getattr(torch, dtype)).t()
        multiply = torch.mm
    if multiply is None:
        return None
    try:
        multiply(x, w)
    except RuntimeError:
        return None
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < seconds:
        synchronize()
        start = time.perf_counter()
        multiply(x, w)
        synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * rows * _WIDTH * _WIDTH / best


def encoder_operations(lengths: Sequence[int], parameters: int, hidden_size: int, layers: int) -> float:
    """
    Count the matrix-multiply operations that texts need without padding.

    Args:
        lengths (`Sequence[int]`): tokens of each text.
        parameters (`int`): the encoder's parameters in matrix multiplications.
        hidden_size, layers (`int`): the encoder's sizes, for attention: 4 x length x width per token and layer.

    Returns:
        `float`: operations, two for each multiply-add.
    """
    n = np.asarray(lengths, dtype=np.float64)
    return float((2 * parameters * n + 4 * layers * hidden_size * n**2).sum())


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation; equal values share the mean of their ranks."""
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
