"""Converts encoders to OpenVINO, optionally quantised to int8 with bundled calibration texts, and caches the result."""

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ...modeling import ScarModel
from ..checkpoints import checkpoint_identity, load_ranker, load_tokenizer

logger = logging.getLogger(__name__)

_CALIBRATION = Path(__file__).parent / "calibration.jsonl"
_MISSING = 'backend="openvino" requires {}: pip install "scar-hf[cpu]"'
_FILES = ("model.xml", "model.bin")
# Measured: asymmetric ranges cost no time, and NNCF's default smoothing ranks best.
_QUANTISATION = {"preset": "mixed", "model_type": "transformer"}
# Part of the cache key; increase when the graph or its quantisation changes.
_RECIPE = 2


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


def convert(ov: ModuleType, path: str, revision: str | None, quantised: bool) -> dict[str, bytes]:
    """Convert a ranker's encoder, check it against PyTorch, quantise it, and return the files of the OpenVINO model."""
    nncf = import_extra("nncf") if quantised else None
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
        compiled = core(os.getpid()).compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
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


def read_model(folder: Path) -> dict[str, bytes] | None:
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


def write_model(folder: Path, files: dict[str, bytes]) -> None:
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
        if read_model(folder) is None:
            logger.warning("The converted model cannot be cached in %s (%s).", folder, error)


def _hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {name: sha256(content).hexdigest() for name, content in files.items()}


@cache
def core(process: int) -> Any:
    """
    Return the process's `openvino.Core`, which is never freed: it puts the signal stack of the thread that first compiles into
    memory of its own, so that the next signal would crash a process that freed it in another thread.
    """
    return import_extra("openvino").Core()


def import_extra(name: str) -> ModuleType:
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
