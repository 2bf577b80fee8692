"""The code that runs on the nodes of a Ray cluster: tasks that cut shards into chunks, and actors that score them."""

import json
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from ..files import Shard, open_shards
from ..rows.source import rows_of_shard
from ..scoring.chunks import Chunk, cut_chunks
from ..scoring.scorer import ScarScorer

# Each item is one table row in a separate block, so that chunks spread evenly over the actors.
ITEM = pa.schema(
    [
        ("kind", pa.string()),
        ("shard", pa.int64()),
        ("chunk", pa.int64()),
        ("digests", pa.large_binary()),
        ("problems", pa.string()),
        ("places", pa.large_binary()),
        ("rows", pa.large_binary()),
        ("scores", pa.large_binary()),
        ("truncated", pa.large_binary()),
        ("error", pa.string()),
    ]
)
# Kinds of items: rows to score, with their positions in the chunk; scored rows; a chunk that the driver's cache covers; the end
# of a shard, with its number of chunks; an error while reading or scoring.
ROWS, SCORED, KNOWN, END, READ_ERROR, SCORE_ERROR = "rows", "scored", "known", "end", "read_error", "score_error"
# Errors from invalid data and settings. They travel as items, because Ray would wrap them in its own tracebacks.
EXPECTED_ERRORS = (ValueError, ImportError, OSError)


@dataclass(frozen=True)
class Work:
    """
    The data that all reading tasks share.

    Args:
        shards (`list[Shard]`): the shards, with absolute paths; only shards without a path carry their rows.
        scorer (`ScarScorer`): the scorer, whose reader reads the rows.
        known (`np.ndarray`): first 8 bytes of the digest of each row in the driver's cache, uint64, ascending.
    """

    shards: list[Shard]
    scorer: ScarScorer
    known: np.ndarray


class ShardSource(Datasource):
    """
    Reads shards as chunks, with one task per shard.

    Args:
        count (`int`): number of shards.
        work (`ray.ObjectRef`): reference to a [`Work`].
    """

    def __init__(self, count: int, work: Any) -> None:
        super().__init__()
        self._count, self._work = count, work

    def get_name(self) -> str:
        """Return the name for Ray's logs."""
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        """Return `None`, because the size is unknown before reading."""
        return None

    def get_read_tasks(self, parallelism: int, *args: Any, **kwargs: Any) -> list[ReadTask]:
        """Return one task per shard, whatever Ray proposes, because chunks are cut from the start of a shard."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(read_shard, i, self._work), unknown, ITEM) for i in range(self._count)]


def read_shard(number: int, work: Any) -> Iterator[pa.Table]:
    """
    Read a shard and cut it into chunks.

    Args:
        number (`int`): number of the shard.
        work (`ray.ObjectRef`): reference to a [`Work`].

    Returns:
        `Iterator[pa.Table]`: one item per chunk, and finally one for the end or an error.
    """
    shared: Work = ray.get(work)
    scorer, count = shared.scorer, 0
    try:
        for chunk in cut_chunks(rows_of_shard(_opened(shared.shards[number]), scorer.reader)):
            problems = {i: row.problem for i, row in enumerate(chunk.rows) if row.problem is not None}
            if scorer.settings.strict and problems:
                yield _item(kind=READ_ERROR, shard=number, error=f"ValueError:{next(iter(problems.values()))}")
                return
            is_known = _is_in(chunk.row_hashes, shared.known)
            is_known[list(problems)] = True
            places = np.flatnonzero(~is_known)
            yield _item(
                kind=ROWS if len(places) else KNOWN,
                shard=number,
                chunk=count,
                digests=b"".join(chunk.digests),
                problems=json.dumps(problems),
                places=places.tobytes(),
                rows=pickle.dumps(chunk.of(places), protocol=5) if len(places) else None,
            )
            count += 1
    except EXPECTED_ERRORS as error:
        yield _item(kind=READ_ERROR, shard=number, error=_error_text(error))
        return
    yield _item(kind=END, shard=number, chunk=count)


class ScoringActor:
    """
    Scores chunks. It loads the ranker when the first chunk arrives.

    Args:
        state (`dict`): the pickled state of the driver's scorer.
        options (`dict`): further settings of the scorer that may affect the last bits of a score.
        device (`str`): the device to score on.
        threads (`int`): number of CPU threads.
    """

    def __init__(self, state: dict[str, Any], options: dict[str, Any], device: str, threads: int) -> None:
        self._state, self._options, self._device, self._threads = state, options, device, threads
        self._scorer: ScarScorer | None = None
        self._lock = Lock()
        # By default, the tokenizer uses all cores of the node, which other actors share.
        os.environ["RAYON_NUM_THREADS"] = str(threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score an item; pass items without rows through unchanged."""
        (item,) = batch.to_pylist()
        if item["kind"] != ROWS:
            return batch
        chunk: Chunk = pickle.loads(item.pop("rows"))
        try:
            ((_, result),) = self._loaded().score_chunks([chunk])
        except EXPECTED_ERRORS as error:
            return _item(kind=SCORE_ERROR, shard=item["shard"], chunk=item["chunk"], error=_error_text(error))
        return _item(**item | {"kind": SCORED, "scores": result.scores.tobytes(), "truncated": result.truncated.tobytes()})

    def _loaded(self) -> ScarScorer:
        with self._lock:  # two chunks may arrive at the same time
            if self._scorer is None:
                torch.set_num_threads(self._threads)
                scorer = restore_scorer(self._state, self._options)
                if scorer.backend == "torch":
                    scorer.device = self._device
                _check_same(scorer.identity(), self._state)
                scorer.model  # noqa: B018 - load now, because the encoder takes its number of threads from this thread
                # From here on, use one thread per batch: scorers set this temporarily, which concurrent batches would undo.
                torch.set_num_threads(1)
                self._scorer = scorer
        return self._scorer


def restore_scorer(state: dict[str, Any], options: dict[str, Any]) -> ScarScorer:
    """Recreate the driver's scorer."""
    scorer = ScarScorer.__new__(ScarScorer)
    scorer.__setstate__(state | options)
    return scorer


def _check_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise a `ValueError` if this node would compute different scores."""
    different = [name for name in ("scar_hf", "weights") if found[name] != expected[name]]
    if different:
        pairs = "; ".join(f"{name} {found[name]!r} here, {expected[name]!r} there" for name in different)
        raise ValueError(
            f"The node {os.uname().nodename} has another ranker or version of scar-hf than the machine that started the run "
            f"({pairs}). Install the same on every node."
        )


def _opened(shard: Shard) -> Shard:
    """Return the shard; an Arrow folder, which travels without its rows, is opened on this node."""
    if shard.path is None or not shard.path.is_dir():
        return shard
    return replace(open_shards(shard.path)[0], numbers=shard.numbers)


def _is_in(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
    return known[places] == hashes if len(known) else np.zeros(len(hashes), dtype=bool)


def _error_text(error: BaseException) -> str:
    return f"{next(kind.__name__ for kind in EXPECTED_ERRORS if isinstance(error, kind))}:{error}"


def _item(**values: Any) -> pa.Table:
    return pa.Table.from_pylist([{name: values.get(name) for name in ITEM.names}], schema=ITEM)


def without_rows(shards: Sequence[Shard]) -> list[Shard]:
    """Prepare shards for sending: make paths absolute, and leave out datasets that a path can restore."""
    return [
        shard if shard.path is None else Shard(shard.name, shard.path.absolute(), numbers=shard.numbers) for shard in shards
    ]
