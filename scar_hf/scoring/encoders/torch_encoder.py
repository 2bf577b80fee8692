"""Runs the encoder in PyTorch, on CPU threads or a GPU."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from ...modeling import ScarModel, ScarStaticEncoder
from ..chunks import batches_by_tokens
from .forking import lasting_threads

logger = logging.getLogger(__name__)
# Measured with MiniLM on a CPU: more tokens add padding without speed; fewer leave threads waiting for Python.
_CPU_TOKENS, _GPU_TOKENS = 1024, 16_384
# A static encoder does so little with a token that the calls themselves would take a quarter of the time.
_STATIC_TOKENS = 2048


class TorchEncoder:
    """
    Encodes texts with a ranker in PyTorch. On a CPU, each core processes its own batch, because an encoder's matrices are
    too small to share among cores.

    Args:
        model ([`ScarModel`]): the ranker, on its device and in its precision.
        pad_token_id (`int`): the tokenizer's padding id.
        tokens_per_batch (`int`, *optional*): tokens per batch, including padding.
        num_threads (`int`, *optional*): number of CPU cores, by default as many as PyTorch uses.
    """

    def __init__(
        self, model: ScarModel, pad_token_id: int, tokens_per_batch: int | None = None, num_threads: int | None = None
    ) -> None:
        self.model = model
        self.pad_token_id = pad_token_id
        on_cpu = model.device.type == "cpu"
        cpu_tokens = _STATIC_TOKENS if isinstance(model.encoder, ScarStaticEncoder) else _CPU_TOKENS
        self.tokens_per_batch = tokens_per_batch or (cpu_tokens if on_cpu else _GPU_TOKENS)
        self.hidden_size = model.config.hidden_size
        self._threads = (num_threads or torch.get_num_threads()) if on_cpu else 1
        self._workers = lasting_threads(self._threads, "scar-encoder")

    def encode(
        self, token_ids: Sequence[Sequence[int]], on_batch: Callable[[list[int]], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Encode N tokenised texts.

        Args:
            token_ids (`Sequence[Sequence[int]]`): ids with special tokens, without padding.
            on_batch (`Callable`, *optional*): called with the positions of finished texts.

        Returns:
            `tuple(np.ndarray)`: first-token vectors and maxima over tokens, float32 of shape `(N, H)`, in input order.

        Raises:
            `torch.OutOfMemoryError`: if a single text does not fit into memory.
        """
        firsts = np.empty((len(token_ids), self.hidden_size), dtype=np.float32)
        forms = np.empty_like(firsts)
        batches = list(batches_by_tokens([len(ids) for ids in token_ids], self.tokens_per_batch))
        futures = [self._workers.submit(self._encode_batch, [token_ids[i] for i in batch]) for batch in batches]
        try:
            for batch, future in zip(batches, futures, strict=True):
                firsts[batch], forms[batch] = future.result()
                if on_batch is not None:
                    on_batch(batch)
        finally:
            for future in futures:
                future.cancel()
        return firsts, forms

    def _encode_batch(self, token_ids: list[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Encode one batch. If it does not fit in memory, encode its halves, and use smaller batches from then on."""
        try:
            return self._forward(token_ids)
        except torch.OutOfMemoryError:
            if len(token_ids) == 1:
                raise
            # Leave the handler first: the exception's frames keep the tensors alive.
        self.tokens_per_batch = max(1, min(self.tokens_per_batch, len(token_ids) * len(token_ids[0])) // 2)
        logger.warning("Out of memory: continuing with batches of %d tokens.", self.tokens_per_batch)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(token_ids) // 2
        parts = [self._encode_batch(token_ids[:half]), self._encode_batch(token_ids[half:])]
        return np.concatenate([first for first, _ in parts]), np.concatenate([form for _, form in parts])

    @torch.inference_mode()
    def _forward(self, token_ids: list[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        longest = max(map(len, token_ids))
        ids = np.full((len(token_ids), longest), self.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(token_ids):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        device = self.model.device
        # Without padding, omit the mask, so that attention uses the fastest kernel.
        full = bool(mask.all())
        first, form = self.model.encode(torch.from_numpy(ids).to(device), None if full else torch.from_numpy(mask).to(device))
        return first.float().cpu().numpy(), form.float().cpu().numpy()


@contextmanager
def one_thread_per_operation() -> Iterator[None]:
    """Limit libraries to one thread per operation while each core processes its own batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
