"""Instructional surprisal: how unexpected a response is to a language model given its instruction."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..progress import hidden
from ..rows.pairs import RowPairs, check_rows, pair_problem
from ..scoring.chunks import batches_by_tokens
from ..scoring.precision import as_dtype, default_device
from ..scoring.tokenization import encodable
from .causal_lm import check_causal, load_causal_lm, token_losses
from .measures import SURPRISAL

logger = logging.getLogger(__name__)
# On a CPU, larger batches are not faster; on a GPU, the logits over the vocabulary limit the batch.
_CPU_TOKENS, _GPU_TOKENS = 1024, 8192
_ROWS_AT_ONCE = 1000


class Surprisal:
    """
    Measures instructional surprisal with a causal language model (paper, section 2). The model loads on first use.

    The model reads each response y twice, with and without its instruction x. With a chat template, x is the user turn, and y
    alone follows the same template with an empty user turn. Without one, the text is the token that begins a text, x, an
    empty line and y, and y alone directly follows that token. Both perplexities therefore cover the same tokens, those of y.

    Args:
        lm (`str`, `Path` or `PreTrainedModel`):
            A Hub id, a folder, a GGUF file, a folder with one GGUF file, or a model in memory.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): tokenizer of a model in memory.
        device (`str`, *optional*): the device; by default a GPU if there is one, otherwise the CPU.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"auto"`):
            `"float32"`, `"bfloat16"`, `"float16"`, or `"auto"`: bfloat16 if the device supports it natively, which changes a
            perplexity by up to about 2 %, otherwise float32.
        max_length (`int`, *optional*, defaults to 1024):
            Most tokens to read: at most half of them for the instruction, the remaining ones for the response. Truncated
            rows are counted.
        chat_template (`bool`, *optional*): whether to use the tokenizer's chat template; by default, use it if there is one.
        tokens_per_batch (`int`, *optional*): maximum number of tokens in a batch, padding included.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.
        trust_remote_code (`bool`, *optional*, defaults to `False`): whether code in the model's repository may run.

    Example:

    ```python
    >>> from scar_hf.style import Surprisal

    >>> surprisal = Surprisal("HuggingFaceTB/SmolLM2-135M-Instruct")
    >>> surprisal.measure(["What do bees eat?"], ["Bees eat nectar and pollen."])["ifd"].shape
    (1,)
    ```
    """

    def __init__(
        self,
        lm: str | Path | PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int = 1024,
        chat_template: bool | None = None,
        tokens_per_batch: int | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if max_length < 8:
            raise ValueError(f"`max_length` must be at least 8 tokens, got {max_length}.")
        if tokens_per_batch is not None and tokens_per_batch < 1:
            raise ValueError(f"`tokens_per_batch` must be at least 1, got {tokens_per_batch}.")
        in_memory = isinstance(lm, PreTrainedModel)
        if in_memory != (tokenizer is not None):
            raise ValueError("Pass `tokenizer` with a model in memory, and only then: a folder or Hub id brings its own.")
        self.name = "the model in memory" if in_memory else str(lm)
        self.device = str(lm.device if isinstance(lm, PreTrainedModel) else device or default_device())
        self.dtype = lm.dtype if isinstance(lm, PreTrainedModel) else as_dtype(dtype, self.device)
        if self.dtype == torch.int8:
            raise ValueError("`dtype` must be 'auto', 'float32', 'bfloat16' or 'float16' here, got 'int8'.")
        self.max_length = max_length
        self.tokens_per_batch = tokens_per_batch or (_CPU_TOKENS if self.device.startswith("cpu") else _GPU_TOKENS)
        self.revision = revision
        self.trust_remote_code = trust_remote_code
        self.chat_template = chat_template
        self.in_memory = in_memory
        self._chat_template = chat_template
        self._tokenizer = tokenizer
        self._model = lm.eval() if isinstance(lm, PreTrainedModel) else None
        self._is_ready = False

    def measure(
        self, instructions: Sequence[str], responses: Sequence[str], progress: bool = False, log: bool = True
    ) -> dict[str, np.ndarray]:
        """
        Measure responses to instructions.

        Args:
            instructions (`Sequence[str]`): n instructions, which may be empty.
            responses (`Sequence[str]`): n responses, which must not be empty.
            progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar.
            log (`bool`, *optional*, defaults to `True`): whether to log the number of truncated rows.

        Returns:
            `dict[str, np.ndarray]`, each of shape `(n,)`, float64: `ppl` = PPL(y|x) and `ppl_alone` = PPL(y), at least 1;
            `ifd` = PPL(y|x) / PPL(y), above 0, below 1 where the instruction helps; `surprisal` = log PPL(y|x) in nats per
            token; and `truncated`, bool, whether part of the row was not read.

        Raises:
            `ValueError`: if the lengths differ, a text is missing or not a string, a response is empty, the model is not
            causal, or a perplexity is not finite.
        """
        instructions, responses = list(instructions), list(responses)
        if len(instructions) != len(responses):
            raise ValueError(
                f"`instructions` and `responses` must have the same length, got {len(instructions)} and {len(responses)}."
            )
        pairs = list(zip(instructions, responses, strict=True))
        check_rows([RowPairs((pair,), pair_problem(*pair)) for pair in pairs])
        self._prepare()
        found = {name: np.empty(len(pairs)) for name in SURPRISAL} | {"truncated": np.zeros(len(pairs), dtype=bool)}
        with tqdm(total=len(pairs), desc="Surprisal", unit="row", disable=hidden(progress)) as bar:
            for start in range(0, len(pairs), _ROWS_AT_ONCE):
                self._measure(pairs[start : start + _ROWS_AT_ONCE], start, found, bar)
        if log and found["truncated"].any():
            text = "Of %d of %d rows the language model read only the beginning (max_length=%d)."
            logger.warning(text, int(found["truncated"].sum()), len(pairs), self.max_length)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings without the model, which is reloaded. A model in memory cannot be pickled."""
        if self.in_memory:
            raise TypeError("A language model in memory cannot be sent to other processes: save it, then pass its folder.")
        loaded = {"_model": None, "_tokenizer": None, "_is_ready": False, "_chat_template": self.chat_template}
        return self.__dict__ | loaded

    def _measure(self, pairs: list[tuple[str, str]], start: int, found: dict[str, np.ndarray], bar: tqdm) -> None:
        """Measure a block of pairs from number `start`, and write the results into the arrays."""
        model, alone = self._model, self._context("")[0]
        assert model is not None
        token_ids: list[list[int]] = []
        contexts: list[int] = []
        for i, (instruction, response) in enumerate(pairs, start):
            given, is_cut = self._context(instruction)
            room = self.max_length - max(len(given), len(alone))
            if room < 1:
                raise ValueError(f"`max_length` is {self.max_length}: with the chat template no token of a response fits.")
            tokens = self._tokens(response)
            found["truncated"][i] = is_cut or len(tokens) > room
            for context in (given, alone):
                token_ids.append(context + tokens[:room])
                contexts.append(len(context))
        means = np.empty(len(token_ids))
        for batch in batches_by_tokens([len(tokens) for tokens in token_ids], self.tokens_per_batch):
            losses = token_losses(model, [token_ids[i] for i in batch], [contexts[i] for i in batch])
            means[batch] = losses / [len(token_ids[i]) - contexts[i] for i in batch]
            bar.update(len(batch) / 2)
        wrong = np.flatnonzero(~np.isfinite(means))
        if len(wrong):
            raise ValueError(
                f"The perplexity of row {start + int(wrong[0]) // 2} is not finite: {self.name} has bad weights, or "
                f"{self.dtype} is too narrow for it. Try dtype='float32'."
            )
        rows = slice(start, start + len(pairs))
        surprisal, surprisal_alone = means[::2], means[1::2]
        found["surprisal"][rows] = surprisal
        found["ppl"][rows], found["ppl_alone"][rows] = np.exp(surprisal), np.exp(surprisal_alone)
        found["ifd"][rows] = np.exp(surprisal - surprisal_alone)

    def _context(self, instruction: str) -> tuple[list[int], bool]:
        """Return the context tokens of a response, and whether the instruction was truncated."""
        tokenizer = self._tokenizer
        assert tokenizer is not None
        tokens = self._tokens(instruction)
        is_cut = len(tokens) > self.max_length // 2
        if is_cut:
            tokens = tokens[: self.max_length // 2]
            instruction = str(tokenizer.decode(tokens))
        if self._chat_template:
            turn = [{"role": "user", "content": instruction}]
            return self._tokens(str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))), is_cut
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return [first, *(self._tokens(f"{instruction}\n\n")[: self.max_length // 2] if instruction else [])], is_cut

    def _tokens(self, text: str) -> list[int]:
        assert self._tokenizer is not None
        return self._tokenizer(encodable(text), add_special_tokens=False, verbose=False)["input_ids"]

    def _prepare(self) -> None:
        """Load the model on first use, and check that it is usable."""
        if self._is_ready:
            return
        if self._model is None:
            self._model, self._tokenizer = load_causal_lm(
                self.name, self.dtype, self.device, self.revision, self.trust_remote_code
            )
        model, tokenizer = self._model, self._tokenizer
        assert tokenizer is not None
        check_causal(model, self.name)
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit and self.max_length > limit:
            raise ValueError(f"`max_length` is {self.max_length}, but {self.name} reads at most {limit} tokens.")
        if self._chat_template is None:
            self._chat_template = tokenizer.chat_template is not None
        if self._chat_template and tokenizer.chat_template is None:
            raise ValueError(f"The tokenizer of {self.name} has no chat template: pass chat_template=False.")
        if not self._chat_template and tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
            raise ValueError(f"The tokenizer of {self.name} has no token that begins or ends a text, which must precede y.")
        self._is_ready = True


def instructional_surprisal(
    instructions: Sequence[str], responses: Sequence[str], lm: str | Path | PreTrainedModel | Surprisal, **kwargs: Any
) -> dict[str, np.ndarray]:
    """
    Measure responses in one call, as `Surprisal(lm).measure(instructions, responses)` does.

    Args:
        instructions, responses (`Sequence[str]`): as for [`Surprisal.measure`].
        lm (`str`, `Path`, `PreTrainedModel` or [`Surprisal`]): as for [`Surprisal`], or a [`Surprisal`] with its own settings.
        kwargs: as for [`Surprisal`].

    Returns:
        `dict[str, np.ndarray]`: as from [`Surprisal.measure`].
    """
    return as_surprisal(lm, **kwargs).measure(instructions, responses)


def as_surprisal(lm: str | Path | PreTrainedModel | Surprisal, **kwargs: Any) -> Surprisal:
    """Return `lm` if it is a [`Surprisal`], otherwise make one from it; `kwargs` as for [`Surprisal`]."""
    if isinstance(lm, Surprisal):
        if kwargs:
            raise ValueError(f"Got a Surprisal, whose own settings hold, and the settings {sorted(kwargs)}.")
        return lm
    return Surprisal(lm, **kwargs)
