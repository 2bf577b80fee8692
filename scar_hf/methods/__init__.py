"""Other methods of selection behind the interface of SCAR: baselines, columns of the data, and combinations."""

from .building import COMBINATIONS, METHODS, method_scorer, read_method
from .combined import CombinedScorer
from .diversity import DiversityScorer
from .language_model import LanguageModelScorer
from .scorer import MethodScorer
from .scoring import score_source
from .simple import ColumnScorer, LongestScorer, RandomScorer

__all__ = [
    "COMBINATIONS",
    "METHODS",
    "ColumnScorer",
    "CombinedScorer",
    "DiversityScorer",
    "LanguageModelScorer",
    "LongestScorer",
    "MethodScorer",
    "RandomScorer",
    "method_scorer",
    "read_method",
    "score_source",
]
