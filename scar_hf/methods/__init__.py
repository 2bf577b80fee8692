"""Other selection methods with the interface of SCAR: baselines, columns of the data, and combinations."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .building import METHODS, method_scorer, read_method
    from .combined import CombinedScorer
    from .diversity import DiversityScorer
    from .language_model import LanguageModelScorer
    from .options import COMBINATIONS, MethodOptions
    from .scorer import MethodScorer, score_source
    from .simple import ColumnScorer, LongestScorer, RandomScorer

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "building": ("METHODS", "method_scorer", "read_method"),
        "combined": ("CombinedScorer",),
        "diversity": ("DiversityScorer",),
        "language_model": ("LanguageModelScorer",),
        "options": ("COMBINATIONS", "MethodOptions"),
        "scorer": ("MethodScorer", "score_source"),
        "simple": ("ColumnScorer", "LongestScorer", "RandomScorer"),
    },
)

__all__ = [
    "COMBINATIONS",
    "METHODS",
    "ColumnScorer",
    "CombinedScorer",
    "DiversityScorer",
    "LanguageModelScorer",
    "LongestScorer",
    "MethodOptions",
    "MethodScorer",
    "RandomScorer",
    "method_scorer",
    "read_method",
    "score_source",
]
