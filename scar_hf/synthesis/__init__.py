"""Generate direct and referenced responses with language models, as triples for training rankers."""

from .backends import Backend, BackendError, Completion, CompletionError, Sampling
from .completion_log import CompletionLog
from .endpoint import EndpointBackend
from .engine import Usage
from .from_files import synthesize_files
from .human_rows import RowChoice
from .judge_check import JudgeCheck, check_judge
from .judge_from_files import judge_files
from .judging import HumanRatings, Judgement
from .local import LlamaCppBackend, TransformersBackend, local_backend
from .synthesizing import Synthesis, synthesize

__all__ = [
    "Backend",
    "BackendError",
    "Completion",
    "CompletionError",
    "CompletionLog",
    "EndpointBackend",
    "HumanRatings",
    "JudgeCheck",
    "Judgement",
    "LlamaCppBackend",
    "RowChoice",
    "Sampling",
    "Synthesis",
    "TransformersBackend",
    "Usage",
    "check_judge",
    "judge_files",
    "local_backend",
    "synthesize",
    "synthesize_files",
]
