"""Runs that are cut short, repeated or overtaken by others: nothing is computed twice, nothing half-written is published."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from scar_hf.cli import main
from scar_hf.files import read_dataset
from scar_hf.runs import select_files
from scar_hf.scoring.cache import ScoreCache

run_data = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "run_data.py")))
many_rows, write_shards, contents = run_data.many_rows, run_data.write_shards, run_data.contents


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SCAR_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_second_run_computes_nothing_and_a_grown_one_little(tmp_path, small, fresh_cache, monkeypatch):
    rows = many_rows(9000)
    data = write_shards(tmp_path / "data", rows, 3)
    select_files(data, tmp_path / "first.jsonl", small, 0.1, progress=False)
    encoded = []
    encode = small._encoder.encode
    monkeypatch.setattr(small._encoder, "encode", lambda ids, on: encoded.append(len(ids)) or encode(ids, on))
    select_files(data, tmp_path / "second.jsonl", small, 0.2, progress=False)
    assert encoded == []
    grown = tmp_path / "grown.jsonl"
    grown.write_text("".join(json.dumps(row) + "\n" for row in rows[:3000]))
    select_files(grown, tmp_path / "third.jsonl", small, 0.1, progress=False)
    assert sum(encoded) == 0  # the same rows in another format
    inserted = [*rows[:10], *many_rows(5, seed=1), *rows[10:3000]]
    grown.write_text("".join(json.dumps(row) + "\n" for row in inserted))
    select_files(grown, tmp_path / "fourth.jsonl", small, 0.1, progress=False)
    assert 0 < sum(encoded) <= 2 * 5  # the new rows, and no other


def test_a_damaged_cache_is_computed_again(tmp_path, small, fresh_cache, write_jsonl, caplog):
    data = write_jsonl(many_rows(50))
    select_files(data, tmp_path / "a.jsonl", small, 5, progress=False)
    for damage in (lambda b: b[:-3], lambda b: b[:-40] + b"\xff" * 40, lambda b: b[:40] + b"?" * 60 + b[100:], lambda b: b"?"):
        (entry,) = (fresh_cache / "scores").iterdir()
        entry.write_bytes(damage(entry.read_bytes()))
        select_files(data, tmp_path / "b.jsonl", small, 5, overwrite=True, progress=False)
        assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert "will be computed again" in caplog.text


def test_a_cache_that_cannot_be_written_costs_no_result(tmp_path, small, write_jsonl, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = ScoreCache(small.identity(), tmp_path / "file")
    chunks = list(small.score_chunks([], cache))
    assert chunks == []
    scores = small.score(["q"], ["a"])
    from scar_hf.rows.pairs import RowPairs
    from scar_hf.scoring.datasets import score_rows

    found = score_rows(small, [RowPairs((("q", "a"),))], cache)
    np.testing.assert_array_equal(found.scores, scores)
    assert caplog.text.count("no longer cached") == 1


def run_command(args: list, cache: Path, kill_after: float | None = None) -> int:
    env = {**os.environ, "SCAR_HF_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "-m", "scar_hf", *map(str, args)], env=env, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    if kill_after is None:
        return process.wait(timeout=120)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:  # from when the first scores are on disk
        if sum(p.stat().st_size for p in cache.rglob("*.sqlite")) > kill_after:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.005)
    return process.wait()


def test_killed_runs_go_on_and_give_the_same_bytes(tmp_path, tiny_ranker):
    rows = many_rows(24_000)
    rows[77]["output"] = None
    data = write_shards(tmp_path / "data", rows, 5)
    args = ["select", data, "-k", "0.1", "--model", tiny_ranker, "--quiet"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run_command([*args, "-o", tmp_path / "a" / "out"], tmp_path / "cache-a") == 0
    killed = [
        run_command([*args, "-o", tmp_path / "b" / "out"], tmp_path / "cache-b", kill_after=n) for n in (0, 200_000, 500_000)
    ]
    assert killed == [-signal.SIGKILL] * 3
    assert not (tmp_path / "b" / "out").exists()
    assert run_command([*args, "-o", tmp_path / "b" / "out"], tmp_path / "cache-b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_shards_written_before_a_kill_are_not_written_again(tmp_path, small, monkeypatch):
    data = write_shards(tmp_path / "data", many_rows(900), 3)
    from scar_hf.runs import output

    written, write_shard = [], output.write_shard

    def dies_at_the_third(path, *args):
        written.append(path.name)
        if len(written) == 3:
            raise KeyboardInterrupt
        return write_shard(path, *args)

    monkeypatch.setattr(output, "write_shard", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        select_files(data, tmp_path / "out", small, 0.5, progress=False)
    assert not (tmp_path / "out").exists()
    select_files(data, tmp_path / "out", small, 0.5, progress=False)
    assert written == ["part-00.parquet", "part-01.parquet", "part-02.parquet", "part-02.parquet"]
    monkeypatch.undo()
    select_files(data, tmp_path / "again", small, 0.5, progress=False)
    first, second = contents(tmp_path / "out"), contents(tmp_path / "again")
    assert {n: b for n, b in first.items() if n != "manifest.json"} == {n: b for n, b in second.items() if n != "manifest.json"}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_shards_of_another_plan_are_not_taken_over(tmp_path, small, monkeypatch):
    data = write_shards(tmp_path / "data", many_rows(90), 1)
    from scar_hf.runs import run

    monkeypatch.setattr(run, "write_sides", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        select_files(data, tmp_path / "out", small, 0.5, progress=False)
    assert (tmp_path / ".out.partial" / "out" / "part-00.parquet").is_file()
    monkeypatch.undo()
    select_files(data, tmp_path / "out", small, 0.5, explain=True, progress=False)
    kept = pq.read_table(tmp_path / "out" / "part-00.parquet")
    assert kept.num_rows == 45 and kept.column_names[-3:] == ["scar_rank", "scar_decision", "scar_reason"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_full_disk_is_said_and_the_next_run_goes_on(tmp_path, tiny_ranker):
    data = write_shards(tmp_path / "data", many_rows(4000), 2)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "from scar_hf.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    args = ["score", str(data), "-o", str(tmp_path / "out.jsonl"), "--model", str(tiny_ranker)]
    env = {**os.environ, "SCAR_HF_CACHE": str(tmp_path / "cache")}
    run = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=env)
    assert run.returncode == 1 and "out.jsonl" in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "out.jsonl").exists()
    assert run_command(args, tmp_path / "cache") == 0
    assert len(read_dataset(tmp_path / "out.jsonl")) == 4000


@pytest.mark.parametrize("name", ["out", "o.parquet"])
def test_a_finished_output_is_found_by_its_own_command_only(name, tmp_path, small, capsys):
    data = write_shards(tmp_path / "data", many_rows(100), 2)
    command = ["select", data, "-k", "9", "-o", tmp_path / name, "--model", small.model_name]
    assert main([str(a) for a in command]) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    assert main([str(a) for a in command]) == 0
    said = capsys.readouterr().out
    assert "is already the complete output of this command" in said and "rows (9.0%), found in" in said
    assert contents(tmp_path) == before
    for other in (["-k", "8"], ["--explain"], ["--turn", "last"], ["--max-length", "40"]):
        assert main([*(str(a) for a in command), *other]) == 1
    changed = next(p for p in (tmp_path / name, tmp_path / name / "part-00.parquet") if p.is_file())
    changed.write_bytes(changed.read_bytes()[:-1])
    assert main([str(a) for a in command]) == 1
    assert capsys.readouterr().err.count("exists. Pass --overwrite") == 5


def test_the_output_of_one_row_is_not_that_of_all_rows(tmp_path, small, write_jsonl):
    data = write_jsonl(many_rows(8))
    assert select_files(data, tmp_path / "o.jsonl", small, 1, progress=False).kept == 1
    with pytest.raises(ValueError, match=r"exists. Pass --overwrite"):  # 1 == 1.0
        select_files(data, tmp_path / "o.jsonl", small, 1.0, progress=False)
    assert select_files(data, tmp_path / "o.jsonl", small, 1, progress=False).found


def test_two_runs_of_one_output_do_not_mix(tmp_path, small, write_jsonl):
    from scar_hf.runs.output import staged

    data = write_jsonl(many_rows(10))
    with staged(tmp_path / "o.jsonl", {}) as target:
        with pytest.raises(ValueError, match=r"Another process is writing"):
            select_files(data, tmp_path / "o.jsonl", small, 2, progress=False)
        target.write_text("{}\n")
    assert (tmp_path / "o.jsonl").exists()


def test_data_that_changes_meanwhile_is_noticed(tmp_path, small, write_jsonl):
    data = write_jsonl(many_rows(10))

    def changing(source, scorer, **kwargs):
        from scar_hf.runs import score_shards

        parts = score_shards(source, scorer, **kwargs)
        data.write_text(data.read_text() + json.dumps(many_rows(1)[0]) + "\n")
        return parts

    with pytest.raises(ValueError, match=r"The number of rows of .* changed while it was scored"):
        select_files(data, tmp_path / "o.jsonl", small, 2, engine=changing, progress=False)
    assert not (tmp_path / "o.jsonl").exists()


def test_an_edit_meanwhile_that_keeps_the_rows_is_noticed(tmp_path, small, write_jsonl):
    data = write_jsonl(many_rows(10))

    def changing(source, scorer, **kwargs):
        from scar_hf.runs import score_shards

        parts = score_shards(source, scorer, **kwargs)
        times = data.stat()
        data.write_text(data.read_text().replace('"id": 7', '"id": 8'))
        os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
        return parts

    with pytest.raises(ValueError, match=r"was changed while it was scored"):
        select_files(data, tmp_path / "o.jsonl", small, 2, engine=changing, progress=False)
    assert not (tmp_path / "o.jsonl").exists()


def test_halves_of_files_are_not_published(tmp_path, small, monkeypatch):
    data = write_shards(tmp_path / "data", many_rows(90), 2)
    from scar_hf.runs import run

    monkeypatch.setattr(run, "write_sides", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        select_files(data, tmp_path / "out", small, 0.5, progress=False)
    (tmp_path / ".out.partial" / "out" / ".part-01.parquet.123.part").write_bytes(b"half")
    monkeypatch.undo()
    select_files(data, tmp_path / "out", small, 0.5, progress=False)
    assert sorted(contents(tmp_path / "out")) == ["README.md", "manifest.json", "part-00.parquet", "part-01.parquet"]
