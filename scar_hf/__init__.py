"""Keep the instruction-response pairs that teach a language model most, ranked by the consistency of their style."""

from pathlib import Path
from typing import TYPE_CHECKING

from ._lazy import lazy_names
from ._version import __version__
from .registration import register_when_needed

# In a source checkout the sub-packages `modeling`, `trainer_callbacks` and `hub_cards` are folders next to this one.
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file() and (_root / "modeling").is_dir():
    __path__.append(str(_root))

if TYPE_CHECKING:
    from .modeling import ScarConfig, ScarModel, ScarOutput
    from .ranking import ScarRanking, scar_rank, scar_select
    from .scoring.datasets import scar_score
    from .scoring.scorer import ScarScorer
    from .selecting.filter import scar_filter

__all__ = [
    "ScarConfig",
    "ScarModel",
    "ScarOutput",
    "ScarRanking",
    "ScarScorer",
    "__version__",
    "scar_filter",
    "scar_rank",
    "scar_score",
    "scar_select",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "modeling": ["ScarConfig", "ScarModel", "ScarOutput"],
        "ranking": ["ScarRanking", "scar_rank", "scar_select"],
        "scoring.datasets": ["scar_score"],
        "scoring.scorer": ["ScarScorer"],
        "selecting.filter": ["scar_filter"],
    },
)
register_when_needed()
