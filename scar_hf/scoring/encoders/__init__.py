"""Backends that run a ranker's encoder."""

from .choice import default_backend, make_encoder, resolve_hardware
from .cpu_attention import prefer_cpu_attention
from .torch_encoder import TorchEncoder

__all__ = ["TorchEncoder", "default_backend", "make_encoder", "prefer_cpu_attention", "resolve_hardware"]
