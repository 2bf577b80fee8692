"""What travels to the Hub with the weights: the ranker's configuration and model, known to the Auto classes."""

from transformers import AutoConfig, AutoModel

from .configuration_scar import ScarConfig
from .modeling_scar import ScarModel, ScarOutput

AutoConfig.register(ScarConfig.model_type, ScarConfig, exist_ok=True)
AutoModel.register(ScarConfig, ScarModel, exist_ok=True)

__all__ = ["ScarConfig", "ScarModel", "ScarOutput"]
