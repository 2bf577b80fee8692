"""Scoring and selecting from files of any size: what the command line runs."""

from .explain import ExplainedRow, explain_rows
from .keeping import rows_of_shard
from .manifest import Check, find_manifest, verify_manifest
from .run import RunResult, score_shards, select_files

__all__ = [
    "Check",
    "ExplainedRow",
    "RunResult",
    "explain_rows",
    "find_manifest",
    "rows_of_shard",
    "score_shards",
    "select_files",
    "verify_manifest",
]
