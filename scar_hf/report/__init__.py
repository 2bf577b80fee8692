"""The report of a selection: one page, its figures as PNG, and its numbers as JSON."""

from ..manifest.sidecars import manifest_of
from .report import SelectionReport, report_files, report_selection

__all__ = [
    "SelectionReport",
    "manifest_of",
    "report_files",
    "report_selection",
]
