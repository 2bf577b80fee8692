"""Load causal language models, and compute the losses of tokens."""

import struct
from collections.abc import Sequence
from hashlib import file_digest
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from ..progress import no_loading_bars
from ..scoring.checkpoints import checkpoint_identity

# Number of positions whose float32 probabilities over the vocabulary are in memory at once.
_POSITIONS_AT_ONCE = 256


def load_causal_lm(
    lm: str | Path, dtype: torch.dtype, device: str, revision: str | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Load a causal language model for evaluation.

    Args:
        lm (`str` or `Path`): a Hub id, a folder, a GGUF file, or a folder with one GGUF file, whose weights are dequantised.
        dtype (`torch.dtype`): precision of the weights in memory.
        device (`str`): target device.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.
        trust_remote_code (`bool`, *optional*, defaults to `False`): whether code in the model's repository may run.

    Returns:
        `tuple`: the model and its tokenizer.

    Raises:
        `ValueError`: if there is no model or more than one GGUF file, or the weights are not those of a causal model.
        `ImportError`: if a GGUF file needs the package gguf.
    """
    source, options = _located(Path(lm)) if Path(lm).exists() else (str(lm), {})
    options["trust_remote_code"] = trust_remote_code
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **options)
        with no_loading_bars():
            model, info = AutoModelForCausalLM.from_pretrained(
                source, revision=revision, dtype=dtype, output_loading_info=True, **options
            )
    except (OSError, KeyError, IndexError, ValueError, struct.error) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ValueError(
            f"No causal language model can be loaded from {str(lm)!r}: it is not a folder or file of one, is damaged, or is a "
            f"model id that cannot be reached ({why})."
        ) from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(map(str, info["missing_keys"]))[:4])
        raise ValueError(f"{lm!s} has no weights for {missing}: it is not a causal language model, or is incomplete.")
    return model.eval().to(device), tokenizer


def lm_identity(lm: str | Path, revision: str | None = None) -> str:
    """
    Identify a language model by its content.

    Args:
        lm (`str` or `Path`): as for [`load_causal_lm`].
        revision (`str`, *optional*): branch, tag or commit of a Hub id.

    Returns:
        `str`: SHA-256 of a file or of the files of a folder; for a Hub id, the commit that its revision points to.

    Raises:
        `ValueError`: if there is no such model.
    """
    path = Path(lm)
    if path.exists():
        folder, options = _located(path)
        if "gguf_file" not in options:
            return checkpoint_identity(folder)
        with (Path(folder) / options["gguf_file"]).open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    try:
        return Path(str(cached_file(str(lm), "config.json", revision=revision))).parent.name
    except (OSError, ValueError) as error:
        raise ValueError(
            f"There is no language model {str(lm)!r}: it is not a folder or file, and cannot be fetched."
        ) from error


def check_causal(model: PreTrainedModel, name: str) -> None:
    """Raise a `ValueError` if the predictions of a model depend on later tokens, as with BERT."""
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]], device=model.device)
    with torch.inference_mode():
        first, second = model(input_ids=ids).logits.float()
    change = (first - second).abs().amax(dim=-1)
    if (change[:-1] > 1e-3 * change[-1]).any():
        raise ValueError(f"{name} is not a causal language model: what it predicts depends on later tokens.")


@torch.inference_mode()
def token_losses(model: PreTrainedModel, token_ids: Sequence[Sequence[int]], contexts: Sequence[int]) -> np.ndarray:
    """
    Sum the negative log-likelihoods of tokens given the tokens before them.

    Args:
        model (`PreTrainedModel`): a causal model.
        token_ids (`Sequence[Sequence[int]]`): B sequences.
        contexts (`Sequence[int]`): number of leading tokens of each sequence that are only context, at least 1.

    Returns:
        `np.ndarray` of shape `(B,)`, float64: negative log-likelihoods in nats, at least 0.
    """
    ids = torch.zeros(len(token_ids), max(map(len, token_ids)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(token_ids):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    # With a vocabulary of 262,000, the logits of a token take more operations than the rest of a small model.
    options = {"logits_to_keep": ids.shape[1] - min(contexts) + 1} if _can_keep_logits(model) else {}
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    first = ids.shape[1] - logits.shape[1]
    losses = np.empty(len(token_ids))
    for row, (tokens, context) in enumerate(zip(token_ids, contexts, strict=True)):
        predicted = logits[row, context - 1 - first : len(tokens) - 1 - first]
        labels = ids[row, context : len(tokens)]
        pieces = zip(predicted.split(_POSITIONS_AT_ONCE), labels.split(_POSITIONS_AT_ONCE), strict=True)
        losses[row] = sum(float(torch.nn.functional.cross_entropy(p.float(), q, reduction="sum")) for p, q in pieces)
    return losses


def _can_keep_logits(model: Any) -> bool:
    """Whether a model, with or without adapters, computes the logits of the last positions only, if asked."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in signature(base.forward).parameters


def _located(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the folder to load from, and the GGUF file in it if it holds the weights."""
    if path.is_dir():
        if (path / "config.json").is_file():
            return str(path), {}
        files = sorted(path.glob("*.gguf"))
        if len(files) != 1:
            found = f"the GGUF files {', '.join(f.name for f in files)}: pass one of them" if files else "neither"
            raise ValueError(f"The folder {path} must hold a config.json or one GGUF file; it has {found}.")
        path = files[0]
    if path.suffix.lower() != ".gguf":
        raise ValueError(f"{path} is a file, but no GGUF file: pass the folder that holds the model.")
    if find_spec("gguf") is None:
        raise ImportError('Reading GGUF files needs gguf: pip install "scar-hf[report]"')
    return str(path.parent), {"gguf_file": path.name}
