"""What a file or a row may do to the machine: fill its memory, talk to its terminal, hang its workers."""

import gc
import gzip
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import pipeline

from scar_hf import ScarScorer, files
from scar_hf.cli import main
from scar_hf.cli.terminal import printable
from scar_hf.files import batches, open_shards, read_dataset
from scar_hf.files import text as text_files
from scar_hf.files.parquet_pages import measure_pages
from scar_hf.rows.pairs import RowPairs
from scar_hf.runs import select_files
from scar_hf.scoring.chunks import cut_chunks

HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\u202eevil\x9b31m"


def memory_of_reading(path) -> tuple[int, int]:
    """Rows of a file, and megabytes that a process takes to read it."""
    code = (
        "import re, resource, sys\n"
        "from pathlib import Path\n"
        "from scar_hf.files import open_shards, read_dataset\n"
        "rows = sum(len(batch) for batch in open_shards(sys.argv[1])[0].batches())\n"
        # Linux counts the memory of the process that started this one in ru_maxrss.
        "status = Path('/proc/self/status')\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', status.read_text()) if status.exists() else None\n"
        "print(rows, (int(peak[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // 1000)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    rows, megabytes = map(int, found.stdout.split())
    return rows, megabytes


def test_rows_cannot_command_the_terminal(tmp_path, small, write_jsonl, capsys):
    rows = [{"instruction": f"{HOSTILE} {i}", "response": f"{HOSTILE} {i}", "source": HOSTILE} for i in range(6)]
    data, out = write_jsonl(rows), tmp_path / "[/x] [bold].jsonl"
    common = ["-k", "2", "--model", small.model_name]
    assert main(["select", str(data), "-o", str(out), "--group-by", "source", *common]) == 0
    assert main(["explain", str(data), "--row", "1", *common]) == 0
    assert main(["verify", str(out)]) == 0
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said) and "\\x1b" in said and "[/x]" in said
    assert printable("a\nb\tc") == "a\nb\tc" and printable("\ud800") == "\ufffd"


def test_reasons_that_are_published_hold_no_path(tmp_path, small, write_jsonl):
    rows = [
        {"instruction": f"Tell of {word}.", "response": f"All about {word} is well known. " * 3} for word in ("bees", "tides")
    ]
    data = write_jsonl(rows)
    test = write_jsonl(rows[:1], "test.jsonl")
    assert main(["select", str(data), "-k", "1", "-o", str(tmp_path / "o.jsonl"), "--evaluation", str(test), "--quiet",
                 "--model", small.model_name]) == 0  # fmt: skip
    listed = (tmp_path / "o.jsonl.dropped.jsonl").read_text()
    assert "of test.jsonl" in listed and str(tmp_path) not in listed


LONG_ROW = "the row is longer than 100,000 bytes"


def formatted(name: str, rows: list[dict]) -> bytes:
    """Rows as the bytes of a file of that name."""
    if name.endswith(".parquet"):
        out = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), out, compression="zstd")
        return out.getvalue().to_pybytes()
    if name == "d.csv":
        cell = '"{}"'.format
        lines = [",".join(cell(text.replace('"', '""')) for text in texts) for texts in [rows[0], *(r.values() for r in rows)]]
        return "\n".join(lines).encode()
    lines = [json.dumps(row) for row in rows]
    content = (f"[{','.join(lines)}]" if name == "d.json" else "\n".join(lines)).encode()
    return gzip.compress(content) if name.endswith(".gz") else content


@pytest.mark.parametrize("place", [0, 1100])
@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json", "d.csv", "d.parquet"])
def test_a_row_of_endless_length_is_skipped_with_a_reason(name, place, tmp_path, small, monkeypatch):
    monkeypatch.setattr(batches, "MAX_ROW", 100_000)
    monkeypatch.setattr(text_files, "_CHUNK", 1000)
    rows = [{"instruction": f"q {i}", "response": f'an "answer", {i}\n\\'} for i in range(1200)]
    rows[place]["response"] = 'x\\"\n, {[' * 30_000
    (tmp_path / name).write_bytes(formatted(name, rows))
    result = select_files(tmp_path / name, tmp_path / "o.jsonl", small, all_rows=True, observe=True, progress=False)
    assert result.rows == 1200 and result.scored.skipped == {place: LONG_ROW}
    written = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row.get("instruction") for row in written] == [None if i == place else f"q {i}" for i in range(1200)]
    alone = small.score([rows[-2]["instruction"]], [rows[-2]["response"]])
    assert result.scored.scores[-2] == pytest.approx(float(alone[0]), abs=1e-4)


def test_invalid_json_of_any_length_is_not_taken_for_a_long_row(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "MAX_ROW", 1000)
    monkeypatch.setattr(text_files, "_CHUNK", 100)
    (tmp_path / "d.json").write_text('[{"a": tru},' + '{"a": "b"},' * 1000 + '{"a": 1}]')
    with pytest.raises(ValueError, match=r"not valid JSON \(item 1"):
        list(open_shards(tmp_path / "d.json")[0].batches())


def test_batches_end_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_BYTES", 100_000)
    rows = [{"instruction": "q", "response": "x" * 30_000} for _ in range(20)]
    for name in ("d.jsonl", "d.json", "d.csv", "d.parquet"):
        (tmp_path / name).write_bytes(formatted(name, rows))
        sizes = [len(batch) for batch in open_shards(tmp_path / name)[0].batches()]
        assert sum(sizes) == 20 and max(sizes) == 3


LEAVES = ("messages.list.element.role", "messages.list.element.content", "more.x", "tags.list.element")
WRITTEN = {
    "dictionaries": {},
    "plain": {"use_dictionary": False},
    "prefixes": {"use_dictionary": False, "column_encoding": dict.fromkeys(LEAVES, "DELTA_BYTE_ARRAY")},
    "new pages": {"data_page_version": "2.0", "row_group_size": 7},
}


@pytest.mark.parametrize("how", WRITTEN)
def test_long_rows_of_parquet_are_found_in_any_column_and_encoding(how, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "MAX_ROW", 10_000)
    monkeypatch.setattr(batches, "BATCH_BYTES", 20_000)
    text, long = "y" * 900, "z" * 6_000
    rows = [
        {"messages": [{"role": "user", "content": text}] * (i % 5), "more": {"x": long}, "tags": [long] * (i == 13)}
        for i in range(40)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet", **WRITTEN[how])
    found = [row for batch in open_shards(tmp_path / "d.parquet")[0].batches() for row in files.batches.rows_of(batch)]
    assert [row == {} for row in found] == [i == 13 for i in range(40)]
    assert [row for row in found if row] == [row for i, row in enumerate(rows) if i != 13]
    few = list(open_shards(tmp_path / "d.parquet")[0].batches(columns=["messages"]))
    assert sum(map(len, few)) == 40 and all(batch.column_names == ["messages"] for batch in few)


def test_a_list_that_repeats_a_text_does_not_fill_the_memory(tmp_path):
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3000 + [1], pa.int32()), pa.array(["x" * 1_000_000, "short"]))
    table = pa.table(
        {"instruction": ["q", "q"], "response": ["a", "b"], "more": pa.ListArray.from_arrays([0, 3000, 3001], texts)}
    )
    pq.write_table(table, tmp_path / "d.parquet", store_schema=False)
    rows, megabytes = memory_of_reading(tmp_path / "d.parquet")
    assert rows == 2 and megabytes < 1000


@pytest.mark.parametrize("name", ["d.jsonl.gz", "d.csv", "d.parquet"])
def test_what_a_file_expands_to_can_be_bounded(name, tmp_path):
    (tmp_path / name).write_bytes(formatted(name, [{"instruction": "q", "response": "x" * 1000}] * 5000))
    assert len(read_dataset(tmp_path / name)) == 5000
    assert 1500 <= len(read_dataset(tmp_path / name, max_rows=1500, max_bytes=3_000_000)) < 3000
    with pytest.raises(ValueError, match="more than 3 MB of text when decompressed"):
        read_dataset(tmp_path / name, max_bytes=3_000_000)


def test_empty_rows_by_the_thousand_are_counted(tmp_path, small, write_jsonl):
    rows = [{}] * 2500 + [{"instruction": "q", "output": "a"}] + [{}] * 2500 + [{"other": 1}] * 2500
    result = select_files(write_jsonl(rows), tmp_path / "o.jsonl", small, 1, observe=True, progress=False)
    assert result.rows == 7501 and result.kept == 1 and len(result.scored.skipped) == 7500
    only = write_jsonl([{}] * 1500, "only.jsonl")
    with pytest.raises(ValueError, match="Nothing can be selected from 1,500 rows"):
        select_files(only, tmp_path / "p.jsonl", small, 1, progress=False)


def test_a_dictionary_of_one_long_text_does_not_fill_the_memory(tmp_path):
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"instruction": ["q"] * 2000, "response": texts}), tmp_path / "d.parquet", compression="zstd")
    assert (tmp_path / "d.parquet").stat().st_size < 100_000
    rows, megabytes = memory_of_reading(tmp_path / "d.parquet")
    assert rows == 2000 and megabytes < 1500


def test_chunks_end_by_the_length_of_their_texts_too():
    rows = [RowPairs((("q", str(i) + "x" * 9_000_000),)) for i in range(9)]
    assert [len(chunk.rows) for chunk in cut_chunks(rows)] == [4, 4, 1]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # two workers, even on a single core
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_scorer_that_was_used_scores_in_forked_workers(backend, tiny_ranker):
    pytest.importorskip("openvino" if backend == "openvino" else "torch")
    scorer = ScarScorer(str(tiny_ranker), device="cpu", dtype="float32", backend=backend)
    pairs = [(f"Say {i}.", f"It is {i}. " * (i + 1)) for i in range(8)]
    expected = scorer.score(*zip(*pairs, strict=True))

    class Scored:
        def __len__(self):
            return len(pairs)

        def __getitem__(self, i):
            return scorer.score(*pairs[i])

    for _ in range(2):
        loader = DataLoader(Scored(), num_workers=2, multiprocessing_context="fork", timeout=60)
        np.testing.assert_allclose([float(score) for score in loader], expected, atol=1e-5)
        np.testing.assert_array_equal(scorer.score(*zip(*pairs, strict=True)), expected)  # the parent is as it was


def test_the_pipeline_takes_a_dataset(tiny_ranker, small, rows):
    ds = Dataset.from_list(rows)
    ranker = pipeline("scar-ranking", model=str(tiny_ranker), device="cpu")
    found = [result["score"] for result in ranker(ds)]
    np.testing.assert_allclose(found, small.score(ds["instruction"][:], ds["response"][:]), atol=1e-5)


def test_a_device_that_is_not_there_and_a_column_named_twice_are_said_in_words(small, write_jsonl, rows, tmp_path, capsys):
    data = str(write_jsonl(rows))
    common = [data, "-k", "1", "-o", str(tmp_path / "o.jsonl"), "--model", small.model_name]
    for option, message in (("cuda:99", "There is no device 'cuda:99'"), ("quantum", "must be a device of PyTorch")):
        assert main(["select", *common, "--device", option]) == 2
        assert message in capsys.readouterr().err
    assert main(["select", *common, "--columns", "response,response"]) == 2
    assert "got 'response' twice" in capsys.readouterr().err


def test_threads_that_scored_outlast_the_scorer(tiny_ranker):
    """If one were ending during a fork, the new process could wait for a lock of MKL forever."""
    scorer = ScarScorer(str(tiny_ranker), device="cpu", dtype="float32", backend="torch")
    for text in ("one", "two", "three"):
        scorer.score("Count.", text)
    before = {thread for thread in threading.enumerate() if thread.name.startswith("scar-")}
    assert {thread.name.partition("_")[0] for thread in before} == {"scar-chunk", "scar-encoder"}
    ScarScorer("scar-ranker-fast", device="cpu").score("Count.", "one")  # takes the place of the last ranker
    del scorer
    gc.collect()
    time.sleep(0.1)
    assert all(thread.is_alive() for thread in before)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals")
def test_a_signal_arrives_after_another_thread_freed_a_ranker(tiny_ranker):
    """OpenVINO changes the signal stack of the thread that compiles."""
    pytest.importorskip("openvino")
    code = (
        "import os, signal, sys, threading\n"
        "from scar_hf import ScarScorer\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('arrived'))\n"
        "scorers = [ScarScorer.from_pretrained(sys.argv[1], backend='openvino', dtype='float32')]\n"
        "def free():\n"
        "    scorers.clear()\n"
        "    ScarScorer('scar-ranker-fast').score('Say hello.', 'Hello!')  # takes the place of the last ranker\n"
        "thread = threading.Thread(target=free)\n"
        "thread.start()\n"
        "thread.join()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tiny_ranker], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "arrived\n", run.stderr[-2000:]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("freed_by", ["another ranker", "garbage collection"])
def test_a_forked_process_frees_the_rankers_of_its_parent(freed_by, tiny_ranker, tmp_path):
    pytest.importorskip("openvino")
    shutil.copytree(tiny_ranker, tmp_path / "other")
    settings = {"backend": "openvino", "dtype": "float32"}
    scorer = ScarScorer(str(tiny_ranker), **settings)
    expected = scorer.score("Say hello.", "Hello!")
    if freed_by == "garbage collection":
        gc.disable()
        scorer.itself = scorer
        ScarScorer(str(tmp_path / "other"), **settings)
    del scorer

    def run():
        other = ScarScorer(str(tmp_path / "other"), **settings)
        gc.collect()
        assert other.score("Say hello.", "Hello!") == pytest.approx(expected)

    worker = multiprocessing.get_context("fork").Process(target=run)
    worker.start()
    gc.enable()
    worker.join(60)
    worker.kill()
    assert worker.exitcode == 0  # None if it still waits


def test_a_forked_process_without_the_converted_model_says_so_at_once(tiny_ranker, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("SCAR_HF_CACHE", str(tmp_path / "cache"))
    scorer = ScarScorer(str(tiny_ranker), backend="openvino", dtype="float32", max_length=40)
    scorer.score("Say hello.", "Hello!")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="is no longer in"):
        scorer.score("Say goodbye.", "Goodbye!")


@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_are_measured_decompressed(compression, version, tmp_path):
    texts = [f"{i:04}" + "a" * 5000 for i in range(400)]
    path = tmp_path / "d.parquet"
    table = pa.table({"text": texts, "number": range(400)})
    pages = {"data_page_version": version, "data_page_size": 100_000, "write_batch_size": 10}
    pq.write_table(table, path, compression=compression, use_dictionary=False, **pages)
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
    measured = measure_pages(path, group, [0])
    assert 400 * 5004 <= measured.total <= 400 * 5020
    assert 100_000 <= measured.longest < 200_000
    assert measure_pages(path, group, [0, 1]).total > measured.total
