"""The ranker's configuration, model and pipeline, which are saved with the weights."""

from typing import TYPE_CHECKING

# First, because loading it makes scar-hf register the ranker's config.
import transformers.models.auto.configuration_auto  # noqa: F401

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .configuration_scar import ScarConfig, ScarStaticConfig
    from .modeling_scar import ScarModel, ScarOutput
    from .pipeline_scar import ScarRankingPipeline
    from .static_encoder_scar import ScarStaticEncoder

__all__ = ["ScarConfig", "ScarModel", "ScarOutput", "ScarRankingPipeline", "ScarStaticConfig", "ScarStaticEncoder"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "configuration_scar": ["ScarConfig", "ScarStaticConfig"],
        "modeling_scar": ["ScarModel", "ScarOutput"],
        "pipeline_scar": ["ScarRankingPipeline"],
        "static_encoder_scar": ["ScarStaticEncoder"],
    },
)
