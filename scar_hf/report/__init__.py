"""The report of a selection: one page, its figures as PNG, and its numbers as JSON."""

from ..manifest.sidecars import manifest_of
from .report import SelectionReport, report_files, report_of, report_selection
from .source import Selected, read_selection

__all__ = [
    "Selected",
    "SelectionReport",
    "manifest_of",
    "read_selection",
    "report_files",
    "report_of",
    "report_selection",
]
