"""Test whether a selection helps: fine-tune on the rows that each method keeps, and measure on held-out instructions."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .ablating import ablate
    from .grid import Cell, cells_of, run_grid
    from .held_out import HeldOut, hold_out, hold_triples
    from .judging import PairwiseJudge
    from .report import AblationResult, result_of
    from .settings import AblationSettings
    from .statistics import compare_cells, sentence_of

_HOMES = {
    "ablating": ("ablate",),
    "grid": ("Cell", "cells_of", "run_grid"),
    "held_out": ("HeldOut", "hold_out", "hold_triples"),
    "judging": ("PairwiseJudge",),
    "report": ("AblationResult", "result_of"),
    "settings": ("AblationSettings",),
    "statistics": ("compare_cells", "sentence_of"),
}
__all__ = [
    "AblationResult",
    "AblationSettings",
    "Cell",
    "HeldOut",
    "PairwiseJudge",
    "ablate",
    "cells_of",
    "compare_cells",
    "hold_out",
    "hold_triples",
    "result_of",
    "run_grid",
    "sentence_of",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
