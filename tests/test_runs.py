"""Runs over files: every format in and out, and no row lost, whatever it holds."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Json, List, Value, load_dataset

from scar_hf import scar_select
from scar_hf.cli import main
from scar_hf.files import open_shards, read_dataset
from scar_hf.files.batches import rows_of
from scar_hf.runs import select_files, verify_manifest

run_data = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "run_data.py")))
many_rows, write_shards = run_data.many_rows, run_data.write_shards


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


@pytest.mark.parametrize("target", ["o.parquet", "out"])
def test_content_of_mixed_types_goes_into_parquet(target, tmp_path, small):
    texts = [f"What is {i}?" for i in range(6)]
    messages = [
        [
            {"role": "user", "content": [{"type": "text", "text": text}] if i % 2 else text},
            {"role": "assistant", "content": f"It is {i}."},
        ]
        for i, text in enumerate(texts)
    ]
    ds = Dataset.from_dict({"messages": messages}, Features({"messages": List({"role": Value("string"), "content": Json()})}))
    (tmp_path / "data").mkdir()
    ds.to_parquet(tmp_path / "data" / "train.parquet")
    data = tmp_path / "data" if target == "out" else tmp_path / "data" / "train.parquet"
    result = select_files(data, tmp_path / target, small, 4, progress=False)
    file = tmp_path / "out" / "train.parquet" if target == "out" else tmp_path / target
    kept = load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "hf"))
    assert kept.features == ds.features | {"scar_score": Value("float32")}
    best = np.sort(np.argsort(-result.scored.scores, kind="stable")[:4])
    assert kept["messages"][:] == ds.select(best)["messages"][:]


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


@pytest.mark.parametrize("source", ["d.jsonl", "d.json", "d.parquet"])
@pytest.mark.parametrize("target", ["o.jsonl", "o.json", "o.csv", "o.parquet", "out"])
def test_large_whole_numbers_stay_exact(source, target, tmp_path, small):
    numbers = [2**53 + 1, 2**63 - 1, -(2**63), None, 0]
    rows = [{"id": n, "instruction": "q", "output": f"a {n}", "more": {"n": n}} for n in numbers]
    write = {"d.jsonl": lambda p: p.write_text("".join(json.dumps(row) + "\n" for row in rows)),
             "d.json": lambda p: p.write_text(json.dumps(rows)),
             "d.parquet": lambda p: pq.write_table(pa.Table.from_pylist(rows), p)}  # fmt: skip
    write[source](tmp_path / source)
    select_files(tmp_path / source, tmp_path / target, small, all_rows=True, progress=False)
    found = [row["id"] for shard in open_shards(tmp_path / target) for batch in shard.batches() for row in rows_of(batch)]
    assert found == ([str(n) if n is not None else "" for n in numbers] if target == "o.csv" else numbers)
