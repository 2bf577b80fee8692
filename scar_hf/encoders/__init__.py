"""What turns tokenised texts into a ranker's two vectors, on each kind of hardware."""

from .torch_encoder import TorchEncoder

__all__ = ["TorchEncoder"]
