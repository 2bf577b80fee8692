"""Turn instructions with human responses into triples with the answers and rewrites of language models."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..rows.pairs import PairReader
from .backends import Backend, Sampling
from .completion_log import CompletionLog
from .engine import Request, Usage, complete_all, run_blocking
from .filters import clean, finished, language_finder, problem_of
from .human_rows import HumanRow, RowChoice, read_human_rows
from .prompts import Prompt, load_prompt

KINDS = ("direct", "referenced")
_PLACEHOLDERS = {"direct": ("instruction",), "referenced": ("response",)}
_BATCH = 1000


@dataclass
class Synthesis:
    """
    The result of a synthesis.

    Args:
        triples (`list[dict]`): rows with at least one response that passed the filters, in the format of `load_triples`.
        rejected (`list[dict]`): the other responses, each with a `reason`.
        trimmed (`int`): number of cut-off responses that were kept, trimmed to their last complete sentence.
        counts (`dict`): by kind and model: number of responses kept, rejected for each reason, and missing.
        passed_over (`dict[str, int]`): number of input rows that were skipped, by reason.
        usage ([`Usage`]): the cost of the run.
    """

    triples: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    trimmed: int = 0

    @property
    def missing(self) -> int:
        """Number of responses that are missing because the budget was exhausted or requests failed."""
        return sum(counts.get("missing", 0) for models in self.counts.values() for counts in models.values())


def load_prompts(
    direct_prompt: str | Path | None = None,
    referenced_prompt: str | Path | None = None,
    kinds: Sequence[str] = KINDS,
) -> dict[str, Prompt]:
    """
    Load the prompt files for the requested kinds of response.

    Args:
        direct_prompt, referenced_prompt (`str` or `Path`, *optional*): files to use instead of the bundled ones.
        kinds (`Sequence[str]`, *optional*): `"direct"`, `"referenced"` or both.

    Returns:
        `dict[str, Prompt]`: by kind.

    Raises:
        `ValueError`: if a kind is unknown or a file is not a prompt file.
    """
    if not kinds or set(kinds) - set(KINDS):
        raise ValueError(f"`kinds` must be of {', '.join(KINDS)}, got {list(kinds)}.")
    paths = {"direct": direct_prompt, "referenced": referenced_prompt}
    return {kind: load_prompt(kind, paths[kind], _PLACEHOLDERS[kind]) for kind in KINDS if kind in kinds}


def synthesize_rows(
    rows: Sequence[HumanRow],
    backends: Sequence[Backend],
    prompts: Mapping[str, Prompt],
    sampling: Sampling,
    log: CompletionLog,
    usage: Usage,
    progress: bool = True,
    trim: bool = False,
) -> Synthesis:
    """
    Request the responses of each model to each row, unless they are in the log, and filter them.

    Args:
        rows (`Sequence[HumanRow]`): the rows to answer.
        backends (`Sequence[Backend]`): the models.
        prompts (`Mapping[str, Prompt]`): by kind of response.
        sampling ([`Sampling`]): the sampling settings.
        log ([`CompletionLog`]): stores the completions.
        usage ([`Usage`]): the budget.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar, on a terminal only.
        trim (`bool`, *optional*, defaults to `False`):
            Whether to keep cut-off responses, trimmed to their last complete sentence, if at least half of the text remains.

    Returns:
        [`Synthesis`].
    """
    names = [backend.model for backend in backends]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Expected one or more models with different names, got {names}.")
    # Go row by row, so that a run that ends early has complete triples.
    asked = [(row, kind, backend) for row in rows for kind in prompts for backend in backends]
    requests = [(backend, _request(row, kind, backend.model, prompts[kind], sampling)) for row, kind, backend in asked]
    try:
        run_blocking(complete_all(requests, log, usage, progress))
    finally:
        log.close()
    return _collect(rows, asked, requests, log, usage, trim)


def synthesize(
    ds: Dataset,
    backends: Backend | Sequence[Backend],
    *,
    kinds: Sequence[str] = KINDS,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    turn: str = "first",
    sampling: Sampling | None = None,
    direct_prompt: str | Path | None = None,
    referenced_prompt: str | Path | None = None,
    choice: RowChoice | None = None,
    log: str | Path | None = None,
    max_requests: int | None = None,
    max_tokens: int | None = None,
    kept: Mapping[str, Any] | None = None,
    progress: bool = True,
    trim: bool = False,
) -> Dataset:
    """
    Let models answer instructions (*direct* responses) and rewrite their human responses (*referenced* responses).

    Args:
        ds ([`~datasets.Dataset`]): instructions with human responses, in any format that `scar_select` reads.
        backends ([`Backend`] or a sequence): the models, such as an [`EndpointBackend`].
        kinds (`Sequence[str]`, *optional*): `"direct"`, `"referenced"` or both; by default both.
        columns, turn: location of instruction and response; see [`~scar_hf.rows.pairs.PairReader`].
        sampling ([`Sampling`], *optional*): the sampling settings.
        direct_prompt, referenced_prompt (`str` or `Path`, *optional*): prompt files to use instead of the bundled ones.
        choice ([`RowChoice`], *optional*): selects the rows to answer; by default all.
        log (`str` or `Path`, *optional*):
            JSON Lines file that stores each completion as it arrives. With the same file, a repeated call continues an
            interrupted one and requests nothing twice.
        max_requests, max_tokens (`int`, *optional*): the budget of this call.
        kept (`Mapping[str, Any]`, *optional*): columns to add, such as `{"source": "dolly", "licence": "CC BY-SA 3.0"}`.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar, on a terminal only.
        trim (`bool`, *optional*, defaults to `False`): whether to keep cut-off responses, trimmed; see [`synthesize_rows`].

    Returns:
        [`~datasets.Dataset`]: the rows with a response that passed the filters, in the format of
        [`~scar_hf.training.load_triples`]: `instruction`, `human`, `direct` and `referenced` (both `{model: text}`, or
        `None`), and `source`, `domain`, `licence`, `license` and `category` if the data has them.

    Raises:
        `ValueError`: if the data has no human responses, or the models cannot be reached.

    Example:

    ```python
    >>> backend = EndpointBackend("Qwen/Qwen2.5-7B-Instruct", "http://127.0.0.1:8000/v1")  # doctest: +SKIP
    >>> triples = synthesize(ds, backend, log="completions.jsonl")  # doctest: +SKIP
    ```
    """
    models = list(backends) if isinstance(backends, Sequence) else [backends]
    prompts = load_prompts(direct_prompt, referenced_prompt, kinds)
    batches = (ds[i : i + _BATCH] for i in range(0, len(ds), _BATCH))
    rows, _ = read_human_rows(batches, PairReader(columns, turn), choice or RowChoice(), kept)
    usage = Usage(max_requests, max_tokens)
    result = synthesize_rows(rows, models, prompts, sampling or Sampling(), CompletionLog(log), usage, progress, trim)
    return Dataset.from_list(result.triples)


def _request(row: HumanRow, kind: str, model: str, prompt: Prompt, sampling: Sampling) -> Request:
    values = {"instruction": row.instruction, "response": row.human}
    return Request(prompt.messages(values, f"{kind}\n{model}"), sampling, kind)


def _collect(
    rows: Sequence[HumanRow],
    asked: Sequence[tuple[HumanRow, str, Backend]],
    requests: Sequence[tuple[Backend, Request]],
    log: CompletionLog,
    usage: Usage,
    trim: bool,
) -> Synthesis:
    """Split the completions in the log into triples and rejected responses."""
    result = Synthesis(usage=usage)
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    responses: dict[int, dict[str, dict[str, str]]] = defaultdict(lambda: {kind: {} for kind in KINDS})
    language = language_finder()
    for (row, kind, backend), (_, request) in zip(asked, requests, strict=True):
        completion = log.get(request.key(backend.model))
        if completion is None:
            counts[kind][backend.model]["missing"] += 1
            continue
        asked_in = request.messages[-1]["content"]
        reason = problem_of(kind, completion, row.instruction, row.human, asked_in, language)
        if trim and reason == "cut off":
            whole = finished(clean(completion.text))
            if 2 * len(whole) >= len(completion.text):
                completion = replace(completion, text=whole, finish_reason="stop")
                reason = problem_of(kind, completion, row.instruction, row.human, asked_in, language)
                result.trimmed += reason is None
        counts[kind][backend.model][reason or "kept"] += 1
        if reason is None:
            responses[id(row)][kind][backend.model] = clean(completion.text)
        else:
            found = {"instruction": row.instruction, "kind": kind, "model": backend.model, "reason": reason}
            result.rejected.append(found | {"text": completion.text})
    result.counts = {kind: {model: dict(count) for model, count in models.items()} for kind, models in counts.items()}
    answered = [row for row in rows if id(row) in responses]
    # All rows get the same columns, and `None` in place of an empty struct, which Parquet cannot store.
    columns = dict.fromkeys(name for row in answered for name in row.kept)
    result.triples = [
        {"instruction": row.instruction, "human": row.human}
        | {kind: responses[id(row)][kind] or None for kind in KINDS}
        | (columns | row.kept)
        for row in answered
    ]
    return result
