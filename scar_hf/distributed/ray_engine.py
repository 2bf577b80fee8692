"""Scores rows on all machines and GPUs of a Ray cluster, bit-identical to the scores of a single process."""

import json
import logging
import math
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..files import Shard
from ..progress import hidden
from ..rows.pairs import check_rows
from ..rows.source import RowSource, rows_of_shard
from ..scoring.cache import ChunkScores, ScoreCache
from ..scoring.chunks import Chunk, cut_chunks
from ..scoring.datasets import ScoredRows, score_rows
from ..scoring.scorer import NOT_FINITE, ScarScorer
from ..scoring.settings import BUNDLED_RANKERS

_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")
# Beyond this number of cores, more actors speed up scoring, but more cores per actor do not.
_CPUS_PER_ACTOR = 4
# Share of a core reserved for a reading task, which would wait forever if actors held all cores.
_CPUS_FOR_READING = 0.1
# An actor tokenises the next chunk while it computes the current one.
_CHUNKS_AT_A_TIME = 2


@dataclass(frozen=True, slots=True)
class _Part:
    """The result of a chunk; without scores if the cache unexpectedly lacks some of them."""

    hashes: np.ndarray
    problems: dict[int, str]
    result: ChunkScores | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """The number of actors, and the CPUs and GPUs of each."""

    actors: int
    cpus: float
    gpus: float


def score_shards_on_ray(
    source: RowSource,
    scorer: ScarScorer,
    cache: bool = True,
    progress: bool = True,
    *,
    address: str | None = None,
    cpus_per_actor: float | None = None,
    gpus_per_actor: float | None = None,
    actors: int | None = None,
) -> list[ScoredRows]:
    """
    Score the shards of a source on a Ray cluster, as [`~scar_hf.runs.score_shards`] does in one process. Pass this function,
    or a `partial` of it, as `engine` to [`~scar_hf.runs.select_files`]. Both engines cut rows into the same chunks, so the
    scores are bit-identical on machines of the same kind. The score of a row that occurs in several chunks may differ in its
    last bits from the score of a single process. One task reads each shard. Ray restarts killed actors, even if their node is
    gone, and restarts a reading task up to three times. Scores go to this process's cache, so a killed run resumes where it
    stopped.

    Every node needs the same version of scar-hf, the data at the same path, and the ranker: the bundled one, a folder at
    the same path, or access to the Hub. Data without a path, such as a dataset on the Hub, is read on this process's node.

    Args:
        source ([`~scar_hf.rows.source.RowSource`]): the rows, in shards from [`~scar_hf.files.open_shards`].
        scorer ([`ScarScorer`]): the scorer. All nodes use its precision but not its device. If only the cluster has GPUs,
            create it with `dtype="bfloat16"`.
        cache (`bool`, *optional*, defaults to `True`): whether to cache scores on disk and reuse those of earlier runs.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar.
        address (`str`, *optional*): address of a running cluster, or `"auto"`. By default, the cluster on this machine; if
            there is none, one is started here for this run. A process that has called `ray.init` stays on its cluster.
        cpus_per_actor (`float`, *optional*): cores per actor; by default 4, or fewer if the smallest node has fewer.
        gpus_per_actor (`float`, *optional*): GPUs per actor, 0 for none; by default 1 if the cluster has any.
        actors (`int`, *optional*): number of actors; by default all that fit.

    Returns:
        `list[ScoredRows]`: one per shard; row numbers count over all shards.

    Raises:
        `ValueError`: if the data is invalid, the scorer is strict and rows cannot be scored, the cluster cannot be reached, or
        no node has room for an actor.
        `ImportError`: if Ray is not installed.
    """
    ray, shards = import_ray(), source.shards
    _check_numbers(cpus_per_actor, gpus_per_actor, actors)
    kept = scorer.cache() if cache else None
    totals = [shard.count_rows() for shard in shards] if progress else []
    total = None if None in totals else sum(filter(None, totals))
    with _cluster(ray, address), _quiet():
        plan = _plan(ray.nodes(), cpus_per_actor, gpus_per_actor, actors)
        parts: dict[tuple[int, int], _Part] = {}
        counts: dict[int, int] = {}
        with tqdm(total=total, desc="Scoring", unit="row", disable=hidden(progress)) as bar:
            for item in _items(ray, shards, scorer, kept, plan):
                _take(item, parts, counts, shards, scorer, kept, bar)
    return _assemble(parts, counts, shards, scorer, kept)


def import_ray() -> Any:
    """
    Import Ray with its Data library.

    Raises:
        `ImportError`: if Ray is not installed; the message contains the command that installs it.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError('Scoring on several machines needs Ray: pip install "scar-hf[ray]"') from error
    return ray


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster, and disconnect at the end unless the process was connected before."""
    if ray.is_initialized():
        yield
        return
    # A cluster started here needs no dashboard, which would open a port.
    settings = {} if address else {"include_dashboard": False}
    try:
        _check_answers(address or os.environ.get("RAY_ADDRESS", ""))
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **settings)
    except (OSError, ValueError, RuntimeError) as error:
        where = "A Ray cluster could not be started here" if address is None else f"No Ray cluster answers at {address!r}"
        raise ValueError(
            f"{where} ({error}). Pass the address of a running one, as `ray start --head` prints it, or none to start one."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise an `OSError` if nothing listens at `HOST:PORT`; Ray itself would wait for minutes."""
    if match := _HOST_AND_PORT.fullmatch(address):
        with socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=10):
            pass


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ray Data's log of its plans and its tracebacks of errors that are raised here anyway."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _plan(nodes: Sequence[dict[str, Any]], cpus: float | None, gpus: float | None, actors: int | None) -> _Plan:
    """Choose the actors for the nodes of a cluster."""
    sizes = [(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes if node["Alive"]]
    if gpus is None:
        gpus = 1.0 if any(of_node >= 1 for _, of_node in sizes) else 0.0
    able = [(c, g) for c, g in sizes if c > 0 and g >= gpus]
    if cpus is None:
        # With GPUs, the actors on a node share its cores equally.
        shares = [c / (g // gpus) if gpus else c for c, g in able]
        cpus = min([_CPUS_PER_ACTOR, *shares])
    # The small term corrects for floating-point error: 0.3 / 0.1 is less than 3.
    fitting = sum(math.floor(min(c / cpus, g / gpus if gpus else math.inf) + 1e-9) for c, g in able)
    if not fitting:
        has = "; ".join(f"{c:g} CPUs, {g:g} GPUs" for c, g in sizes)
        raise ValueError(f"No node has room for an actor with {cpus:g} CPUs and {gpus:g} GPUs. The nodes have: {has}.")
    return _Plan(actors or fitting, cpus, gpus)


def _items(
    ray: Any, shards: Sequence[Shard], scorer: ScarScorer, kept: ScoreCache | None, plan: _Plan
) -> Iterator[dict[str, Any]]:
    """Run the pipeline, shards -> chunks -> scores, and yield items as they finish."""
    if not shards:
        return
    from .ray_tasks import ScoringActor, ShardSource, Work, restore_scorer, without_rows

    state = scorer.__getstate__()
    if scorer.model_name not in BUNDLED_RANKERS and Path(scorer.model_name).exists():
        state["model"] = str(Path(scorer.model_name).absolute())
    options = {name: getattr(scorer.settings, name) for name in ("tokens_per_batch", "attn_implementation")}
    reader = restore_scorer(state, options)
    known = np.empty(0, dtype=np.uint64) if kept is None else kept.known()
    work = ray.put(Work(without_rows(shards), reader, known))
    reading: dict[str, Any] = {"num_cpus": _CPUS_FOR_READING}
    if any(shard.path is None for shard in shards):
        # The files of such rows are on this node, which may have no CPUs in the cluster.
        reading = {"num_cpus": 0, "label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # bytes: each item becomes a separate block
    with ray.data.DataContext.current(context):
        dataset = ray.data.read_datasource(ShardSource(len(shards), work), override_num_blocks=len(shards), **reading)
        dataset = dataset.map_batches(
            ScoringActor,
            fn_constructor_args=(state, options, "cuda" if plan.gpus else "cpu", max(1, math.ceil(plan.cpus))),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=max(plan.cpus - _CPUS_FOR_READING, plan.cpus / 2),
            num_gpus=plan.gpus,
            # The pool may shrink: an actor whose node is gone waits for room on other nodes.
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=plan.actors,
                initial_size=plan.actors,
                max_concurrent_calls_per_actor=_CHUNKS_AT_A_TIME,
                enable_true_multi_threading=True,
            ),
        )
        batches = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
        # An error here must not leave the pipeline running.
        with closing(batches), _own_errors(ray):
            for table in batches:
                yield from table.to_pylist()


@contextmanager
def _own_errors(ray: Any) -> Iterator[None]:
    """Raise errors of a `formatting_func` unchanged, and name the remedy if the cluster fails."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
        if isinstance(cause, Exception) and not isinstance(cause, ray.exceptions.RayError):
            raise cause from None
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise OSError(
            f"The Ray cluster could not go on: {type(error).__name__}: {lines[0] if lines else ''} [...] "
            f"{lines[-1] if lines else ''} The same command goes on where it stopped, unless the cache is off."
        ) from error


def _take(
    item: dict[str, Any],
    parts: dict[tuple[int, int], _Part],
    counts: dict[int, int],
    shards: Sequence[Shard],
    scorer: ScarScorer,
    kept: ScoreCache | None,
    bar: tqdm,
) -> None:
    """Store the result of an item, or raise its error."""
    kind, place = item["kind"], (item["shard"], item["chunk"])
    if kind == "end":
        counts[item["shard"]] = item["chunk"]
        return
    if kind.endswith("_error"):
        name, _, message = item["error"].partition(":")
        if kind == "read_error":
            _raise_as_in_one_process(shards, scorer)
            where = shards[item["shard"]].path
            message = f"{message} (on another node; {where} must lie at the same path on all of them, and be the same)"
        raise {"ImportError": ImportError, "OSError": OSError}.get(name, ValueError)(message)
    digests = [item["digests"][i : i + 16] for i in range(0, len(item["digests"]), 16)]
    problems = {int(i): text for i, text in json.loads(item["problems"]).items()}
    places = np.frombuffer(item["places"], dtype=np.int64)
    result, is_known = ChunkScores.empty(len(digests)), np.ones(len(digests), dtype=bool)
    if len(places):
        found = ChunkScores(np.frombuffer(item["scores"], dtype=np.float32), np.frombuffer(item["truncated"], dtype=bool))
        result.scores[places], result.truncated[places] = found.scores, found.truncated
        if kept is not None:
            kept.put([digests[i] for i in places], found)
    rest = np.setdiff1d(np.arange(len(digests)), [*places, *problems]).astype(np.int64)
    if len(rest):
        assert kept is not None
        is_known[rest], found = kept.get([digests[i] for i in rest])
        result.scores[rest], result.truncated[rest] = found.scores, found.truncated
    if place not in parts:
        bar.update(len(digests))
    parts[place] = _Part(Chunk([], digests).row_hashes, problems, result if is_known.all() else None)


def _raise_as_in_one_process(shards: Sequence[Shard], scorer: ScarScorer) -> None:
    """Read the rows again up to the first error, because its message must count rows over all shards."""
    seen = 0
    for shard in shards:
        for chunk in cut_chunks(rows_of_shard(shard, scorer.reader)):
            if scorer.settings.strict:
                check_rows(chunk.rows, seen)
            seen += len(chunk.rows)


def _assemble(
    parts: dict[tuple[int, int], _Part],
    counts: dict[int, int],
    shards: Sequence[Shard],
    scorer: ScarScorer,
    kept: ScoreCache | None,
) -> list[ScoredRows]:
    """Join the chunks in the order of the rows."""
    scored, start = [], 0
    for i, shard in enumerate(shards):
        found = [parts.get((i, chunk)) for chunk in range(counts.get(i, 0))]
        whole = [part for part in found if part is not None and part.result is not None]
        if i not in counts or len(whole) < len(found):
            # Some scores in the cache were damaged, so the shard is scored here.
            scored.append(score_rows(scorer, rows_of_shard(shard, scorer.reader), kept, None, start))
        else:
            scored.append(_joined(whole, start))
        start += len(scored[-1].scores)
    return scored


def _joined(parts: Sequence[_Part], start: int) -> ScoredRows:
    scores, truncated, hashes = [np.empty(0, np.float32)], [np.empty(0, np.bool_)], [np.empty(0, np.uint64)]
    skipped, number = {}, start
    for part in parts:
        assert part.result is not None
        scores.append(part.result.scores)
        truncated.append(part.result.truncated)
        hashes.append(part.hashes)
        for i in map(int, np.flatnonzero(np.isnan(part.result.scores))):
            skipped[number + i] = part.problems.get(i) or NOT_FINITE
        number += len(part.hashes)
    return ScoredRows(np.concatenate(scores), np.concatenate(truncated), np.concatenate(hashes), skipped)


def _check_numbers(cpus: float | None, gpus: float | None, actors: int | None) -> None:
    if cpus is not None and not cpus > 0:
        raise ValueError(f"`cpus_per_actor` must be more than 0, got {cpus!r}.")
    if gpus is not None and not gpus >= 0:
        raise ValueError(f"`gpus_per_actor` must be 0 or more, got {gpus!r}.")
    if actors is not None and actors < 1:
        raise ValueError(f"`actors` must be 1 or more, got {actors!r}.")
