"""Runs over files: nothing lost, nothing changed, whatever happens on the way."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset

from scar_hf import ScarScorer, scar_select
from scar_hf.cli import main
from scar_hf.files import read_dataset
from scar_hf.manifest.sidecars import find_manifest
from scar_hf.runs import select_files, verify_manifest
from scar_hf.scoring.cache import ScoreCache


def many_rows(n: int, seed: int = 0) -> list[dict]:
    words = ["bees", "rivers", "bread", "glass", "chess", "wool", "of", "and", "the", "in", "they", "are", "made", "known"]
    draw = random.Random(seed)

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=length))

    return [{"instruction": f"{text(5)}?", "output": text(draw.randint(1, 40)), "id": i} for i in range(n)]


def write_shards(folder: Path, rows: list[dict], shards: int) -> Path:
    folder.mkdir()
    for i in range(shards):
        part = rows[i * len(rows) // shards : (i + 1) * len(rows) // shards]
        pq.write_table(pa.Table.from_pylist(part), folder / f"part-{i:02}.parquet", row_group_size=500)
    return folder


@pytest.fixture(scope="module")
def small(tiny_ranker) -> ScarScorer:
    return ScarScorer.from_pretrained(str(tiny_ranker), device="cpu")


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SCAR_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_of_shards_gives_a_folder_of_shards(tmp_path, small):
    rows = many_rows(3000)
    data = write_shards(tmp_path / "data", rows, 4)
    result = select_files(data, tmp_path / "out", small, 0.1, progress=False)
    assert result.rows == 3000 and result.kept == 300
    names = [p.name for p in sorted((tmp_path / "out").iterdir())]
    assert names == ["README.md", "manifest.json", *(f"part-{i:02}.parquet" for i in range(4))]
    kept = load_dataset("parquet", data_files=str(tmp_path / "out" / "*.parquet"), split="train", cache_dir=tmp_path / "hf")
    expected = scar_select(Dataset.from_list(rows), k=0.1, model=small, progress=False)
    assert len(set(kept["id"][:]) & set(expected["id"][:])) >= 298  # shards begin chunks anew: the last bits may differ
    assert kept["id"][:] == sorted(kept["id"][:]) and kept.column_names == ["instruction", "output", "id", "scar_score"]
    assert min(kept["scar_score"][:]) == pytest.approx(result.threshold)
    assert all(check.passed is not False for check in verify_manifest(tmp_path / "out"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.csv", "a.parquet", "arrow", "folder"])
def test_every_format_in_and_out_keeps_the_same_rows(name, tmp_path, small, write_jsonl):
    rows = many_rows(60)
    source, copy = write_jsonl(rows), tmp_path / "copies" / name
    if name == "arrow":
        Dataset.from_list(rows).save_to_disk(copy)
    else:
        select_files(source, copy, small, all_rows=True, progress=False)
    data = tmp_path / "copies" / name
    result = select_files(data, tmp_path / "o.jsonl", small, 7, overwrite_scores=True, progress=False)
    kept = read_dataset(tmp_path / "o.jsonl")
    expected = scar_select(Dataset.from_list(rows), k=7, model=small, progress=False)
    assert [int(i) for i in kept["id"][:]] == expected["id"][:] and result.kept == 7
    np.testing.assert_allclose(kept["scar_score"][:], expected["scar_score"][:], atol=1e-6)
    if name != "arrow":
        with pytest.raises(ValueError, match=r"already has a column 'scar_score'"):
            select_files(data, tmp_path / "p.jsonl", small, 7, progress=False)


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
    assert 0 < sum(encoded) <= 2 * 2 * 2048  # the chunk around the new rows, and no other


def test_a_damaged_cache_is_computed_again(tmp_path, small, fresh_cache, write_jsonl, caplog):
    data = write_jsonl(many_rows(50))
    select_files(data, tmp_path / "a.jsonl", small, 5, progress=False)
    entries = [p for p in fresh_cache.rglob("*") if p.is_file()]
    assert len(entries) == 1
    for damage in (lambda b: b[:-3], lambda b: b[:40] + b"\xff" + b[41:], lambda b: b""):
        entries[0].write_bytes(damage(entries[0].read_bytes()))
        select_files(data, tmp_path / "b.jsonl", small, 5, overwrite=True, progress=False)
        assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert "are damaged and will be computed again" in caplog.text


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
        if any(cache.rglob("*.part")) or sum(1 for p in cache.rglob("*") if p.is_file()) > kill_after:
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
    killed = [run_command([*args, "-o", tmp_path / "b" / "out"], tmp_path / "cache-b", kill_after=n) for n in (0, 3, 7)]
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


def test_bad_rows_are_listed_and_never_selected(tmp_path, small, capsys):
    rows = many_rows(30)
    rows[3]["output"], rows[17]["output"] = None, "   "
    rows[20]["instruction"] = None
    data = write_shards(tmp_path / "data", rows, 3)
    result = select_files(data, tmp_path / "out", small, 1.0, progress=False)
    assert result.kept == 27
    skipped = read_dataset(tmp_path / "out" / "skipped.jsonl").to_list()
    assert skipped == [
        {"shard": "part-00.parquet", "row": 3, "reason": "the response is missing"},
        {"shard": "part-01.parquet", "row": 7, "reason": "the response is empty"},
        {"shard": "part-02.parquet", "row": 0, "reason": "the instruction is missing"},
    ]
    strict = ["select", data, "-k", "5", "-o", tmp_path / "s.jsonl", "--model", small.model_name, "--strict"]
    assert main([str(a) for a in strict]) == 1
    assert "row 3: the response is missing" in capsys.readouterr().err


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


def test_manifests_name_their_parents_and_show_what_was_changed(tmp_path, small, write_jsonl):
    data = write_jsonl(many_rows(40))
    select_files(data, tmp_path / "a.jsonl", small, 0.5, progress=False)
    select_files(tmp_path / "a.jsonl", tmp_path / "b.parquet", small, 5, overwrite_scores=True, progress=False)
    assert find_manifest(tmp_path / "a.jsonl") == tmp_path / "a.jsonl.manifest.json"
    assert find_manifest(tmp_path / "b.parquet") == tmp_path / "b.parquet.manifest.json"
    manifest = json.loads((tmp_path / "b.parquet.manifest.json").read_text())
    assert manifest["parent"]["path"] == str(tmp_path / "a.jsonl.manifest.json")
    assert manifest["selection"]["kept"] == 5 and manifest["selection"]["rows"] == 20
    assert all(check.passed is not False for check in verify_manifest(tmp_path / "b.parquet"))
    (tmp_path / "a.jsonl").write_text("{}\n")
    failed = [check.what for check in verify_manifest(tmp_path / "b.parquet") if check.passed is False]
    assert failed == [f"input {tmp_path / 'a.jsonl'}"]
    data.unlink()
    unknown = [check for check in verify_manifest(tmp_path / "a.jsonl") if check.passed is None]
    assert [check.what for check in unknown] == [f"input {data}", "scores"] and "not there any more" in unknown[0].detail
    (tmp_path / "a.jsonl.manifest.json").write_text('{"output": 3')
    with pytest.raises(ValueError, match=r"not a manifest of scar-hf, or is damaged"):
        verify_manifest(tmp_path / "a.jsonl.manifest.json")


@pytest.fixture
def verified(tmp_path, small, write_jsonl) -> Path:
    rows = many_rows(30)
    rows[3]["output"] = ""
    select_files(write_jsonl(rows), tmp_path / "out", small, 10, progress=False)
    assert all(check.passed is not False for check in verify_manifest(tmp_path / "out"))
    return tmp_path / "out"


EDITS = {
    "k": lambda m: m["options"].update(k=20),
    "threshold": lambda m: m["selection"].update(threshold=m["selection"]["threshold"] - 0.01),
    "kept": lambda m: m["selection"].update(kept=9),
    "scored": lambda m: m["selection"].update(scored=30),
    "skipped": lambda m: m["selection"].update(skipped=0, scored=30),
    "weights": lambda m: m["ranker"].update(weights="0" * 64),
    "no files": lambda m: m["output"].update(files=[]),
    "no inputs": lambda m: m.update(inputs=[]),
    "input": lambda m: m["inputs"][0].update(sha256="0" * 64),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("sealed_again", [False, True])
def test_an_edited_manifest_is_noticed(edit, sealed_again, verified):
    from scar_hf.manifest.sidecars import sealed

    path = verified / "manifest.json"
    manifest = json.loads(path.read_text())
    EDITS[edit](manifest)
    path.write_bytes(sealed(manifest) if sealed_again else json.dumps(manifest).encode())
    assert main(["verify", str(verified)]) == 1


@pytest.mark.parametrize(
    "forgery", ["list", "list with reasons", "_x.jsonl", ".part-00.parquet.7.part", "more.parquet", "card"]
)
def test_forged_and_added_files_are_noticed(forgery, verified, capsys):
    if forgery.startswith("list"):
        text = (verified / "skipped.jsonl").read_text()
        (verified / "skipped.jsonl").write_text(text * 2 if forgery == "list" else text.replace("empty", "fine"))
    elif forgery == "card":
        card = (verified / "README.md").read_text()
        (verified / "README.md").write_text(card.replace("train.parquet", "other.parquet"))
    else:
        (verified / forgery).write_text("{}")
    assert main(["verify", str(verified)]) == 1 and "FAILED" in capsys.readouterr().out


def test_what_belongs_to_somebody_else_is_left_alone(tmp_path, small, write_jsonl):
    data = write_jsonl(many_rows(10))
    (tmp_path / "manifest.json").write_text('{"name": "my web app"}')
    select_files(data, tmp_path / "a.jsonl", small, 2, progress=False)
    assert json.loads((tmp_path / "manifest.json").read_text()) == {"name": "my web app"}
    assert all(check.passed is not False for check in verify_manifest(tmp_path / "a.jsonl"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "skipped.jsonl").write_text("mine")
    select_files(data, tmp_path / "b" / "a.jsonl", small, 2, progress=False)
    assert (tmp_path / "b" / "skipped.jsonl").read_text() == "mine"
    for name in ("c.jsonl.manifest.json", "c.jsonl.skipped.jsonl"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ValueError, match=r"stands where a file of the output goes"):
            select_files(data, tmp_path / "c.jsonl", small, 2, progress=False)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    for name in ("manifest.json", "skipped.jsonl", "x.dropped.jsonl"):
        with pytest.raises(ValueError, match=r"a name that scar-hf gives"):
            select_files(data, tmp_path / "d" / name, small, 2, progress=False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"exists. Pass --overwrite"):
        select_files(data, tmp_path / "folder", small, 2, progress=False)
    shards = write_shards(tmp_path / "data", many_rows(10), 2)
    with pytest.raises(ValueError, match=r"not written by scar-hf"):
        select_files(shards, tmp_path / "folder", small, 2, overwrite=True, progress=False)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "precious"


def test_only_what_the_manifest_of_an_output_names_is_replaced(tmp_path, small, write_jsonl):
    work = tmp_path / "work"
    work.mkdir()
    data = write_jsonl(many_rows(20), "work/data.jsonl")
    (work / "thesis.txt").write_text("precious")
    select_files(data, work / "best.jsonl", small, 5, progress=False)
    other = write_jsonl(many_rows(20, seed=1), "other.jsonl")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"work was not written by scar-hf, so it is not replaced"):
        select_files(other, work, small, 5, overwrite=True, progress=False)
    with pytest.raises(ValueError, match=r"is, or contains, the data"):
        select_files(data, data, small, 5, overwrite=True, progress=False)
    select_files(data, tmp_path / "out", small, 5, progress=False)
    with pytest.raises(ValueError, match=r"is, or contains, the data"):
        select_files(tmp_path / "out", tmp_path / "out", small, 2, overwrite=True, overwrite_scores=True, progress=False)
    (tmp_path / "out").rename(tmp_path / "renamed")
    with pytest.raises(ValueError, match=r"manifest.json belongs to 'out'"):
        select_files(other, tmp_path / "renamed", small, 5, overwrite=True, progress=False)
    (tmp_path / "renamed").rename(tmp_path / "out")
    select_files(other, tmp_path / "out", small, 5, overwrite=True, progress=False)
    after = contents(tmp_path)
    assert {name: data for name, data in after.items() if not name.startswith("out/")} == before


@pytest.mark.parametrize("name", ["notes.txt", ".gitattributes", "sub/part-00.parquet", "link"])
def test_an_output_folder_with_something_else_in_it_is_not_replaced(name, tmp_path, small, write_jsonl):
    data = write_jsonl(many_rows(20))
    select_files(data, tmp_path / "out", small, 5, progress=False)
    (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
    if name == "link":
        (tmp_path / "out" / name).symlink_to(tmp_path)
    else:
        (tmp_path / "out" / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=rf"1 files that its manifest.json does not name \({name}\)"):
        select_files(data, tmp_path / "out", small, 6, overwrite=True, progress=False)
    assert contents(tmp_path) == before


def test_what_is_put_into_a_folder_while_it_is_scored_survives(tmp_path, small, write_jsonl):
    data = write_jsonl(many_rows(20))
    select_files(data, tmp_path / "out", small, 5, progress=False)

    def slow(shards, scorer, **kwargs):
        from scar_hf.runs import score_shards

        (tmp_path / "out" / "notes.txt").write_text("mine")
        return score_shards(shards, scorer, **kwargs)

    with pytest.raises(ValueError, match=r"does not name \(notes.txt\)"):
        select_files(data, tmp_path / "out", small, 6, engine=slow, overwrite=True, progress=False)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_card_that_was_amended_is_kept(tmp_path, small, write_jsonl, caplog):
    data = write_jsonl(many_rows(20))
    select_files(data, tmp_path / "out", small, 5, progress=False)
    card = tmp_path / "out" / "README.md"
    card.write_text(card.read_text().replace("---\nconfigs", "---\nlicense: mit\nconfigs") + "\nMy words.\n")
    (tmp_path / "out" / "_images").mkdir()
    (tmp_path / "out" / "_images" / "a.png").write_bytes(b"mine")
    shards = write_shards(tmp_path / "shards", many_rows(20), 2)
    select_files(shards, tmp_path / "out", small, 5, overwrite=True, progress=False)
    text = card.read_text()
    assert "license: mit" in text and "My words." in text and "part-00.parquet" in text and "train.parquet" not in text
    assert (tmp_path / "out" / "_images" / "a.png").read_bytes() == b"mine" and "is kept" in caplog.text
    card.write_text("---\n[: \n---\n")
    with pytest.raises(ValueError, match=r"metadata of .* cannot be read"):
        select_files(data, tmp_path / "out", small, 5, overwrite=True, progress=False)


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

    def changing(shards, scorer, **kwargs):
        from scar_hf.runs import score_shards

        parts = score_shards(shards, scorer, **kwargs)
        data.write_text(data.read_text() + json.dumps(many_rows(1)[0]) + "\n")
        return parts

    with pytest.raises(ValueError, match=r"another number of rows"):
        select_files(data, tmp_path / "o.jsonl", small, 2, engine=changing, progress=False)
    assert not (tmp_path / "o.jsonl").exists()


def test_an_edit_meanwhile_that_keeps_the_rows_is_noticed(tmp_path, small, write_jsonl):
    data = write_jsonl(many_rows(10))

    def changing(shards, scorer, **kwargs):
        from scar_hf.runs import score_shards

        parts = score_shards(shards, scorer, **kwargs)
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


@pytest.mark.parametrize("chat_first", [False, True])
def test_mixed_formats_in_one_file_lose_no_row(chat_first, tmp_path, small, write_jsonl):
    plain = many_rows(1100)
    chats = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a {i}"}]} for i in range(5)]
    data = write_jsonl([*chats, *plain] if chat_first else [*plain, *chats])
    result = select_files(data, tmp_path / "o.jsonl", small, all_rows=True, progress=False)
    assert result.scored.skipped == {} and np.isfinite(result.scored.scores).all()


def test_badly_typed_rows_do_not_stop_a_parquet_output(tmp_path, small, write_jsonl):
    rows = many_rows(40)
    rows[5]["output"], rows[6]["id"], rows[7]["id"], rows[8]["extra"] = 5, "six", ["seven"], {"a": [1, "b"]}
    data = write_jsonl(rows)
    result = select_files(data, tmp_path / "o.parquet", small, 1.0, progress=False)
    assert result.scored.skipped == {5: "the response must be a string, not int"}
    kept = load_dataset("parquet", data_files=str(tmp_path / "o.parquet"), split="train", cache_dir=str(tmp_path / "hf"))
    assert kept.features["output"].dtype == "string" and len(kept) == 39
    assert read_dataset(tmp_path / "o.parquet")["id"][:8] == [0, 1, 2, 3, 4, "six", ["seven"], 8]
    select_files(data, tmp_path / "all.parquet", small, all_rows=True, progress=False)
    assert read_dataset(tmp_path / "all.parquet")["output"][5] == 5


def test_shards_that_fit_no_table_are_refused_before_the_scoring(tmp_path, small):
    (tmp_path / "data").mkdir()
    for name, value in (("a", 1), ("b", "x")):
        table = pa.table({"instruction": ["q"], "output": ["a"], "extra": [value]})
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet")

    def never(*args, **kwargs):
        raise AssertionError("scored")

    with pytest.raises(ValueError, match=r"b.parquet does not fit into one Parquet file"):
        select_files(tmp_path / "data", tmp_path / "o.parquet", small, 1, engine=never, progress=False)


def test_a_selection_of_nothing_is_an_error(tmp_path, small, write_jsonl, capsys):
    data = write_jsonl([{"instruction": "q", "output": ""}] * 3)
    command = ["select", data, "-k", "2", "-o", tmp_path / "o.jsonl", "--model", small.model_name]
    assert main([str(a) for a in command]) == 1
    assert "Nothing can be selected from 3 rows: 3 have no score" in capsys.readouterr().err
    good = write_jsonl(many_rows(5), "good.jsonl")
    assert main(["select", str(good), "-k", "2", "-o", str(tmp_path / "o.jsonl"), "--model", small.model_name,
                 "--evaluation", str(good)]) == 1  # fmt: skip
    assert "5 were dropped" in capsys.readouterr().err and not (tmp_path / "o.jsonl").exists()


def test_rows_that_lack_keys_and_surrogates_survive(tmp_path, small, write_jsonl):
    rows = [{"instruction": "Q", "output": f"A {i}"} for i in range(5)]
    rows[1] = {"instruction": "no answer"}
    rows[2]["extra"] = [1, {"deep": None}]
    path = write_jsonl(rows)
    path.write_text(path.read_text() + '{"instruction": "s", "output": "lone \\ud800 one"}\n')
    result = select_files(path, tmp_path / "o.jsonl", small, all_rows=True, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert result.scored.skipped == {1: "the response is missing"}
    assert lines[1] == {"instruction": "no answer", "scar_score": None}
    assert lines[2]["extra"] == [1, {"deep": None}] and "extra" not in lines[0]
    assert lines[5]["output"] == "lone \ud800 one" and isinstance(lines[5]["scar_score"], float)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((), None),
        ((), []),
        (("data",), 5),
        (("inputs",), None),
        (("inputs",), ["x"]),
        (("options",), [5]),
        (("output", "files"), {"name": 1}),
        (("selection", "kept"), "x"),
        (("ranker",), None),
    ],
)
def test_a_malformed_manifest_is_told_in_words(place, value, write_jsonl, tiny_ranker, tmp_path, capsys):
    data = write_jsonl([{"instruction": f"What is {i}?", "response": f"It is {i}."} for i in range(4)])
    out, ranker = tmp_path / "out", ["--model", str(tiny_ranker), "--device", "cpu"]
    assert main(["select", str(data), "-k", "2", "-o", str(out), "--quiet", *ranker]) == 0
    file = out / "manifest.json"
    content = json.loads(file.read_text())
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    if place:
        inner[place[-1]] = value
    file.write_text(json.dumps(content if place else value))
    report = ["report", str(data), str(out), "-o", str(tmp_path / "r.html"), "--model", str(tiny_ranker)]
    for command in (["verify", str(out)], ["push", str(out), "me/x", "--dry-run"], report):
        capsys.readouterr()
        assert main(command) == 1
        assert "is not a manifest of scar-hf, or is damaged" in capsys.readouterr().err
    file.write_text('{"a":' * 50_000 + "1" + "}" * 50_000)
    assert main(["verify", str(out)]) == 1 and "is damaged" in capsys.readouterr().err
