"""Which rows are scored together: chunks of rows cut by their content, and batches of similar lengths inside a chunk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from .pairs import RowPairs

# The bounds of a chunk: large enough to sort texts by length and to find equal ones, small enough to lose at a crash.
_CHUNK_MIN, _CHUNK_MAX = 512, 2048
# Past the minimum, a chunk ends at one row in so many, chosen by the row's own content.
_CUT_EVERY = 512
# Characters after which a chunk ends whatever its rows, as their texts are in memory together.
_CHUNK_TEXT = 32_000_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """
    Rows that are scored together. A score may depend, in its last bits, on the texts in its batch; as batches never reach
    beyond a chunk, and a chunk begins and ends by content alone, it does not depend on where a run was interrupted, which
    worker scored it, or which rows were added elsewhere.

    Args:
        rows (`list[RowPairs]`): the rows, at most 2048.
        digest (`str`): SHA-256 of what is scored.
        row_hashes (`np.ndarray` of shape `(n,)`, uint64): the same of each row, in short.
    """

    rows: list[RowPairs]
    digest: str
    row_hashes: np.ndarray


def cut_chunks(rows: Iterable[RowPairs]) -> Iterator[Chunk]:
    """
    Cut a stream of rows into chunks where its content says so, so that rows added or removed change the chunks around
    them and no others.

    Args:
        rows (`Iterable[RowPairs]`): rows, read one by one.

    Returns:
        `Iterator[Chunk]`: of 512 to 2,048 rows, fewer where their texts are very long; the last one of at least one.
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
            yield _chunk(taken, digests)
            taken, digests, size = [], [], 0
    if taken:
        yield _chunk(taken, digests)


def short_hash(row: RowPairs) -> int:
    """The hash of a row as it stands in [`Chunk`]."""
    return int.from_bytes(row.digest()[:8], "little")


def _chunk(rows: list[RowPairs], digests: list[bytes]) -> Chunk:
    hashes = np.array([int.from_bytes(digest[:8], "little") for digest in digests], dtype=np.uint64)
    return Chunk(rows, sha256(b"".join(digests)).hexdigest(), hashes)


def batches_by_tokens(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """
    Plan batches of similar lengths, the longest first, each of at most `tokens_per_batch` tokens with its padding; a
    text longer than that has a batch of its own.

    Args:
        lengths (`Sequence[int]`): tokens of each text.
        tokens_per_batch (`int`): the budget.

    Returns:
        `Iterator[list[int]]`: positions in `lengths`, each in exactly one batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        count = max(1, tokens_per_batch // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count
