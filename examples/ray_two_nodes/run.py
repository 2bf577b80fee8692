"""Select on a Ray cluster of two nodes, kill an actor during the run, and compare with one process, byte for byte."""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.cluster_utils import Cluster

from scar_hf import ScarScorer
from scar_hf.distributed import score_shards_on_ray
from scar_hf.runs import select_files

DATA = Path(__file__).resolve().parent.parent / "mixed_styles" / "mixed_styles.jsonl"
ACTOR = b"ray::MapWorker(MapBatches(ScoringActor)).submit"  # name that Ray gives to the process of a working actor
SHARDS, COPIES = 6, 3


def write_shards(folder: Path) -> None:
    """Write the demo's rows as Parquet files; copies get a number, because equal texts are scored only once."""
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    many = [
        {**row, "instruction": f"{row['instruction']} ({i})" if i else row["instruction"]}
        for i in range(COPIES)
        for row in rows
    ]
    many[5]["response"] = " "  # a row that cannot be scored
    folder.mkdir()
    for i in range(SHARDS):
        pq.write_table(pa.Table.from_pylist(many[i::SHARDS]), folder / f"part-{i}.parquet")


def start_cluster() -> Cluster:
    """Start two nodes of one CPU each on this machine."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    return cluster


def actors_at_work(cluster: Cluster) -> list[tuple[int, int]]:
    """Return process and node (that is, its raylet's process) of each scoring actor that holds rows."""
    raylets = {process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes["raylet"]}
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(ACTOR):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found += [(int(folder.name), parent)] if parent in raylets else []
        except OSError:
            continue  # the process has ended
    return found


def watch(cluster: Cluster, seen: dict[str, set[int]], stop: threading.Event) -> None:
    """Note on which nodes actors work, and kill the first one that does."""
    while not stop.wait(0.02):
        for pid, node in actors_at_work(cluster):
            seen["nodes"].add(node)
            if not seen["killed"]:
                time.sleep(0.2)  # so that it is in the middle of its work
                os.kill(pid, signal.SIGKILL)
                seen["killed"].add(pid)


def files_of(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def main() -> int:
    """Run both engines, and report whether they agree."""
    # An actor that restarts after the kill loads its libraries again; use one thread each, because a node has one CPU.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="scar-hf-ray-") as name:
        root = Path(name)
        write_shards(root / "data")
        scorer = ScarScorer.from_pretrained("scar-ranker", device="cpu", dtype="float32", max_length=64)
        outputs = [root / "one" / "best", root / "ray" / "best"]

        print("One process ...", flush=True)
        os.environ["SCAR_HF_CACHE"] = str(root / "cache-one")
        started = time.perf_counter()
        result = select_files(root / "data", outputs[0], scorer, 0.1, explain=True, progress=False)
        print(f"  {result.rows:,} rows, {result.kept:,} kept, {time.perf_counter() - started:.1f} s", flush=True)

        print("Ray, two nodes ...", flush=True)
        os.environ["SCAR_HF_CACHE"] = str(root / "cache-ray")  # keeps the runs from sharing cached scores
        cluster, stop = start_cluster(), threading.Event()
        seen: dict[str, set[int]] = {"nodes": set(), "killed": set()}
        try:
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            watcher = threading.Thread(target=watch, args=(cluster, seen, stop))
            watcher.start()
            started = time.perf_counter()
            try:
                select_files(root / "data", outputs[1], scorer, 0.1, explain=True, progress=False, engine=score_shards_on_ray)
            finally:
                stop.set()
                watcher.join()
        finally:
            ray.shutdown()
            cluster.shutdown()
        print(f"  the same, {time.perf_counter() - started:.1f} s with the start of the actors", flush=True)

        one, other = (files_of(output) for output in outputs)
        identical = one == other
        print(f"nodes used: {len(seen['nodes'])}")
        print(f"actor killed: {', '.join(map(str, seen['killed'])) or 'none'}")
        print(f"files compared: {len(one)}")
        print(f"identical: {'yes' if identical else 'no'}")
        return 0 if identical and seen["killed"] else 1


if __name__ == "__main__":
    sys.exit(main())
