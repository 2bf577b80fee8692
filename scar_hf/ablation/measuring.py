"""Measure a tuned model on each held-out instruction, without a judge."""

import math
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..style.linguistic_form import FormReader
from .constraints import constrained_prompts, verify
from .held_out import HeldOut
from .problems import PROBLEMS, run_problems
from .settings import AblationSettings
from .writing import losses, write


def measure(settings: AblationSettings, model: Any, tokenizer: PreTrainedTokenizerBase, held: HeldOut) -> dict[str, Any]:
    """
    Measure a model.

    Args:
        settings ([`AblationSettings`]): settings of the grid.
        model: the model, with adapters or untuned.
        tokenizer (`PreTrainedTokenizerBase`): the model's tokenizer.
        held ([`HeldOut`]): n held-out instructions.

    Returns:
        `dict` of JSON types: `nll`, for each kind of answer n numbers in nats per token, `None` where there is no answer;
        `style`, for each measure of linguistic form n numbers for the model's answers; `answers`, the n texts; `constraints`
        and `code`, 1 or 0 for each instruction that is verified.
    """
    nll = {}
    for kind, answers in held.answers.items():
        places = [i for i, answer in enumerate(answers) if answer is not None]
        values = np.full(len(held), np.nan)
        texts = [str(answers[i]) for i in places]
        values[places] = losses(model, tokenizer, [held.instructions[i] for i in places], texts, settings.max_length)
        nll[kind] = _plain(values)
    tasks = constrained_prompts(settings.constraints)
    problems = PROBLEMS if settings.code else ()
    asked = [*held.instructions, *(x for x, _ in tasks), *(problem.instruction for problem in problems)]
    written = write(model, tokenizer, asked, settings.max_new_tokens, settings.max_length)
    answers_to_held, rest = written[: len(held)], written[len(held) :]
    found: dict[str, Any] = {"nll": nll, "style": style_of(answers_to_held), "answers": answers_to_held}
    if tasks:
        found["constraints"] = [int(verify(c, text)) for (_, c), text in zip(tasks, rest[: len(tasks)], strict=True)]
    if problems:
        found["code"] = [int(passed) for passed in run_problems(problems, rest[len(tasks) :])]
    return found


def style_of(texts: list[str]) -> dict[str, list[float | None]]:
    """Return measures of the linguistic form of texts; `None` where one is undefined, as for an empty text."""
    form = FormReader("en")
    good = [i for i, text in enumerate(texts) if text.strip()]
    measured = form.measure(texts[i] for i in good) or {}
    found = {}
    for name in form.names:
        values = np.full(len(texts), np.nan)
        if good:
            values[good] = measured[name]
        found[name] = _plain(values)
    return found


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(v), 6) if math.isfinite(v) else None for v in values]
