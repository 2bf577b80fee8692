"""What plugs into TRL's and transformers' trainers. Needs the extra `[trl]`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..rows.sft import to_sft_format
    from .arguments import ScarArguments
    from .curriculum import ScarCurriculumSampler, curriculum_order
    from .data_collator import ScarDataCollator
    from .selection_callback import ScarSelectionCallback
    from .sft_trainer import ScarSFTTrainer

_EXPORTS = {
    "ScarArguments": "arguments",
    "ScarCurriculumSampler": "curriculum",
    "ScarDataCollator": "data_collator",
    "ScarSFTTrainer": "sft_trainer",
    "ScarSelectionCallback": "selection_callback",
    "curriculum_order": "curriculum",
    "to_sft_format": ".rows.sft",
}

__all__ = [
    "ScarArguments",
    "ScarCurriculumSampler",
    "ScarDataCollator",
    "ScarSFTTrainer",
    "ScarSelectionCallback",
    "curriculum_order",
    "to_sft_format",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in ("trl", "peft"):
            raise
        raise ImportError(f'{name} needs {error.name}: pip install "scar-hf[trl]"') from error


def __dir__() -> list[str]:
    return sorted(__all__)
