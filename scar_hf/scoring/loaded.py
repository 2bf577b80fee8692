"""Loads rankers for scorers, and keeps the last one for the next scorer of the same process."""

import os
from dataclasses import dataclass, field
from threading import Lock

import torch
from transformers import PreTrainedTokenizerBase

from ..modeling import ScarModel
from .checkpoints import checkpoint_identity, load_ranker, load_tokenizer, resolve_checkpoint
from .chunks import Encoder
from .encoders import make_encoder, prefer_cpu_attention
from .encoders.forking import restart_after_fork
from .precision import precision_name
from .probing import check_probe
from .settings import ScorerSettings
from .tokenization import WordPieces

# Larger rankers are not kept: the memory may be needed for the model that is trained on the selection.
_LARGEST_KEPT = 500_000_000


@dataclass(eq=False)
class LoadedRanker:
    """
    A ranker that is ready to score.

    Args:
        model ([`ScarModel`]): the ranker.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        encoder ([`~scar_hf.scoring.chunks.Encoder`]): runs its encoder.
        identity (`str`, *optional*): the checkpoint's identity; `None` for a ranker in memory.
        is_shared (`bool`, *optional*, defaults to `False`): whether several scorers use it.
        tokenizing (`Lock`): a fast tokenizer may be used by one thread at a time.
    """

    model: ScarModel
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    identity: str | None = None
    is_shared: bool = False
    tokenizing: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.words = WordPieces(self.tokenizer) if WordPieces.fits(self.tokenizer) else None
        restart_after_fork(self)

    def start_workers(self) -> None:
        """Renew the lock, which a thread of the parent may have held at a fork."""
        self.tokenizing = Lock()


_last: tuple[tuple, LoadedRanker] | None = None


def loaded_ranker(
    settings: ScorerSettings,
    backend: str,
    device: str | torch.device,
    dtype: torch.dtype,
    threads: int,
    identity: str | None,
    own: bool = False,
) -> LoadedRanker:
    """
    Load a ranker, or return the last one if it is the same and its files have not changed.

    Args:
        settings ([`~scar_hf.scoring.settings.ScorerSettings`]): the scorer's settings.
        backend, device, dtype: what they resolve to.
        threads (`int`): number of threads for all batches together.
        identity (`str`, *optional*): the identity that the checkpoint must have.
        own (`bool`, *optional*, defaults to `False`): whether the caller may change the ranker, so that nobody else gets it.

    Returns:
        [`LoadedRanker`].

    Raises:
        `ValueError`: if the checkpoint is not a SCAR ranker, is damaged, or has changed.
    """
    global _last
    path, revision, name = resolve_checkpoint(settings.model), settings.revision, settings.model
    found = checkpoint_identity(path, revision)
    if identity not in (None, found):
        raise ValueError(f"The ranker {name!r} has changed since this scorer was created.")
    of_settings = (settings.attn_implementation, settings.tokens_per_batch, settings.max_length)
    key = (path, revision, found, backend, str(device), dtype, threads, *of_settings, os.getpid())
    last = _last
    if last is not None and last[0] == key and not own:
        last[1].is_shared = True
        return last[1]
    model = load_ranker(path, revision, attn_implementation=settings.attn_implementation)
    tokenizer = load_tokenizer(path, revision)
    check_probe(model, tokenizer, name)
    if backend == "torch":
        model.to(device).encoder.to(dtype)
        prefer_cpu_attention(model)
    encoder = make_encoder(model, tokenizer, settings, path, backend, precision_name(dtype), threads)
    if checkpoint_identity(path, revision) != found:
        raise ValueError(f"The ranker {name!r} changed while it was loading. Load it again.")
    loaded = LoadedRanker(model, tokenizer, encoder, found)
    if not own and sum(weight.nbytes for weight in model.parameters()) <= _LARGEST_KEPT:
        _last = key, loaded
    return loaded


def release(loaded: LoadedRanker) -> None:
    """Do not give a ranker to further scorers."""
    global _last
    if _last is not None and _last[1] is loaded:
        _last = None
