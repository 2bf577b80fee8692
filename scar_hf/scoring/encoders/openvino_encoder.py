"""Runs the encoder in OpenVINO on CPUs."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from ..cache import cache_folder
from ..checkpoints import read_config, resolve_checkpoint
from ..chunks import batches_by_tokens
from .forking import restart_after_fork
from .openvino_conversion import conversion_key, convert, core, import_extra, read_model, write_model

_PRECISIONS = ("int8", "bfloat16", "float32")
# Lengths are padded to a multiple of this, because OpenVINO spends milliseconds preparing each new shape.
_LENGTH_STEP = 16
# Compiled models of parent processes. A forked process keeps them all, because freeing one waits for threads it lacks.
_OF_PARENTS: list[Any] = []


class OpenVinoEncoder:
    """
    Encodes texts with a ranker on a CPU, several batches at a time. The model is converted (and for int8 quantised) at first
    use, which takes about half a minute, and cached on disk.

    Args:
        checkpoint (`str`): the name of the bundled ranker, a folder, or a Hub id.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.
        precision (`str`, *optional*, defaults to `"int8"`):
            `"int8"` for weights and activations; or, without quantisation, `"bfloat16"` (float32 on CPUs without it) or
            `"float32"`.
        tokens_per_batch (`int`, *optional*, defaults to 1024): tokens per batch and thread, including padding.
        num_threads (`int`, *optional*): number of threads, by default as many as PyTorch uses.
        cache_dir (`str` or `Path`, *optional*):
            Cache folder, in which converted models go to `openvino`; by default `$SCAR_HF_CACHE`, or `$HF_HOME/scar-hf`.

    Raises:
        `ImportError`: if OpenVINO, or NNCF for quantisation, is not installed.
        `ValueError`: if the checkpoint is not a SCAR ranker, or its encoder cannot be converted.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        revision: str | None = None,
        precision: str = "int8",
        tokens_per_batch: int = 1024,
        num_threads: int | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        if precision not in _PRECISIONS:
            raise ValueError(f"`precision` must be one of {', '.join(map(repr, _PRECISIONS))}, got {precision!r}.")
        for name, value in (("tokens_per_batch", tokens_per_batch), ("num_threads", num_threads)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        ov = import_extra("openvino")
        path = resolve_checkpoint(checkpoint)
        config = read_config(path, revision)
        self.hidden_size = config.hidden_size
        self.tokens_per_batch = tokens_per_batch
        self.num_threads = num_threads or torch.get_num_threads()
        self._max_length = config.max_length
        # Some encoders derive positions from the padding id, so it matters even under the mask.
        self._pad_token_id = getattr(config.encoder_config, "pad_token_id", None) or 0
        self.key, self._precision = conversion_key(path, revision, precision), precision
        self._folder = Path(cache_dir or cache_folder()) / "openvino" / self.key
        files = read_model(self._folder)
        if files is None:
            files = convert(ov, path, revision, precision == "int8")
            write_model(self._folder, files)
        self._compile(files)
        self.start_workers()
        restart_after_fork(self)

    def start_workers(self) -> None:
        """Create the lock for compiling; a thread of the parent may have held the old one."""
        self._compiling = Lock()
        if os.getpid() != self._process:
            _OF_PARENTS.append(self._compiled)

    def _compile(self, files: dict[str, bytes]) -> None:
        runtime = core(os.getpid())
        native_bf16 = "BF16" in runtime.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._compiled = runtime.compile_model(
            runtime.read_model(files["model.xml"], files["model.bin"]),
            "CPU",
            {
                # The non-int8 parts of an int8 model need no more than bfloat16.
                "INFERENCE_PRECISION_HINT": "bf16" if native_bf16 and self._precision != "float32" else "f32",
                "PERFORMANCE_HINT": "THROUGHPUT",
                "NUM_STREAMS": self.num_threads,
                "INFERENCE_NUM_THREADS": self.num_threads,
                # With pinning, several processes would all use the same first cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._process = os.getpid()

    def _compile_after_fork(self) -> None:
        """Compile the model again in a forked process, which lacks the threads of its parent's and would wait for them."""
        with self._compiling:
            if self._process == os.getpid():
                return
            files = read_model(self._folder)
            if files is None:
                raise RuntimeError(
                    f"This process was forked, and the converted model is no longer in {self._folder}. Create the scorer here, "
                    'pass multiprocessing_context="spawn", or use backend="torch".'
                )
            self._compile(files)

    def encode(
        self, token_ids: Sequence[Sequence[int]], on_batch: Callable[[list[int]], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Encode N tokenised texts. The result does not depend on the order in which threads finish.

        Args:
            token_ids (`Sequence[Sequence[int]]`): ids with special tokens, without padding.
            on_batch (`Callable`, *optional*): called in the calling thread with the positions of finished texts.

        Returns:
            `tuple(np.ndarray)`: first-token vectors and maxima over tokens, float32 of shape `(N, H)`, in input order.
        """
        if os.getpid() != self._process:
            self._compile_after_fork()
        firsts = np.empty((len(token_ids), self.hidden_size), dtype=np.float32)
        forms = np.empty_like(firsts)
        batches = list(batches_by_tokens([self._padded(len(ids)) for ids in token_ids], self.tokens_per_batch))
        # Twice as many requests as threads, so that no thread waits while results are read here.
        idle = [self._compiled.create_infer_request() for _ in range(min(2 * self.num_threads, len(batches)))]
        running: deque[tuple[Any, list[int]]] = deque()

        def finish_oldest() -> None:
            request, batch = running[0]
            request.wait()
            running.popleft()
            firsts[batch], forms[batch] = (request.get_output_tensor(i).data for i in range(2))
            idle.append(request)
            if on_batch is not None:
                on_batch(batch)

        try:
            for batch in batches:
                if not idle:
                    finish_oldest()
                request = idle.pop()
                request.start_async(self._inputs([token_ids[i] for i in batch]))
                running.append((request, batch))
            while running:
                finish_oldest()
        finally:
            for request, _ in running:
                request.cancel()
        return firsts, forms

    def _padded(self, length: int) -> int:
        """Return the padded length of a text, at most the ranker's maximum."""
        rounded = max(1, -(-length // _LENGTH_STEP)) * _LENGTH_STEP
        return min(rounded, max(self._max_length, length))

    def _inputs(self, token_ids: list[Sequence[int]]) -> dict[str, np.ndarray]:
        ids = np.full((len(token_ids), self._padded(max(map(len, token_ids)))), self._pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(token_ids):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        return {"input_ids": ids, "attention_mask": mask}
