"""Arguments for the selection before training, in Python and on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any

from ..methods import MethodOptions
from ..options import document, parsed, prefixed_fields
from ..scoring.scorer import ScarScorer
from ..scoring.settings import ScorerSettings
from ..selecting.criteria import OPTIONS as CRITERIA
from ..selecting.criteria import Criteria, check_k

# One argument for each setting of a scorer, such as `scar_dtype`, each criterion, such as `scar_diversity`, and of methods.
_SETTINGS, _METHOD = parsed(fields(ScorerSettings)), fields(MethodOptions)
_SharedArguments: Any = make_dataclass("_SharedArguments", prefixed_fields("scar_", (*_SETTINGS, *CRITERIA, *_METHOD)))


@dataclass
class ScarArguments(_SharedArguments):
    r"""
    Arguments for the selection in [`ScarSFTTrainer`]. Their prefix distinguishes them from those of `SFTConfig` and
    `ModelConfig` on the same command line.

    Args:
        scar_k (`float` or `int`, *optional*):
            How much to train on: values up to 1.0 are a share of the rows, larger ones a count. By default a tenth, unless
            `scar_threshold` is given.
        {criteria}
        {settings}
        scar_start_k (`float` or `int`, *optional*):
            For a curriculum: share or count of the best rows to start with, before widening to `scar_k`.
        scar_widen (`float`, *optional*, defaults to 0.5):
            Share of the training, in (0, 1], after which the curriculum covers all selected rows.

    Raises:
        `ValueError`: if a value is out of range.

    Example:

    ```python
    >>> from scar_hf.trainer_callbacks import ScarArguments, ScarSFTTrainer

    >>> trainer = ScarSFTTrainer(model, train_dataset=ds, scar_args=ScarArguments(scar_k=0.1))
    ```
    """

    scar_k: float | None = field(
        default=None,
        metadata={
            "help": "How much to train on: values up to 1.0 are a share of the rows, larger ones a count. By default a tenth."
        },
    )
    scar_start_k: float | None = field(
        default=None, metadata={"help": "Curriculum: share or count of the best rows to start with, before widening to scar_k."}
    )
    scar_widen: float = field(
        default=0.5, metadata={"help": "Share of the training after which the curriculum covers all selected rows."}
    )

    def __post_init__(self) -> None:
        if self.scar_k is None and self.scar_threshold is None:
            self.scar_k = 0.1
        if self.scar_k is not None:
            self.scar_k = _share_or_count("scar_k", self.scar_k)
        if self.scar_start_k is not None:
            self.scar_start_k = _share_or_count("scar_start_k", self.scar_start_k)
        if not 0 < self.scar_widen <= 1:
            raise ValueError(f"`scar_widen` must be a share in (0, 1], got {self.scar_widen!r}.")

    def criteria(self) -> Criteria:
        """Create the [`~scar_hf.selecting.criteria.Criteria`] from these arguments."""
        return Criteria.from_options(self.scar_k, {found.name: getattr(self, f"scar_{found.name}") for found in CRITERIA})

    def scorer(self, columns_of_data: Sequence[str] | None = None, **kwargs: Any) -> ScarScorer:
        """
        Create the [`ScarScorer`] from these arguments: the ranker, or the scorer of `scar_method`.

        Args:
            columns_of_data (`Sequence[str]`, *optional*): columns of the data, to check a column that `scar_method` names.
            kwargs: further arguments of [`ScarScorer`].

        Returns:
            [`ScarScorer`].

        Raises:
            `ValueError`: if there is no such method or column, or a method lacks its language model.
        """
        from ..methods import method_scorer  # which loads torch

        settings = {found.name: getattr(self, f"scar_{found.name}") for found in (*_METHOD, *_SETTINGS)}
        return method_scorer(columns_of_data=columns_of_data, **settings, **kwargs)


document(ScarArguments, "criteria", (*CRITERIA, *_METHOD), "scar_")
document(ScarArguments, "settings", _SETTINGS, "scar_")


def _share_or_count(name: str, k: float) -> float:
    """Read whole numbers above 1 as counts, even if the command line parsed them as floats."""
    if isinstance(k, float) and k > 1 and k.is_integer():
        k = int(k)
    try:
        check_k(k)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}`: {error}") from error
    return k
