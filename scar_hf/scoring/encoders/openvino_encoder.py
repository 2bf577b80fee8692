"""Runs the encoder in OpenVINO on CPUs, optionally quantised to int8 with bundled calibration texts."""

import importlib
import importlib.util
import io
import json
import logging
import os
import platform
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ...modeling import ScarModel
from ..cache import cache_folder
from ..checkpoints import checkpoint_identity, load_ranker, load_tokenizer, read_config, resolve_checkpoint
from ..chunks import batches_by_tokens
from .forking import restart_after_fork

logger = logging.getLogger(__name__)

_PRECISIONS = ("int8", "bfloat16", "float32")
_CALIBRATION = Path(__file__).parent / "calibration.jsonl"
_MISSING = 'backend="openvino" requires {}: pip install "scar-hf[cpu]"'
_FILES = ("model.xml", "model.bin")
# Lengths are padded to a multiple of this, because OpenVINO spends milliseconds preparing each new shape.
_LENGTH_STEP = 16
# Measured: asymmetric ranges cost no time, and NNCF's default smoothing ranks best.
_QUANTISATION = {"preset": "mixed", "model_type": "transformer"}
# Part of the cache key; increase when the graph or its quantisation changes.
_RECIPE = 2
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
        ov = _import("openvino")
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
        files = _read(self._folder)
        if files is None:
            files = _convert(ov, path, revision, precision == "int8")
            _write(self._folder, files)
        self._compile(files)
        self.start_workers()
        restart_after_fork(self)

    def start_workers(self) -> None:
        """Create the lock for compiling; a thread of the parent may have held the old one."""
        self._compiling = Lock()
        if os.getpid() != self._process:
            _OF_PARENTS.append(self._compiled)

    def _compile(self, files: dict[str, bytes]) -> None:
        core = _core(os.getpid())
        native_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._compiled = core.compile_model(
            core.read_model(files["model.xml"], files["model.bin"]),
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
            files = _read(self._folder)
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


class _Traceable(torch.nn.Module):
    """[`ScarModel.encode`] for right-padded texts, traceable and with pooling inside the graph."""

    def __init__(self, model: ScarModel) -> None:
        super().__init__()
        self.encoder = model.encoder
        self.use_pooler, self.pooling = model.config.use_pooler, model.config.pooling

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states = output.last_hidden_state
        padding = attention_mask.unsqueeze(-1) == 0
        if self.pooling == "mean":
            text = states.masked_fill(padding, 0.0).sum(dim=1) / attention_mask.sum(dim=1, keepdim=True).to(states.dtype)
        else:
            text = output.pooler_output if self.use_pooler else states[:, 0]
        # Low enough for a maximum, and representable in bfloat16.
        return text, states.masked_fill(padding, -1e38).amax(dim=1)


def _convert(ov: ModuleType, path: str, revision: str | None, quantised: bool) -> dict[str, bytes]:
    """Convert a ranker's encoder, check it against PyTorch, quantise it, and return the files of the OpenVINO model."""
    nncf = _import("nncf") if quantised else None
    logger.warning(
        "Converting the encoder of %s for OpenVINO. This happens once and takes about %s.",
        path,
        "half a minute" if quantised else "10 s",
    )
    begin = time.monotonic()
    model = load_ranker(path, revision)
    # Conversion and quantisation print progress bars and tracing warnings; the check below is decisive.
    with _quiet():
        converted = _traced(ov, model, path)
    if nncf is not None:
        token_ids = _calibration_ids(path, revision, model.config.max_length)
        with _quiet():
            converted = nncf.quantize(
                converted,
                nncf.Dataset(token_ids, _alone),
                preset=nncf.QuantizationPreset(_QUANTISATION["preset"]),
                model_type=nncf.ModelType(_QUANTISATION["model_type"]),
                subset_size=len(token_ids),
            )
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(converted, str(Path(folder) / _FILES[0]), compress_to_fp16=False)
        files = {name: (Path(folder) / name).read_bytes() for name in _FILES}
    logger.info("Converted in %.0f s.", time.monotonic() - begin)
    return files


@torch.no_grad()
def _traced(ov: ModuleType, model: ScarModel, path: str) -> Any:
    """Trace the encoder, and compare the graph with PyTorch on lengths other than those traced."""
    kind = model.config.encoder_config.model_type
    advice = f'The encoder of {path!r} (type {kind!r}) cannot be converted for OpenVINO. Use backend="torch"'
    traceable = _Traceable(model)
    failures: tuple[type[Exception], ...] = (
        *(RuntimeError, ValueError, TypeError, LookupError, AttributeError),
        *(ov.frontend.GeneralFailure, ov.frontend.OpConversionFailure, ov.frontend.OpValidationFailure),
    )
    try:
        converted = ov.convert_model(
            traceable, example_input=_example(model, (40, 9, 23)), input=[ov.PartialShape([-1, -1])] * 2
        )
        for port, name in zip(converted.inputs, ("input_ids", "attention_mask"), strict=True):
            port.get_tensor().set_names({name})
        compiled = _core(os.getpid()).compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        # Texts longer than any local attention window, and a short one.
        for lengths in ((300, 17), (7,)):
            example = _example(model, lengths)
            outputs = compiled([tensor.numpy() for tensor in example])
            for found, wanted in zip((outputs[0], outputs[1]), traceable(*example), strict=True):
                error = float(np.abs(found - wanted.numpy()).max())
                if not error <= 1e-2 * float(wanted.abs().max()):
                    raise ValueError(f"{advice}. The converted model's vectors differ by {error:.2g}.")
    except failures as error:
        if str(error).startswith(advice):
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"{advice} ({reason.strip()[:200]}).") from error
    return converted


def _example(model: ScarModel, lengths: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random token ids and a mask for texts of these lengths, capped at the ranker's maximum."""
    encoder = model.config.encoder_config
    padding = getattr(encoder, "pad_token_id", None) or 0
    lengths = [min(length, model.config.max_length) for length in lengths]
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(0, encoder.vocab_size, mask.shape, generator=torch.Generator().manual_seed(0))
    ids = torch.where(ids == padding, (padding + 1) % encoder.vocab_size, ids)
    return torch.where(mask, ids, padding), mask.long()


def _calibration_ids(path: str, revision: str | None, max_length: int) -> list[list[int]]:
    """Tokenise the calibration texts for int8 ranges. They are fixed, so that everyone gets the same model."""
    texts = [json.loads(line)["text"] for line in _CALIBRATION.read_text(encoding="utf-8").splitlines()]
    tokenizer = load_tokenizer(path, revision)
    return tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]


def _alone(token_ids: list[int]) -> dict[str, np.ndarray]:
    """Make a batch of one text."""
    ids = np.array([token_ids], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def conversion_key(checkpoint: str, revision: str | None = None, precision: str = "int8") -> str:
    """
    Compute the cache key of a converted model without converting it.

    Args:
        checkpoint (`str`): a folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.
        precision (`str`, *optional*, defaults to `"int8"`): as in [`OpenVinoEncoder`].

    Returns:
        `str`: SHA-256 over checkpoint, quantisation and versions. Precisions without quantisation share a key.

    Raises:
        `ImportError`: if OpenVINO is not installed.
    """
    try:
        converter = version("openvino")
    except PackageNotFoundError as error:
        raise ImportError(_MISSING.format("openvino")) from error
    identity = checkpoint_identity(checkpoint, revision)
    parts = [identity, _RECIPE, precision == "int8", converter, version("transformers"), platform.machine()]
    if precision == "int8":
        nncf = version("nncf") if importlib.util.find_spec("nncf") else None
        parts += [nncf, _QUANTISATION, sha256(_CALIBRATION.read_bytes()).hexdigest()]
    return sha256(json.dumps(parts).encode()).hexdigest()


def _read(folder: Path) -> dict[str, bytes] | None:
    """Read a converted model; return `None` if it is missing or its files have changed."""
    try:
        hashes = json.loads((folder / "hashes.json").read_text(encoding="utf-8"))
        files = {name: (folder / name).read_bytes() for name in _FILES}
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("The converted model in %s cannot be read (%s) and will be converted again.", folder, error)
        return None
    if hashes != _hashes(files):
        logger.warning("The converted model in %s is damaged and will be converted again.", folder)
        return None
    return files


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Cache a converted model atomically. If writing fails, it is converted again next time."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
            made = Path(temporary) / folder.name
            made.mkdir()
            for name, content in files.items():
                (made / name).write_bytes(content)
            (made / "hashes.json").write_text(json.dumps(_hashes(files)), encoding="utf-8")
            if folder.exists():
                # It is damaged, or another process was faster. In either case, its files are not open.
                os.replace(folder, Path(temporary) / "old")
            os.replace(made, folder)
    except OSError as error:
        if _read(folder) is None:
            logger.warning("The converted model cannot be cached in %s (%s).", folder, error)


def _hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {name: sha256(content).hexdigest() for name, content in files.items()}


@cache
def _core(process: int) -> Any:
    """
    Return the process's `openvino.Core`, which is never freed: it puts the signal stack of the thread that first compiles into
    memory of its own, so that the next signal would crash a process that freed it in another thread.
    """
    return _import("openvino").Core()


def _import(name: str) -> ModuleType:
    """Import a package of the extra `cpu`."""
    # OpenVINO and NNCF send usage data at import if this package is installed, and work without it.
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(_MISSING.format(name)) from error
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress all output below errors."""
    loggers = [logging.getLogger(name) for name in ("nncf", "transformers")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
