"""Compare the rows that different methods keep of the same data."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .comparing import compare_methods
    from .report import MethodComparison

__all__ = ["MethodComparison", "compare_methods"]
__getattr__, __dir__ = lazy_names(__name__, {"comparing": ("compare_methods",), "report": ("MethodComparison",)})
