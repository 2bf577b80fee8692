"""The report of a selection: one page, its figures as PNG, and its numbers as JSON."""

from .report import SelectionReport, report_files, report_of, report_selection
from .selected import Selected, manifest_of, read_selection

__all__ = [
    "Selected",
    "SelectionReport",
    "manifest_of",
    "read_selection",
    "report_files",
    "report_of",
    "report_selection",
]
