"""Groups rows for scoring: content-defined chunks of rows, and batches of similar length within a chunk."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import numpy as np
import torch
from tqdm.auto import tqdm

from ..modeling import ScarModel
from ..rows.pairs import RowPairs
from .cache import ChunkScores
from .tokenization import TokenizedTexts

# Rows per chunk: enough to sort texts by length and find duplicates, few enough to lose in a crash.
_CHUNK_MIN, _CHUNK_MAX = 512, 2048
# Past the minimum, a chunk ends with a probability of one in this many rows, decided by the row's hash.
_CUT_EVERY = 512
# Characters after which a chunk always ends, because all its texts are in memory at once.
_CHUNK_TEXT = 32_000_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    Rows that are scored together.

    The last bits of a score may depend on the other texts in its batch. Batches never cross chunks, and chunk boundaries
    depend only on content, so scores do not depend on interruptions, workers, or rows added elsewhere.

    Args:
        rows (`list[RowPairs]`): the rows, at most 2048.
        digests (`list[bytes]`): a hash of each row's scored texts, 16 bytes.
    """

    rows: list[RowPairs]
    digests: list[bytes]

    @property
    def row_hashes(self) -> np.ndarray:
        """The first 8 bytes of each digest, uint64 of shape `(n,)`."""
        return np.frombuffer(b"".join(self.digests), dtype="<u8")[::2].copy()

    @property
    def scorable(self) -> np.ndarray:
        """The places of the rows that can be scored."""
        return np.array([i for i, row in enumerate(self.rows) if row.problem is None], dtype=np.int64)

    def of(self, places: np.ndarray) -> "Chunk":
        """Return the rows at `places` as a chunk."""
        return Chunk([self.rows[i] for i in places], [self.digests[i] for i in places])


def cut_chunks(rows: Iterable[RowPairs]) -> Iterator[Chunk]:
    """
    Cut a stream of rows into chunks at boundaries that their content defines, so that adding or removing rows changes only
    the chunks around them.

    Args:
        rows (`Iterable[RowPairs]`): rows, read one by one.

    Returns:
        `Iterator[Chunk]`: chunks of 512 to 2,048 rows, fewer if their texts are very long; the last has at least one row.
    """
    taken: list[RowPairs] = []
    digests: list[bytes] = []
    size = 0
    for row in rows:
        taken.append(row)
        digests.append(row.digest())
        size += sum(len(text) for pair in (*row.pairs, *row.against) for text in pair if isinstance(text, str))
        cut = len(taken) >= _CHUNK_MIN and int.from_bytes(digests[-1][:4], "little") % _CUT_EVERY == 0
        if cut or len(taken) == _CHUNK_MAX or size >= _CHUNK_TEXT:
            yield Chunk(taken, digests)
            taken, digests, size = [], [], 0
    if taken:
        yield Chunk(taken, digests)


def short_hash(row: RowPairs) -> int:
    """Return a row's hash as in `Chunk.row_hashes`."""
    return int.from_bytes(row.digest()[:8], "little")


def batches_by_tokens(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """
    Plan batches of texts of similar length, longest first, each with at most `tokens_per_batch` tokens including padding. A
    longer text gets its own batch.

    Args:
        lengths (`Sequence[int]`): number of tokens of each text.
        tokens_per_batch (`int`): maximum number of tokens per batch.

    Returns:
        `Iterator[list[int]]`: positions in `lengths`, each in exactly one batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        count = max(1, tokens_per_batch // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


class Encoder(Protocol):
    """Interface for running a ranker's encoder; see [`~scar_hf.scoring.encoders.TorchEncoder`]."""

    def encode(
        self, token_ids: Sequence[Sequence[int]], on_batch: Callable[[list[int]], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pooled vector and the maximum over tokens of each window, float32; `on_batch` gets finished windows."""
        ...


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
        chunk ([`~scar_hf.scoring.chunks.Chunk`]): n rows.
        model ([`ScarModel`]): the ranker, for its heads.
        encoder ([`Encoder`]): runs the ranker's encoder.
        tokens_of (`Callable`): tokenises texts.
        stop (`threading.Event`): if set, scoring stops before the next batch.
        bar (`tqdm`, *optional*): a progress bar that counts rows.

    Returns:
        [`~scar_hf.scoring.cache.ChunkScores`]: the mean score over each row's pairs; NaN if there is none or it is not
        finite.

    Raises:
        `concurrent.futures.CancelledError`: if `stop` was set.
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


def encode_chunk(
    chunk: Chunk,
    encoder: Encoder,
    tokens_of: Callable[[list[str]], TokenizedTexts],
    pooling: str,
    bar: tqdm | None = None,
) -> np.ndarray:
    """
    Encode the rows of a chunk.

    Args:
        chunk ([`~scar_hf.scoring.chunks.Chunk`]): n rows.
        encoder, tokens_of, bar: as in [`score_chunk`].
        pooling (`str`): how token vectors are pooled, as in [`ScarConfig`].

    Returns:
        `np.ndarray` of shape `(n, 3, H)`, float32: text vectors of instruction and response, and the maximum over the tokens of
        the response, averaged over a row's pairs; NaN for rows without pairs.
    """
    pairs = _encode(chunk, encoder, tokens_of, pooling, Event(), bar)
    vectors = np.stack([pairs.instructions, pairs.responses, pairs.forms], axis=1)[~pairs.against]
    return _means(vectors, pairs.owner[~pairs.against], len(chunk.rows)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """
    The pairs of a chunk: each pair's row, whether its score is subtracted, its vectors, and whether one of its texts was
    truncated.
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
    """Score encoded pairs with the heads, in the heads' own precision."""
    if not len(vectors[0]):
        return np.empty(0, dtype=np.float32)
    head = model.score_head.dense.weight
    scores, _ = model.rank(*(torch.from_numpy(v).to(head.device, head.dtype) for v in vectors))
    return scores.float().cpu().numpy()


def _means(values: np.ndarray, owner: np.ndarray, rows: int) -> np.ndarray:
    """Average over each row's pairs, in float64; NaN for rows without pairs."""
    sums = np.zeros((rows, *values.shape[1:]))
    count = np.bincount(owner, minlength=rows).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(invalid="ignore"):  # 0/0 where a row has no pair
        np.add.at(sums, owner, values)
        return sums / count
