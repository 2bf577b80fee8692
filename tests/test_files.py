"""Reading and writing instruction sets: round trips, batches, bytes that never differ, and what is said of damaged data."""

import hashlib
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Json, Value, load_dataset

from scar_hf.files import (
    add_columns,
    check_output,
    columns_of,
    merge_schemas,
    open_shards,
    read_dataset,
    schema_of,
    take,
    write_dataset,
    write_shard,
)

NESTED = [
    {"messages": [{"role": "user", "content": "Hi – ½"}, {"role": "assistant", "content": "Ho"}], "n": 1, "tags": ["a"]},
    {
        "messages": [{"role": "user", "content": "He\u2028y"}, {"role": "assistant", "content": 'Say "yes"\n'}],
        "n": None,
        "tags": [],
    },
]
TEXTS = [
    {"id": "007", "text": 'She said "no",\nthen left\r\n', "note": ""},
    {"id": "1e5", "text": "a\rb\u2028c", "note": " NA "},
    {"id": "", "text": "日本語 🐝", "note": "null"},
]
JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
COLUMNAR = (".parquet", "")


def all_rows(data, **options) -> list[dict]:
    """What a reader of shards sees, as objects."""
    batches = [batch for shard in open_shards(data) for batch in shard.batches(**options)]
    return list(itertools.chain.from_iterable(b if isinstance(b, list) else b.to_pylist() for b in batches))


def batches_in(rows: list[dict], sizes: list[int]) -> list[list[dict]]:
    iterator = iter(rows)
    return [list(itertools.islice(iterator, size)) for size in sizes]


@pytest.mark.parametrize("suffix", [*JSON_LINES, ".json", ".parquet"])
def test_round_trip(suffix, tmp_path):
    path = write_dataset(Dataset.from_list(NESTED), tmp_path / "deep" / f"out{suffix}")
    assert read_dataset(path).to_list() == NESTED == all_rows(path)
    assert [p.name for p in path.parent.iterdir()] == [f"out{suffix}"]


@pytest.mark.parametrize("suffix", [*JSON_LINES, ".json", ".csv", ".parquet"])
def test_no_rows(suffix, tmp_path):
    path = tmp_path / f"empty{suffix}"
    schema = pa.schema([("instruction", pa.string()), ("response", pa.string())])
    write_shard(path, [], schema)
    ds = read_dataset(path)
    assert len(ds) == 0
    if ".json" not in suffix:
        assert ds.column_names == open_shards(path)[0].column_names() == schema.names
    copy = tmp_path / f"copy{suffix}"
    write_shard(copy, open_shards(path)[0].batches(), schema if suffix == ".csv" else None)
    assert all_rows(copy) == []


@pytest.mark.parametrize("suffix", [*JSON_LINES, ".json", ".csv", ".parquet", ""])
def test_batches_have_the_size_asked_for(suffix, tmp_path):
    path = tmp_path / f"data{suffix}"
    table = pa.table({"a": [str(i) for i in range(103)], "b": ["x"] * 103, "c.d": ["y"] * 103})
    if suffix == ".parquet":
        pq.write_table(table, path, row_group_size=17)
    elif suffix:
        write_dataset(Dataset(table), path)
    else:
        Dataset(table).save_to_disk(path)
    (shard,) = open_shards(path)
    for size in (1, 10, 103, 500):
        lengths = [len(batch) for batch in shard.batches(size)]
        assert sum(lengths) == 103 and set(lengths[:-1]) <= {size} and 0 < lengths[-1] <= size
    assert [v for batch in shard.batches(10) for v in columns_of(batch)["a"]] == table["a"].to_pylist()
    with pytest.raises(ValueError, match=r"1 or more, got 0"):
        shard.batches(0)
    batch = next(iter(shard.batches(columns=["c.d", "a"])))
    if suffix in COLUMNAR:
        assert list(columns_of(batch)) == ["c.d", "a"]
        with pytest.raises(ValueError, match=r"no column 'z'; its columns: \['a', 'b', 'c.d'\]"):
            next(iter(shard.batches(columns=["z"])))
    else:
        assert list(columns_of(batch)) == ["a", "b", "c.d"]
    assert [file for file in shard.files() if file.is_file()] and pickle.loads(pickle.dumps(shard)) == shard


@pytest.mark.parametrize("suffix", [*JSON_LINES, ".json", ".csv", ".parquet"])
def test_bytes_depend_on_the_rows_alone(suffix, tmp_path):
    rows = [{"i": str(i), "text": "long words " * (i % 50), "kind": "abc"[i % 3]} for i in range(12_000)]
    schema = pa.schema([("i", pa.string()), ("text", pa.string()), ("kind", pa.dictionary(pa.int32(), pa.string()))])
    first, second, third = (tmp_path / name / f"data{suffix}" for name in "abc")
    digest = write_shard(first, [rows], schema)
    write_shard(second, batches_in(rows, [1, 0, 999, 7001, 3999]), schema)
    table = pa.Table.from_pylist(rows, schema=schema)
    write_shard(third, [table.slice(0, 4321), pa.concat_tables([table.slice(4321, 5000), table.slice(9321)])], schema)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()
    assert hashlib.sha256(first.read_bytes()).hexdigest() == digest
    assert columns_of(list(all_rows(first)))["text"] == [row["text"] for row in rows]


@pytest.mark.parametrize("suffix", [*JSON_LINES, ".json", ".csv", ".parquet", ""])
def test_a_file_cut_in_the_middle(suffix, tmp_path):
    rows = [{"id": str(i), "text": f'"{hashlib.sha256(str(i).encode()).hexdigest()}"'} for i in range(3000)]
    path = tmp_path / f"cut{suffix}"
    write_dataset(Dataset.from_list(rows), path) if suffix else Dataset.from_list(rows).save_to_disk(path)
    file = path if suffix else next(path.glob("*.arrow"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2 - 3])
    with pytest.raises(ValueError, match=rf"cut{suffix}.*([Cc]ut off)"):
        read_dataset(path)


def test_parquet_keeps_types_and_features(tmp_path):
    features = Features(
        {"messages": [{"role": Value("large_string")}], "kind": ClassLabel(names=["good", "bad"]), "n": Value("int8")}
    )
    rows = {"messages": [[{"role": "user"}], []], "kind": [1, 0], "n": [3, None]}
    source = write_dataset(Dataset.from_dict(rows, features=features), tmp_path / "in.parquet")
    schema = pq.read_schema(source)
    (shard,) = open_shards(source)
    write_shard(tmp_path / "same.parquet", shard.batches(1))
    assert pq.read_schema(tmp_path / "same.parquet").equals(schema, check_metadata=True)
    scores = pa.array([0.25, None], pa.float32())
    (batch,) = shard.batches()
    for target in ("out.parquet", "twice.parquet"):
        batch = add_columns(batch, {"scar_score": scores})
        write_shard(tmp_path / target, [batch])
        ds = load_dataset("parquet", data_files=str(tmp_path / target), split="train", cache_dir=str(tmp_path / "cache"))
        assert ds.features == Features({**features, "scar_score": Value("float32")})
        assert ds["scar_score"][:] == [0.25, None] and ds["messages"][:] == rows["messages"]
    assert json.loads(batch.schema.metadata[b"huggingface"])["info"]["features"]["scar_score"]["dtype"] == "float32"
    (part,) = shard.batches(columns=["kind"])
    assert list(json.loads(part.schema.metadata[b"huggingface"])["info"]["features"]) == ["kind"]
    moved = add_columns(batch, {"kind": pa.array(["x", "y"])})
    assert moved.column_names == ["messages", "n", "scar_score", "kind"]
    assert Features.from_arrow_schema(moved.schema)["kind"] == Value("string")


def test_parquet_needs_a_schema_that_fits(tmp_path):
    path = tmp_path / "out.parquet"
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    with pytest.raises(ValueError, match=r"needs a schema"):
        write_shard(path, [[{"a": 1}]])
    for rows, message in (([{"a": "x"}], "different types"), ([{"c": 1}], "column 'c'"), ([{"b": "\ud800"}], "out.parquet")):
        with pytest.raises(ValueError, match=message):
            write_shard(path, [rows], schema)
    assert not list(tmp_path.iterdir())
    write_shard(path, [[{"a": 1}], pa.table({"b": ["x"]})], schema)
    assert all_rows(path) == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_batches_of_both_kinds():
    rows = [{"a": 1}, {"b": "x", "a": None}, {"a": 2.5}]
    table = pa.Table.from_pylist(rows, schema=pa.schema([("a", pa.float64()), ("b", pa.string())]))
    for batch in (rows, table):
        assert columns_of(batch) == {"a": [1, None, 2.5], "b": [None, "x", None]}
        assert columns_of(take(batch, np.array([2, 0])))["a"] == [2.5, 1]
        assert len(take(batch, [])) == 0
        added = add_columns(batch, {"a": pa.array([7, 8, 9])})
        assert columns_of(added)["a"] == [7, 8, 9] and list(columns_of(take(added, [1]))) == ["b", "a"]
        assert schema_of(batch) == table.schema
        with pytest.raises(ValueError, match=r"'s' has 1 values for 3 rows"):
            add_columns(batch, {"s": pa.array([1])})
    assert rows[0] == {"a": 1}


def test_schemas_merge_unless_types_differ():
    merged = merge_schemas(None, schema_of([{"a": 1, "b": None, "m": [{"x": None}]}]))
    merged = merge_schemas(merged, schema_of([{"b": "x", "a": 0.5, "m": [{"x": "y", "z": 1}], "c": True}]))
    assert merged.names == ["a", "b", "m", "c"] and merged.field("a").type == pa.float64()
    assert merged.field("m").type == pa.list_(pa.struct([("x", pa.string()), ("z", pa.int64())]))
    with pytest.raises(ValueError, match=r"different types.*b"):
        merge_schemas(merged, schema_of([{"b": 1}]))
    with pytest.raises(ValueError, match=r"different types.*'a'"):
        schema_of([{"a": 1}, {"a": "x"}])
    a, b = (Features(f).arrow_schema for f in ({"k": Value("null")}, {"k": ClassLabel(names=["x"]), "l": Value("string")}))
    assert Features.from_arrow_schema(merge_schemas(a, b)) == Features.from_arrow_schema(b)


def test_values_of_the_json_feature_are_objects(tmp_path):
    rows = [{"tools": [{"a": 1}, {"b": "x"}], "t": {"args": {"q": None}}}, {"tools": None, "t": None}]
    ds = Dataset.from_list(rows, features=Features({"tools": [Json()], "t": {"args": Json()}}))
    write_dataset(ds, tmp_path / "out.jsonl")
    assert all_rows(tmp_path / "out.jsonl") == rows


def test_a_folder_of_shards(tmp_path):
    folder = tmp_path / "shards"
    for i, name in enumerate(["b.jsonl.gz", "a/2.jsonl.gz", "a/10.jsonl.gz", "a.jsonl.gz"]):
        write_shard(folder / name, [[{"i": i, "half": i / 2}] * 2])
    for name in (
        "manifest.json",
        "a/skipped.jsonl",
        "x.manifest.json",
        "x.skipped.jsonl",
        "README.md",
        "_log.txt",
        ".b.part",
        ".h/c.csv",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    shards = open_shards(folder)
    assert [shard.name for shard in shards] == ["a.jsonl.gz", "a/10.jsonl.gz", "a/2.jsonl.gz", "b.jsonl.gz"]
    assert shards[1].files() == [folder / "a" / "10.jsonl.gz"]
    assert read_dataset(folder)["i"][:] == [3, 3, 2, 2, 1, 1, 0, 0]
    (folder / "a" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"4 of '.jsonl.gz', such as a.jsonl.gz; 1 of '.txt', such as a/notes.txt"):
        open_shards(folder)


def test_shards_of_differing_schemas(tmp_path):
    for i, table in enumerate([pa.table({"a": pa.nulls(1)}), pa.table({"a": ["x"], "b": [1]}), pa.table({"b": [0.5]})]):
        write_shard(tmp_path / f"{i}.parquet", [table])
    assert read_dataset(tmp_path).to_list() == [{"a": None, "b": None}, {"a": "x", "b": 1.0}, {"a": None, "b": 0.5}]
    write_shard(tmp_path / "3.parquet", [pa.table({"b": ["x"]})])
    with pytest.raises(ValueError, match=r"values of different types"):
        read_dataset(tmp_path)


def test_arrow_folders_of_datasets_are_read_and_none_is_written(tmp_path):
    ds = Dataset.from_list(NESTED * 2000, split="train")
    ds.save_to_disk(tmp_path / "theirs", num_shards=3)
    assert all_rows(tmp_path / "theirs", rows=999) == NESTED * 2000
    assert len(open_shards(tmp_path / "theirs")[0].files()) == 5
    with pytest.raises(ValueError, match=r"is a folder; expected a file: .*Dataset.save_to_disk"):
        write_dataset(ds, tmp_path / "ours")


def test_splits(tmp_path):
    DatasetDict(train=Dataset.from_list(NESTED), test=Dataset.from_list(NESTED[:1])).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match=r"holds the splits \['test', 'train'\]"):
        read_dataset(tmp_path / "splits")
    assert len(read_dataset(tmp_path / "splits", split="test")) == 1
    with pytest.raises(ValueError, match=r"no split 'dev'"):
        open_shards(tmp_path / "splits", split="dev")
    with pytest.raises(ValueError, match=r"has no splits, but the split 'dev'"):
        open_shards(tmp_path / "splits" / "test", split="dev")


def test_an_existing_output_needs_overwrite(tmp_path):
    ds = Dataset.from_list(NESTED)
    for name in ("a.jsonl", "a.parquet"):
        write_dataset(ds, tmp_path / name)
        with pytest.raises(ValueError, match=r"exists. Pass --overwrite"):
            write_dataset(ds, tmp_path / name)
        write_dataset(ds.select([1]), tmp_path / name, overwrite=True)
        assert len(read_dataset(tmp_path / name)) == 1
    for name in ("a.xlsx", "a.csv.gz"):
        with pytest.raises(ValueError, match=r"ends in '.(xlsx|csv.gz)'; expected .jsonl"):
            check_output(tmp_path / name)


def test_rows_may_lack_columns(write_jsonl):
    ds = read_dataset(write_jsonl([{"a": 1}, {"b": "x"}]))
    assert ds.to_list() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nothing.jsonl", "nothing/at/all", "data/nothing.csv"):
        with pytest.raises(ValueError, match=rf"{name} does not exist. Expected .jsonl"):
            read_dataset(name)
    with pytest.raises(ValueError, match=r"owner/name is not a path on this machine and could not be loaded as split 'train'"):
        open_shards("owner/name")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"ends in '.txt'; expected .jsonl"):
        read_dataset(tmp_path / "a.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"not one written by"):
        read_dataset(tmp_path / "folder")
    (tmp_path / "folder" / "a.arrow").touch()
    with pytest.raises(ValueError, match=r"files that end in '.arrow'"):
        read_dataset(tmp_path / "folder")


def test_a_dataset_of_the_hub(monkeypatch, tmp_path):
    ds = Dataset.from_list(NESTED * 5)
    asked = []
    monkeypatch.setattr("scar_hf.files.reading.load_dataset", lambda name, split: asked.append((name, split)) or ds)
    monkeypatch.chdir(tmp_path)
    (shard,) = open_shards("owner/name-v1.5", split="test")
    assert asked == [("owner/name-v1.5", "test")] and shard.files() == [] and shard.path is None
    assert [len(batch) for batch in shard.batches(4)] == [4, 4, 2] and shard.column_names() == ["messages", "n", "tags"]


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    code = """
import resource, sys
from pathlib import Path
import pyarrow as pa
from scar_hf.files import write_shard
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
table = pa.table({"a": [str(i ** 9) for i in range(50_000)]})
for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.csv", "a.parquet"):
    path = Path(sys.argv[1]) / name
    try:
        write_shard(path, [table])
    except OSError as error:
        print(name, error)
"""
    (tmp_path / "a.csv").write_text("what was there\n")
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stderr == "" and run.stdout.count("File too large: '") == 6, run
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"] and (tmp_path / "a.csv").read_text() == "what was there\n"


def test_an_error_among_the_rows_leaves_the_old_file(tmp_path):
    def rows():
        yield [{"a": 1}]
        raise KeyboardInterrupt

    (tmp_path / "out.jsonl.gz").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "out.jsonl.gz", rows())
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_threads_write_side_by_side(tmp_path):
    threads = [threading.Thread(target=write_shard, args=(tmp_path / f"{i}.csv", [TEXTS])) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({p.read_bytes() for p in tmp_path.iterdir()}) == 1 and len(list(tmp_path.iterdir())) == 4
