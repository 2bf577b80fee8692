"""The scores or vectors of one chunk: each distinct text encoded once, all pairs scored from the two vectors of their texts."""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import numpy as np
import torch
from tqdm.auto import tqdm

from .modeling import ScarModel
from .planning import Chunk
from .score_cache import ChunkScores
from .tokenization import TokenizedTexts


class Encoder(Protocol):
    """What runs a ranker's encoder: see [`~scar_hf.encoders.TorchEncoder`]."""

    def encode(
        self, token_ids: Sequence[Sequence[int]], on_batch: Callable[[list[int]], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...


def score_chunk(
    chunk: Chunk,
    model: ScarModel,
    encoder: Encoder,
    tokens_of: Callable[[list[str]], TokenizedTexts],
    stop: Event,
    bar: tqdm | None = None,
) -> ChunkScores:
    """
    Score the pairs of a chunk.

    Args:
        chunk ([`~scar_hf.planning.Chunk`]): n rows.
        model ([`ScarModel`]): the ranker, of which the heads are used.
        encoder ([`Encoder`]): runs its encoder.
        tokens_of (`Callable`): tokenises texts.
        stop (`threading.Event`): ends the work at the next batch when it is set.
        bar (`tqdm`, *optional*): a progress bar of rows.

    Returns:
        [`~scar_hf.score_cache.ChunkScores`]: of a row with several pairs the mean of their scores; NaN where there is none
        or it is not finite.

    Raises:
        `concurrent.futures.CancelledError`: if it was stopped.
    """
    pairs = _encode(chunk, encoder, tokens_of, model.config.pooling, stop, bar)
    scores = _rank(model, pairs.instructions, pairs.responses, pairs.forms)
    means = _means(scores[~pairs.against], pairs.owner[~pairs.against], len(chunk.rows))
    if pairs.against.any():
        others = _means(scores[pairs.against], pairs.owner[pairs.against], len(chunk.rows))
        margins = np.unique(pairs.owner[pairs.against])
        means[margins] -= others[margins]
    means = means.astype(np.float32)
    means[~np.isfinite(means)] = np.nan
    truncated = np.zeros(len(chunk.rows), dtype=bool)
    np.logical_or.at(truncated, pairs.owner, pairs.truncated)
    return ChunkScores(means, truncated)


def embed_chunk(
    chunk: Chunk,
    encoder: Encoder,
    tokens_of: Callable[[list[str]], TokenizedTexts],
    pooling: str,
    bar: tqdm | None = None,
) -> np.ndarray:
    """
    Encode the rows of a chunk.

    Args:
        chunk ([`~scar_hf.planning.Chunk`]): n rows.
        encoder, tokens_of, bar: as for [`score_chunk`].
        pooling (`str`): what the encoder's text vectors are, as in [`ScarConfig`].

    Returns:
        `np.ndarray` of shape `(n, 2, H)`, float32: text vectors of instruction and response; of a row with several
        pairs their mean, NaN where there is none.
    """
    pairs = _encode(chunk, encoder, tokens_of, pooling, Event(), bar)
    vectors = np.stack([pairs.instructions, pairs.responses], axis=1)[~pairs.against]
    return _means(vectors, pairs.owner[~pairs.against], len(chunk.rows)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """
    The pairs of a chunk: the row that each belongs to, whether the row is measured against it, its vectors, and whether a text
    of it was truncated.
    """

    owner: np.ndarray
    against: np.ndarray
    instructions: np.ndarray
    responses: np.ndarray
    forms: np.ndarray
    truncated: np.ndarray


def _encode(
    chunk: Chunk,
    encoder: Encoder,
    tokens_of: Callable[[list[str]], TokenizedTexts],
    pooling: str,
    stop: Event,
    bar: tqdm | None,
) -> _Pairs:
    slots: dict[str, int] = {}
    rows = [(i, row) for i, row in enumerate(chunk.rows) if row.problem is None]
    pairs = [
        (i, against, x, y) for i, row in rows for against, those in ((False, row.pairs), (True, row.against)) for x, y in those
    ]
    owner = np.array([i for i, *_ in pairs], dtype=np.int64)
    against = np.array([against for _, against, _, _ in pairs], dtype=bool)
    x = [slots.setdefault(text, len(slots)) for *_, text, _ in pairs]
    y = [slots.setdefault(text, len(slots)) for *_, text in pairs]
    texts = tokens_of(list(slots))
    pairs_of = np.bincount(y, minlength=len(slots))

    shown = 0

    def advance(windows: list[int]) -> None:
        nonlocal shown
        if stop.is_set():
            raise CancelledError
        done = min(int(pairs_of[texts.finished(windows)].sum()), len(chunk.rows) - shown)
        shown += done
        if bar is not None:
            bar.update(done)

    vectors, forms = texts.merge(*encoder.encode(texts.token_ids, advance), pooling)
    if bar is not None:
        bar.update(len(chunk.rows) - shown)
    return _Pairs(owner, against, vectors[x], vectors[y], forms[y], texts.truncated[x] | texts.truncated[y])


@torch.inference_mode()
def _rank(model: ScarModel, *vectors: np.ndarray) -> np.ndarray:
    """Score encoded pairs with the heads, in their own precision, whatever the encoder's is."""
    if not len(vectors[0]):
        return np.empty(0, dtype=np.float32)
    head = model.score_head.dense.weight
    scores, _ = model.rank(*(torch.from_numpy(v).to(head.device, head.dtype) for v in vectors))
    return scores.float().cpu().numpy()


def _means(values: np.ndarray, owner: np.ndarray, rows: int) -> np.ndarray:
    """The mean over the pairs of each row, in float64; NaN where a row has no pair."""
    sums = np.zeros((rows, *values.shape[1:]))
    count = np.bincount(owner, minlength=rows).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(invalid="ignore"):  # 0/0 where a row has no pair
        np.add.at(sums, owner, values)
        return sums / count
