"""
Registers the ranker with the Auto classes without loading them: `import scar_hf` loads neither transformers nor torch.

The config is registered as soon as transformers has loaded its Auto classes. The model and the pipeline are registered when
the first config is created, which every `from_pretrained` does.
"""

import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_AUTO_CLASSES = "transformers.models.auto.configuration_auto"


def register_when_needed() -> None:
    """Register the ranker's config with transformers: now, or as soon as transformers has loaded its Auto classes."""
    if _AUTO_CLASSES in sys.modules:
        _register_config()
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the module of the Auto classes as usual, and registers the config once the module is loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _AUTO_CLASSES:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _register_config()

    def __getattr__(self, name: str) -> Any:  # such as `get_source`
        return getattr(self.loader, name)


def _register_config() -> None:
    from transformers import AutoConfig

    from .modeling.configuration_scar import ScarConfig, ScarStaticConfig

    for config in (ScarConfig, ScarStaticConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
    ScarConfig.when_made = _register_model


@cache
def _register_model() -> None:
    from transformers import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from .modeling.configuration_scar import PIPELINE_TASK, ScarConfig, ScarStaticConfig
    from .modeling.modeling_scar import ScarModel
    from .modeling.pipeline_scar import ScarRankingPipeline
    from .modeling.static_encoder_scar import ScarStaticEncoder

    AutoModel.register(ScarConfig, ScarModel, exist_ok=True)
    AutoModel.register(ScarStaticConfig, ScarStaticEncoder, exist_ok=True)
    PIPELINE_REGISTRY.register_pipeline(PIPELINE_TASK, pipeline_class=ScarRankingPipeline, pt_model=AutoModel, type="text")
    # Set here, because the code that is copied next to the weights must not depend on cards.
    ScarModel.uploader = _upload


def _upload(model: Any, repo_id: str, **kwargs: Any) -> Any:
    from .hub_cards import push_model

    return push_model(model, repo_id, **kwargs)
