"""Extensions of TRL's and transformers' trainers. Requires the extra `[trl]`."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ..rows.sft import to_sft_format
    from .arguments import ScarArguments
    from .curriculum import ScarCurriculumSampler, curriculum_order
    from .data_collator import ScarDataCollator
    from .selection_callback import ScarSelectionCallback, SelectionCardMixin
    from .sft_trainer import ScarSFTTrainer

__all__ = [
    "ScarArguments",
    "ScarCurriculumSampler",
    "ScarDataCollator",
    "ScarSFTTrainer",
    "ScarSelectionCallback",
    "SelectionCardMixin",
    "curriculum_order",
    "to_sft_format",
]


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".rows.sft": ["to_sft_format"],
        "arguments": ["ScarArguments"],
        "curriculum": ["ScarCurriculumSampler", "curriculum_order"],
        "data_collator": ["ScarDataCollator"],
        "selection_callback": ["ScarSelectionCallback", "SelectionCardMixin"],
        "sft_trainer": ["ScarSFTTrainer"],
    },
    extra={"trl": "trl", "peft": "trl"},
)
