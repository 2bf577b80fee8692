"""Compute a tuned model's losses on answers, and generate answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ..scoring.chunks import batches_by_tokens
from ..scoring.tokenization import encodable
from ..style.causal_lm import token_losses

# On a CPU, larger batches are not faster; on a GPU, the logits over the vocabulary limit the batch.
_CPU_TOKENS, _GPU_TOKENS = 2048, 16_384


def context_of(tokenizer: PreTrainedTokenizerBase, instruction: str) -> list[int]:
    """Return the tokens before an answer, as in training."""
    if tokenizer.chat_template is None:
        start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        return [*start, *_tokens(tokenizer, f"{instruction}\n\n")]
    turn = [{"role": "user", "content": instruction}]
    return _tokens(tokenizer, str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)))


def losses(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[str],
    answers: Sequence[str],
    max_length: int,
    bar: tqdm | None = None,
) -> np.ndarray:
    """
    Compute the mean loss of each answer.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer (`PreTrainedTokenizerBase`): the model's tokenizer.
        instructions, answers (`Sequence[str]`): n pairs.
        max_length (`int`): most tokens to read of a pair; the instruction gets at most half of them.
        bar (`tqdm`, *optional*): a progress bar of pairs.

    Returns:
        `np.ndarray` of shape `(n,)`, float64: the mean negative log-likelihood of an answer's tokens, in nats; NaN if no
        token of the answer is read.
    """
    token_ids: list[list[int]] = []
    contexts: list[int] = []
    for instruction, answer in zip(instructions, answers, strict=True):
        context = context_of(tokenizer, instruction)[-max_length // 2 :]
        tokens = _tokens(tokenizer, answer)[: max_length - len(context)]
        token_ids.append(context + tokens)
        contexts.append(len(context))
    found = np.full(len(token_ids), np.nan)
    readable = [i for i, tokens in enumerate(token_ids) if len(tokens) > contexts[i]]
    for batch in batches_by_tokens([len(token_ids[i]) for i in readable], _budget(model)):
        some = [readable[i] for i in batch]
        sums = token_losses(model, [token_ids[i] for i in some], [contexts[i] for i in some])
        found[some] = sums / [len(token_ids[i]) - contexts[i] for i in some]
        if bar is not None:
            bar.update(len(some))
    return found


@torch.inference_mode()
def write(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[str],
    max_new_tokens: int,
    max_length: int,
    bar: tqdm | None = None,
) -> list[str]:
    """
    Generate answers with greedy decoding.

    Args:
        model, tokenizer, bar: as for [`losses`].
        instructions (`Sequence[str]`): n instructions.
        max_new_tokens (`int`): most tokens of an answer.
        max_length (`int`): most tokens to read of an instruction; longer ones are cut at the start.

    Returns:
        `list[str]`: n answers, without surrounding whitespace.
    """
    contexts = [context_of(tokenizer, instruction)[-max_length:] for instruction in instructions]
    answers = [""] * len(contexts)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    for batch in batches_by_tokens([len(tokens) + max_new_tokens for tokens in contexts], 2 * _budget(model)):
        width = max(len(contexts[i]) for i in batch)
        ids = torch.full((len(batch), width), pad)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, width - len(contexts[i]) :] = torch.tensor(contexts[i])
            mask[row, width - len(contexts[i]) :] = 1
        written = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad,
            use_cache=True,
        )
        for row, i in enumerate(batch):
            answers[i] = str(tokenizer.decode(written[row, width:], skip_special_tokens=True)).strip()
        if bar is not None:
            bar.update(len(batch))
    return answers


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(encodable(text), add_special_tokens=False, verbose=False)["input_ids"]


def _budget(model: Any) -> int:
    return _CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS
