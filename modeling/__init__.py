"""What travels to the Hub with the weights: the ranker's configuration, model and pipeline, known to transformers."""

from transformers import AutoConfig, AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_scar import PIPELINE_TASK, ScarConfig
from .modeling_scar import ScarModel, ScarOutput
from .pipeline_scar import ScarRankingPipeline

AutoConfig.register(ScarConfig.model_type, ScarConfig, exist_ok=True)
AutoModel.register(ScarConfig, ScarModel, exist_ok=True)
if PIPELINE_TASK not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(PIPELINE_TASK, pipeline_class=ScarRankingPipeline, pt_model=AutoModel, type="text")

__all__ = ["ScarConfig", "ScarModel", "ScarOutput", "ScarRankingPipeline"]
