"""Compare the answers of two tuned models with a language model as judge, in both orders."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..synthesis.backends import Backend, Sampling
from ..synthesis.completion_log import CompletionLog
from ..synthesis.engine import Request, Usage, complete_all, run_blocking
from .settings import BASELINE, EVERYTHING
from .statistics import key_of

_LOG = "judge.completions.jsonl"
_SYSTEM = "You compare two answers. You do not reward length, order or tone, and you reply with JSON only."
_QUESTION = (
    "Which of the two answers below does better what the instruction asks, and is truer? If neither is better, say tie.\n\n"
    "Instruction:\n{instruction}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\n"
    'Reply with a JSON object of this form: {{"better": "A"}}, {{"better": "B"}} or {{"better": "tie"}}.'
)
_SCHEMA = {
    "type": "object",
    "properties": {"better": {"type": "string", "enum": ["A", "B", "tie"]}},
    "required": ["better"],
}


class PairwiseJudge:
    """
    Compares each method's answers with those of a model tuned on random rows: 1 if the method's answer is preferred in both
    orders, 0 if the other answer is, and otherwise 0.5, a tie. A comparison without a readable reply is not counted.

    Args:
        backend ([`~scar_hf.synthesis.backends.Backend`]): the judge, as for `scar-hf judge`.
        usage ([`~scar_hf.synthesis.engine.Usage`], *optional*): the budget.
    """

    def __init__(self, backend: Backend, usage: Usage | None = None) -> None:
        self.backend, self.usage = backend, usage or Usage()

    def judge_cells(
        self, cells: Sequence[dict[str, Any]], instructions: Sequence[str], folder: Path, progress: bool = True
    ) -> list[dict[str, Any]]:
        """
        Judge the answers of a grid. Replies are stored in the grid's folder, so that no request is sent twice.

        Args:
            cells (`Sequence[dict]`): results, with `answers`.
            instructions (`Sequence[str]`): the instructions that were answered.
            folder (`Path`): folder of the grid.
            progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.

        Returns:
            `list[dict]`: the results with `judge`: for each instruction the outcome against random rows of the same budget,
            k and seed, 1, 0.5, 0 or `None`; 0.5 for random rows themselves. For all rows, a `dict` of such lists by k, with
            keys as made by [`~scar_hf.ablation.statistics.key_of`].
        """
        base = {_place(cell): cell for cell in cells if cell["cell"]["method"] == BASELINE}
        pairs = [(cell, own) for cell in cells for own in _baselines_of(cell, base) if own is not cell]
        sampling = Sampling(temperature=0.0, max_tokens=50, schema=_SCHEMA)
        asked: list[Request] = []
        for cell, other in pairs:
            for instruction, mine, its in zip(instructions, cell["answers"], other["answers"], strict=True):
                asked += [_request(instruction, mine, its, sampling), _request(instruction, its, mine, sampling)]
        log = CompletionLog(folder / _LOG)
        try:
            run_blocking(complete_all([(self.backend, request) for request in asked], log, self.usage, progress))
        finally:
            log.close()
        replies = [log.get(request.key(self.backend.model)) for request in asked]
        read = [None if reply is None else _better(reply.text) for reply in replies]
        judged = {id(cell): cell for cell in cells}
        by_k: dict[int, dict[str, list[float | None]]] = {}
        for number, (cell, other) in enumerate(pairs):
            both = read[2 * number * len(instructions) : 2 * (number + 1) * len(instructions)]
            outcomes: Any = [_win(first, second) for first, second in zip(both[::2], both[1::2], strict=True)]
            if cell["cell"]["method"] == EVERYTHING:
                by_k.setdefault(id(cell), {})[key_of(other["cell"]["k"])] = outcomes
                outcomes = by_k[id(cell)]
            judged[id(cell)] = cell | {"judge": outcomes}
        for cell in base.values():
            judged[id(cell)] = cell | {"judge": [0.5] * len(instructions)}
        return list(judged.values())


def _place(cell: dict[str, Any]) -> tuple[Any, ...]:
    return cell["cell"]["budget"], cell["cell"]["k"], cell["cell"]["seed"]


def _baselines_of(cell: dict[str, Any], base: dict[tuple[Any, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the random cells with the same budget, seed and k; for all rows, those with any k."""
    if cell["cell"]["method"] == "untuned":
        return []
    budget, k, seed = _place(cell)
    every = cell["cell"]["method"] == EVERYTHING
    return [found for key, found in base.items() if (key[0], key[2]) == (budget, seed) and (every or key[1] == k)]


def _request(instruction: str, first: str, second: str, sampling: Sampling) -> Request:
    question = _QUESTION.format(instruction=instruction, first=first or "(no answer)", second=second or "(no answer)")
    return Request([{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}], sampling, "compare")


def _better(text: str) -> str | None:
    """Return the verdict of a reply, or `None` if it is unreadable."""
    found = re.search(r"\{.*?\}", text, re.DOTALL)
    try:
        better = json.loads(found[0])["better"] if found else None
    except (ValueError, KeyError, TypeError):
        return None
    return better if better in ("A", "B", "tie") else None


def _win(first: str | None, second: str | None) -> float | None:
    """Combine the verdicts of both orders: first with the method's answer as A, then as B."""
    if first is None or second is None:
        return None
    return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((first, second), 0.5)
