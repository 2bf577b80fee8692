"""Measure style, by linguistic form and instructional surprisal, and how consistent it is within a set."""

from .baselines import BASELINES, Draws, draw_baselines
from .change import Change, StyleChange, compare
from .consistency import Spread, StyleConsistency, style_consistency
from .linguistic_form import count_words, linguistic_form, type_token_ratio
from .measures import LINGUISTIC_FORM, MEASURES, SURPRISAL, Measure
from .rows import StyleMeasures, style_measures
from .surprisal import Surprisal, instructional_surprisal

__all__ = [
    "BASELINES",
    "Change",
    "Draws",
    "LINGUISTIC_FORM",
    "MEASURES",
    "Measure",
    "SURPRISAL",
    "Spread",
    "StyleChange",
    "StyleConsistency",
    "StyleMeasures",
    "Surprisal",
    "compare",
    "count_words",
    "draw_baselines",
    "instructional_surprisal",
    "linguistic_form",
    "style_consistency",
    "style_measures",
    "type_token_ratio",
]
