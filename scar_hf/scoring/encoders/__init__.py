"""Backends that run a ranker's encoder."""

from .choice import default_backend
from .cpu_attention import prefer_cpu_attention
from .torch_encoder import TorchEncoder

__all__ = ["TorchEncoder", "default_backend", "prefer_cpu_attention"]
