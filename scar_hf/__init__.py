"""Keep the instruction-response pairs that teach a language model most, ranked by the consistency of their style."""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._version import __version__

# In a source checkout the sub-packages `modeling`, `trainer_callbacks` and `hub_cards` are folders beside this one.
_root = Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file() and (_root / "modeling").is_dir():
    __path__.append(str(_root))

if TYPE_CHECKING:
    from .modeling import ScarConfig, ScarModel, ScarOutput
    from .ranking import ScarRanking, scar_rank, scar_select
    from .scoring.scorer import ScarScorer, scar_score
    from .selecting.filter import scar_filter

# Known to the Auto classes from here on. The command line does so when a command runs, and answers --help without torch.
if Path(sys.argv[0]).stem not in ("scar-hf", "hf-scar"):
    from . import registration as registration

_EXPORTS = {
    "ScarConfig": "modeling",
    "ScarModel": "modeling",
    "ScarOutput": "modeling",
    "ScarRanking": "ranking",
    "ScarScorer": "scoring.scorer",
    "scar_filter": "selecting.filter",
    "scar_rank": "ranking",
    "scar_score": "scoring.scorer",
    "scar_select": "ranking",
}

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


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
