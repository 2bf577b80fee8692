"""Scoring on Ray gives the bytes of one process, also when actors are killed: on a cluster of two nodes on this machine."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from transformers import AutoTokenizer, BertConfig

from scar_hf import ScarConfig, ScarModel, ScarScorer
from scar_hf.distributed import score_shards_on_ray
from scar_hf.files import Shard, open_shards
from scar_hf.rows.pairs import PairReader
from scar_hf.rows.source import RowSource
from scar_hf.runs import score_shards, select_files
from scar_hf.scoring.cache import ChunkScores
from scar_hf.scoring.checkpoints import resolve_checkpoint
from scar_hf.selecting.criteria import Criteria

# Ray would report how it is used.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

pytestmark = [
    # sockets and pipes of Ray's own processes, which the collector finds after the cluster has gone
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # of settings that Ray itself still gives a value
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
    # Ray tells of a change to come in a variable that it sets itself
    pytest.mark.filterwarnings("ignore:.*accelerator visible devices.*:FutureWarning"),
]
ACTOR = b"ray::MapWorker(MapBatches(ScoringActor)).submit"


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each, and this process connected to them."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def ranker(tmp_path_factory) -> str:
    """A small ranker with random weights on disk."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint("scar-ranker"))
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    encoder = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape)
    folder = tmp_path_factory.mktemp("ranker")
    ScarModel(ScarConfig(encoder_config=encoder, max_length=64)).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def make_scorer(ranker):
    return lambda **settings: ScarScorer(ranker, device="cpu", dtype="float32", **settings)


def make_rows(count: int, seed: int) -> list[dict]:
    """Rows of many lengths; of every hundred one cannot be scored."""
    words = np.random.default_rng(seed).integers(2, 40, size=count)
    return [
        {
            "id": i,
            "instruction": f"Tell me about thing {seed}-{i}.",
            "response": (" ", None)[i // 100 % 2] if i % 100 == 7 else "It is well known. " * int(n),
        }
        for i, n in enumerate(words)
    ]


def write_shards(folder: Path, suffix: str, sizes: tuple[int, ...]) -> Path:
    folder.mkdir()
    for seed, size in enumerate(sizes):
        rows, path = make_rows(size, seed), folder / f"part-{seed}{suffix}"
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_same(found, expected) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in ("scores", "truncated", "hashes"):
            assert getattr(one, name).dtype == getattr(other, name).dtype
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes()
        assert one.skipped == other.skipped


def kill_an_actor(cluster, killed: list[int], stop: threading.Event) -> None:
    """Kill the first actor of the cluster that is at work."""
    raylets = {process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes["raylet"]}
    while not killed and not stop.wait(0.01):
        for folder in Path("/proc").iterdir():
            try:
                if not folder.name.isdigit() or not (folder / "cmdline").read_bytes().startswith(ACTOR):
                    continue
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
            if parent in raylets:
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(int(folder.name))
                return


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the actor's process in /proc")
def test_output_is_the_same_when_an_actor_is_killed(cluster, make_scorer, tmp_path, monkeypatch):
    data = write_shards(tmp_path / "data", ".parquet", (2500, 1200, 40))
    monkeypatch.chdir(tmp_path)  # paths are relative to a folder that no worker is in
    killed: list[int] = []
    stop = threading.Event()
    watcher = threading.Thread(target=kill_an_actor, args=(cluster, killed, stop))
    watcher.start()
    settings = {"cache": False, "progress": False, "explain": True}
    try:
        select_files("data", tmp_path / "ray" / "best", make_scorer(), 0.1, engine=score_shards_on_ray, **settings)
    finally:
        stop.set()
        watcher.join()
    assert killed
    result = select_files("data", tmp_path / "one" / "best", make_scorer(), 0.1, **settings)
    assert result.rows == 3740 and len(result.scored.skipped) == 25 + 12 + 1
    found = files_of(tmp_path / "ray")
    assert "best/skipped.jsonl" in found and found == files_of(tmp_path / "one")
    assert data.is_dir()


def test_a_prefilter_gives_the_same_bytes(cluster, make_scorer, tmp_path, monkeypatch):
    write_shards(tmp_path / "data", ".jsonl", (900, 300))
    monkeypatch.chdir(tmp_path)
    criteria = Criteria(0.05, prefilter=0.2)
    for name, engine in (("ray", partial(score_shards_on_ray, actors=1)), ("one", score_shards)):
        result = select_files(
            "data", tmp_path / name / "best", make_scorer(), criteria, engine=engine, cache=False, progress=False, explain=True
        )
        assert np.isnan(result.scored.scores).sum() > 500, "the ranker has scored only a part of the rows"
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "one")


def test_scores_are_found_in_the_cache_and_damaged_ones_computed_again(cluster, make_scorer, tmp_path, monkeypatch):
    source = RowSource(open_shards(write_shards(tmp_path / "data", ".jsonl", (1500, 0, 30))), PairReader())
    expected = score_shards(source, make_scorer(), cache=False, progress=False)
    monkeypatch.setenv("SCAR_HF_CACHE", str(tmp_path / "cache"))
    assert_same(score_shards_on_ray(source, make_scorer(), progress=False, actors=1), expected)
    # Other scores in the cache come back: nothing was computed. Missing and damaged ones are.
    scorer = make_scorer()
    (database,) = (tmp_path / "cache" / "scores").iterdir()
    rows = list(source.rows())
    cache, digests = scorer.cache(), [row.digest() for row in rows]
    found, known = cache.get(digests)
    assert found.sum() == sum(row.problem is None for row in rows)
    known.scores[found] += 1
    cache.put(
        [digest for digest, is_in in zip(digests, found, strict=True) if is_in],
        ChunkScores(known.scores[found], known.truncated[found]),
    )
    with closing(sqlite3.connect(database)) as db, db:
        numbers = [int.from_bytes(digest[:8], "little", signed=True) for digest in digests]
        db.execute("DELETE FROM scores_1 WHERE row = ?", (numbers[3],))
        db.execute("UPDATE scores_1 SET value = x'00' WHERE row = ?", (numbers[1510],))
    found = score_shards_on_ray(source, scorer, progress=False, actors=1)
    together, before = (np.concatenate([part.scores for part in parts]) for parts in (found, expected))
    np.testing.assert_allclose(together[[3, 1510]], before[[3, 1510]], atol=1e-4)
    others = np.delete(np.arange(len(rows)), [3, 1510])
    np.testing.assert_array_equal(together[others], before[others] + 1)


def test_rows_without_a_path_and_a_function_of_ones_own(cluster, make_scorer):
    shards = [Shard("someone/a-set", None, Dataset.from_list(make_rows(300, 0)))]
    scorer = make_scorer(formatting_func=lambda row: (row["instruction"], row["response"]), tokens_per_batch=256)
    source = RowSource(shards, scorer.reader)
    found = score_shards_on_ray(source, scorer, cache=False, progress=False, actors=1)
    assert_same(found, score_shards(source, scorer, cache=False, progress=False))


def test_errors_are_those_of_one_process(cluster, make_scorer, tmp_path):
    shards = open_shards(write_shards(tmp_path / "data", ".jsonl", (5, 300)))
    messages = []
    for engine in (score_shards, partial(score_shards_on_ray, actors=1)):
        with pytest.raises(ValueError, match="row 12: the response is empty") as caught:
            engine(RowSource(shards, PairReader()), make_scorer(strict=True), cache=False, progress=False)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]

    def formatting_func(row):
        raise KeyError("no such thing")

    scorer = make_scorer(formatting_func=formatting_func)
    with pytest.raises(KeyError, match="no such thing"):
        score_shards_on_ray(RowSource(shards, scorer.reader), scorer, cache=False, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus_per_actor": 64}, "No node has room for an actor with 64 CPUs and 0 GPUs.*1 CPUs, 0 GPUs; 1 CPUs"),
        ({"cpus_per_actor": 0}, "`cpus_per_actor` must be more than 0, got 0"),
        ({"gpus_per_actor": -1}, "`gpus_per_actor` must be 0 or more, got -1"),
        ({"actors": 0}, "`actors` must be 1 or more, got 0"),
    ],
)
def test_what_no_node_can_give_is_refused(cluster, make_scorer, settings, message):
    with pytest.raises(ValueError, match=message):
        score_shards_on_ray(RowSource([], PairReader()), make_scorer(), cache=False, progress=False, **settings)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nonsense"])
def test_a_bad_address_is_named(cluster, make_scorer, monkeypatch, address):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match=f"No Ray cluster answers at '{address}'"):
        score_shards_on_ray(RowSource([], PairReader()), make_scorer(), cache=False, progress=False, address=address)


def test_actors_are_planned_by_the_nodes():
    from scar_hf.distributed.ray_engine import _plan

    def nodes(*sizes):
        return [{"Alive": True, "Resources": {"CPU": c, "GPU": g}} for c, g in sizes] + [{"Alive": False, "Resources": {}}]

    def planned(*sizes, **settings):
        plan = _plan(nodes(*sizes), *(settings.get(name) for name in ("cpus", "gpus", "actors")))
        return plan.actors, plan.cpus, plan.gpus

    assert planned((0.0, 0.0), (16.0, 0.0), (6.0, 0.0)) == (5, 4, 0)
    assert planned((1.0, 0.0), (8.0, 0.0)) == (9, 1, 0)
    assert planned((8.0, 0.0), (8.0, 4.0), (64.0, 2.0)) == (6, 2, 1)
    assert planned((16.0, 1.0), gpus=0.25, cpus=2) == (4, 2, 0.25)
    assert planned((16.0, 1.0), gpus=0) == (4, 4, 0)
    assert planned((16.0, 0.0), actors=2) == (2, 4, 0)


def test_without_ray_there_is_a_command_to_install_it(make_scorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "scar-hf\[ray\]"'):
        score_shards_on_ray(RowSource([], PairReader()), make_scorer(), cache=False, progress=False)


def test_ray_is_imported_only_when_it_is_used():
    code = "import sys, scar_hf, scar_hf.distributed; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
