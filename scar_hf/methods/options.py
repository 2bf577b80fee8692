"""Options of methods, shared by the command line and the trainer arguments."""

from dataclasses import dataclass

from ..options import option

COMBINATIONS = ("reciprocal_rank", "z_score")


@dataclass(frozen=True)
class MethodOptions:
    """Options that choose how rows are ranked."""

    method: str = option(
        "scar",
        "scar, random, longest, perplexity, ifd, diversity, a column of numbers, or several: scar=1,ifd=0.5.",
        metavar="METHOD",
    )
    lm: str | None = option(None, "Language model for perplexity and ifd: a Hub id, folder or GGUF file.", metavar="LM")
    seed: int = option(0, "Seed for random and diversity.", int, metavar="N")
    combine: str = option("reciprocal_rank", "How to combine several methods into one score.", choices=COMBINATIONS)
