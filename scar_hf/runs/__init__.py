"""Scores and selects rows in files of any size. The command line is built on this package."""

from ..manifest.sidecars import find_manifest
from .explain import ExplainedRow, explain_rows
from .run import RunResult, score_shards, select_files
from .verifying import Check, verify_manifest

__all__ = [
    "Check",
    "ExplainedRow",
    "RunResult",
    "explain_rows",
    "find_manifest",
    "score_shards",
    "select_files",
    "verify_manifest",
]
