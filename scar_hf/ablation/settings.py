"""Settings of an ablation, which the command line offers as options."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..options import option
from ..selecting.criteria import check_k

EVERYTHING = "everything"
BASELINE = "random"
BUDGETS = ("steps", "epochs")


@dataclass(frozen=True)
class AblationSettings:
    """
    Settings of an ablation: the model, the selections, the training and the evaluation.

    Args:
        model (`str`): Hub id or folder of a causal language model.
        k (`Sequence[float]`): shares or counts to keep.
        methods (`Sequence[str]`): names of methods as for [`~scar_hf.scar_rank`], including `"random"`; `"everything"`
            stands for all rows.
        budgets (`Sequence[str]`):
            `"steps"`: train on every set for `steps` steps. `"epochs"`: train on every set for `epochs` epochs, so that larger
            sets take more steps.
        seeds, steps, epochs, batch_size, learning_rate, lora_r, max_length: see `scar-hf ablate --help`.
        prompts, max_new_tokens, constraints, code: likewise.
        dtype, device, revision, trust_remote_code: likewise.

    Raises:
        `ValueError`: if a value is out of range, or there is no other method to compare with `"random"`.
    """

    model: str
    k: Sequence[float] = (0.1,)
    methods: Sequence[str] = ("scar", BASELINE, "longest", EVERYTHING)
    budgets: Sequence[str] = BUDGETS
    seeds: int = option(3, "Trainings of each cell, each with its own random rows, order and adapters.", int)
    steps: int = option(100, "Optimiser steps of every training with equal steps.", int)
    epochs: float = option(1.0, "Passes over the rows of every training with equal epochs.", float)
    batch_size: int = option(8, "Rows of a step.", int)
    learning_rate: float = option(2e-4, "Highest learning rate; warm-up over the first tenth, then a cosine.", float)
    lora_r: int = option(16, "Rank of the adapters, on all linear layers.", int)
    max_length: int = option(512, "Tokens of a row that are read in training and measured.", int)
    prompts: int = option(100, "Held-out instructions that are answered and whose answers are measured.", int)
    max_new_tokens: int = option(128, "Tokens that an answer may have.", int)
    constraints: int = option(60, "Instructions with constraints that a program verifies; 0 for none.", int)
    code: bool = option(False, "Run code that the tuned models write, in a subprocess with limits and without network.", bool)
    dtype: str = option("auto", "Precision of the model's weights; the adapters are float32.")
    device: str | None = option(None, "Where to train; by default a GPU if there is one.")
    revision: str | None = option(None, "Branch, tag or commit of a model on the Hub.")
    trust_remote_code: bool = option(False, "Let code that the model brings run.", bool)

    def __post_init__(self) -> None:
        for name in ("k", "methods", "budgets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for k in self.k:
            check_k(k)
        if not self.k or BASELINE not in self.methods or len(set(self.methods)) < 2:
            raise ValueError(
                f"`methods` must hold {BASELINE!r}, with which the others are compared, and another one, and `k` at least one "
                f"value; got {list(self.methods)} and {list(self.k)}."
            )
        if not self.budgets or not set(self.budgets) <= set(BUDGETS):
            raise ValueError(f"`budgets` must be of {BUDGETS}, got {list(self.budgets)}.")
        lowest = {"seeds": 1, "steps": 1, "batch_size": 1, "lora_r": 1, "max_length": 32, "prompts": 2, "max_new_tokens": 1}
        for name, least in {**lowest, "constraints": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        if self.epochs <= 0 or self.learning_rate <= 0:
            raise ValueError(f"`epochs` and `learning_rate` must be above 0, got {self.epochs} and {self.learning_rate}.")

    def describe(self) -> dict[str, Any]:
        """Return the settings that affect results, as JSON types."""
        said = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in said.items() if name not in ("device", "trust_remote_code")}
