"""The options of methods, which the command line and trainer arguments share."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..selecting.criteria import option

if TYPE_CHECKING:
    from ..scoring.scorer import ScarScorer

COMBINATIONS = ("reciprocal_rank", "z_score")


@dataclass(frozen=True)
class MethodOptions:
    """How rows are ranked, one option each."""

    method: str = option(
        "scar",
        "scar, random, longest, perplexity, ifd, diversity, a column of numbers, or several: scar=1,ifd=0.5.",
        str,
        metavar="METHOD",
    )
    lm: str | None = option(None, "Language model for perplexity and ifd: a Hub id, folder or GGUF file.", str, metavar="LM")
    seed: int = option(0, "Seed for random and diversity.", int, metavar="N")
    combine: str = option(
        "reciprocal_rank", "How to combine several methods into one score.", str, choices=COMBINATIONS, metavar=None
    )

    def scorer(self, columns_of_data: Sequence[str] | None = None, **settings: Any) -> "ScarScorer":
        """
        Make the scorer.

        Args:
            columns_of_data (`Sequence[str]`, *optional*): columns of the data, to check column names.
            settings: as for [`~scar_hf.ScarScorer`].

        Returns:
            [`~scar_hf.ScarScorer`].

        Raises:
            `ValueError`: as [`~scar_hf.methods.method_scorer`].
        """
        from .building import method_scorer  # which loads torch

        return method_scorer(**asdict(self), columns_of_data=columns_of_data, **settings)
