"""Run local models: folders and Hub ids in batches with transformers, GGUF files with llama.cpp or transformers."""

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .backends import Completion, CompletionError, Messages, Sampling

_GATHERING = 0.02  # seconds that a batch waits for more chats


class TransformersBackend:
    """
    A chat model that runs locally with transformers, in batches.

    Args:
        path (`str` or `Path`): a folder, a GGUF file (dequantised on loading) or a Hub id. Remote code never runs.
        model (`str`, *optional*): name under which answers are stored; by default the last part of the path.
        batch_size (`int`, *optional*, defaults to 8): number of chats per batch.
        device (`str`, *optional*): torch device; by default a GPU if available.
        dtype (`str`, *optional*, defaults to `"bfloat16"`): precision of the weights.

    Raises:
        `ValueError`: if the path is not a causal language model with a chat template.
    """

    def __init__(
        self,
        path: str | Path,
        model: str | None = None,
        *,
        batch_size: int = 8,
        device: str | None = None,
        dtype: str = "bfloat16",
    ) -> None:
        import torch

        from ..style.causal_lm import load_causal_lm

        if batch_size < 1:
            raise ValueError(f"`batch_size` must be 1 or more, got {batch_size}.")
        self.path, self.model, self.batch_size = str(path), model or Path(path).stem, batch_size
        # One batch waits while another is computed.
        self.concurrency = 2 * batch_size
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._lm, self._tokenizer = load_causal_lm(path, getattr(torch, dtype), device)
        if not self._tokenizer.chat_template:
            raise ValueError(f"{path} has no chat template, so it is a base model: pass one that follows instructions.")
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._waiting: asyncio.Queue[tuple[Messages, Sampling, asyncio.Future[Completion]]] | None = None
        self._worker: asyncio.Task[None] | None = None

    async def complete(self, messages: Messages, sampling: Sampling) -> Completion:
        """Answer a chat in a batch with other waiting chats; see [`Backend`]."""
        if self._waiting is None or self._worker is None:
            self._waiting = asyncio.Queue()
            self._worker = asyncio.ensure_future(self._work(self._waiting))
        answer: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((messages, sampling, answer))
        return await answer

    async def close(self) -> None:
        """Stop answering; the model stays in memory until this object is deleted."""
        if self._worker is not None:
            self._worker.cancel()
        self._waiting = self._worker = None

    def describe(self) -> dict[str, Any]:
        """Return a description of the model for a manifest (`dict`)."""
        return {"model": self.model, "path": self.path, "dtype": str(self._lm.dtype).removeprefix("torch.")}

    async def _work(self, waiting: asyncio.Queue[tuple[Messages, Sampling, asyncio.Future[Completion]]]) -> None:
        kept: tuple[Messages, Sampling, asyncio.Future[Completion]] | None = None
        while True:
            batch = [kept or await waiting.get()]
            kept = None
            await asyncio.sleep(_GATHERING)
            while len(batch) < self.batch_size and not waiting.empty():
                item = waiting.get_nowait()
                if item[1] != batch[0][1]:
                    kept = item
                    break
                batch.append(item)
            try:
                completions = await asyncio.to_thread(self._generate, [messages for messages, _, _ in batch], batch[0][1])
            except Exception as error:
                reason = str(error) or type(error).__name__
                problem = CompletionError(f"{self.model} could not answer: {reason}.", of_request=True)
                for _, _, answer in batch:
                    if not answer.done():
                        answer.set_exception(problem)
                continue
            for (_, _, answer), completion in zip(batch, completions, strict=True):
                if not answer.done():
                    answer.set_result(completion)

    def _generate(self, chats: list[Messages], sampling: Sampling) -> list[Completion]:
        import torch

        texts = [self._render(messages) for messages in chats]
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self._lm.device)
        width = inputs["input_ids"].shape[1]
        settings: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature != 0:
            settings = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
            settings = {name: value for name, value in settings.items() if value is not None}
        with torch.inference_mode(), torch.random.fork_rng():
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            output = self._lm.generate(
                **inputs, **settings, max_new_tokens=sampling.max_tokens, pad_token_id=self._tokenizer.pad_token_id
            )
        ends = self._ends()
        completions = []
        for mask, tokens in zip(inputs["attention_mask"], output[:, width:].tolist(), strict=True):
            length = next((i + 1 for i, token in enumerate(tokens) if token in ends), None)
            text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
            reason = "length" if length is None else "stop"
            completions.append(Completion(text, reason, int(mask.sum()), length or len(tokens)))
        return completions

    def _render(self, messages: Messages) -> str:
        from jinja2 import TemplateError

        chat = [dict(message) for message in messages]
        try:
            return self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            if chat[0]["role"] != "system" or len(chat) < 2:
                raise
        # Some chat templates do not support a system prompt.
        merged = {"role": chat[1]["role"], "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
        return self._tokenizer.apply_chat_template([merged, *chat[2:]], tokenize=False, add_generation_prompt=True)

    def _ends(self) -> set[int]:
        ends = self._lm.generation_config.eos_token_id
        return {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}


class LlamaCppBackend:
    """
    A GGUF file that runs with llama.cpp in this process, one chat at a time.

    Args:
        path (`str` or `Path`): the file; it must contain a chat template.
        model (`str`, *optional*): name under which answers are stored; by default the file name without its suffix.
        context (`int`, *optional*, defaults to 4096): maximum total tokens of prompt and answer.
        threads (`int`, *optional*): number of CPU threads; by default chosen by llama.cpp.

    Raises:
        `ImportError`: if llama-cpp-python is not installed.
        `ValueError`: if the file is not a model.
    """

    concurrency = 1

    def __init__(self, path: str | Path, model: str | None = None, *, context: int = 4096, threads: int | None = None) -> None:
        try:
            from llama_cpp import Llama
        except ImportError as error:
            raise ImportError("Running GGUF files by llama.cpp needs llama-cpp-python: pip install llama-cpp-python") from error
        self.path, self.model = str(path), model or Path(path).stem
        if not Path(path).is_file():
            raise ValueError(f"There is no GGUF file {path}.")
        try:
            self._llama = Llama(self.path, n_ctx=context, n_threads=threads, verbose=False)
        except (ValueError, AssertionError, OSError) as error:
            raise ValueError(f"llama.cpp cannot load {path}: {error}.") from error

    async def complete(self, messages: Messages, sampling: Sampling) -> Completion:
        """Answer a chat; see [`Backend`]."""
        return await asyncio.to_thread(self._complete, messages, sampling)

    async def close(self) -> None:
        """Do nothing: the model is released with this object."""

    def describe(self) -> dict[str, Any]:
        """Return a description of the model for a manifest (`dict`)."""
        return {"model": self.model, "path": self.path}

    def _complete(self, messages: Messages, sampling: Sampling) -> Completion:
        settings = sampling.settings()
        if schema := settings.pop("schema", None):
            settings["response_format"] = {"type": "json_object", "schema": schema}
        try:
            output: Any = self._llama.create_chat_completion([dict(message) for message in messages], **settings)
        except (ValueError, RuntimeError) as error:
            raise CompletionError(f"{self.model} could not answer: {error}.", of_request=True) from error
        choice, usage = output["choices"][0], output["usage"]
        text = choice["message"]["content"] or ""
        return Completion(text, choice["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"])


def local_backend(path: str | Path, batch_size: int = 8) -> "TransformersBackend | LlamaCppBackend":
    """
    Load a local model with the most suitable library.

    Args:
        path (`str` or `Path`): a GGUF file, or a folder that transformers can load.
        batch_size (`int`, *optional*, defaults to 8): number of chats per batch, with transformers.

    Returns:
        [`LlamaCppBackend`] for a GGUF file if llama-cpp-python is installed, otherwise [`TransformersBackend`].
    """
    if Path(path).suffix.lower() == ".gguf" and find_spec("llama_cpp") is not None:
        return LlamaCppBackend(path)
    return TransformersBackend(path, batch_size=batch_size)
