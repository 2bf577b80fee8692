"""JSON Lines, JSON and CSV, plain and compressed: what passes through untouched, and what is said of damaged files."""

import csv
import gzip
import itertools
import json
import math
import sys

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from scar_hf.cli import main
from scar_hf.files import (
    check_output,
    open_shards,
    read_dataset,
    read_json_rows,
    write_shard,
)

TEXTS = [
    {"id": "007", "text": 'She said "no",\nthen left\r\n', "note": ""},
    {"id": "1e5", "text": "a\rb\u2028c", "note": " NA "},
    {"id": "", "text": "日本語 🐝", "note": "null"},
]
JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def all_rows(data, **options) -> list[dict]:
    """What a reader of shards sees, as objects."""
    batches = [batch for shard in open_shards(data) for batch in shard.batches(**options)]
    return list(itertools.chain.from_iterable(b if isinstance(b, list) else b.to_pylist() for b in batches))


def test_csv_cells_stay_the_texts_they_were(tmp_path):
    path = tmp_path / "out.csv"
    write_shard(path, [TEXTS])
    assert all_rows(path) == TEXTS == read_dataset(path).to_list()
    again = tmp_path / "again.csv"
    write_shard(again, open_shards(path)[0].batches(1))
    assert again.read_bytes() == path.read_bytes()
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == TEXTS
    table = pa.table({"s": [0.5, None], "m": [[{"role": "user"}], None]})
    write_shard(path, [table])
    assert all_rows(path) == [{"s": "0.5", "m": '[{"role": "user"}]'}, {"s": "", "m": ""}]


def test_csv_with_a_huge_cell_a_bom_and_blank_lines(tmp_path):
    path = tmp_path / "huge.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n" + b"x" * 300_000 + b',"1"\r\n\r\n,2')
    assert [(len(row["a"]), row["b"]) for row in all_rows(path)] == [(300_000, "1"), (0, "2")]
    assert open_shards(path)[0].column_names() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,"2\n3"\n4\n', r"line 4: expected 2 cells as in the header, got 1"),
        ("a,b\n1,2\n3,4,5\n", r"line 3: expected 2 cells as in the header, got 3"),
        ('a,b\n1,2\n3,"half', r"line 3: not valid CSV .* cut off"),
        ('a,b\n1,"2"x\n', r"line 2: not valid CSV"),
        ("a,a\n1,2\n", r"names 'a' twice"),
    ],
)
def test_damaged_csv(text, message, tmp_path):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_dataset(tmp_path / "bad.csv")


def test_csv_that_cannot_hold_the_rows(tmp_path):
    path = tmp_path / "out.csv"
    with pytest.raises(ValueError, match=r"row 2 has a column 'b', but the header has only \['a'\]"):
        write_shard(path, [[{"a": "1"}], [{"b": "2"}]])
    with pytest.raises(ValueError, match=r"cannot encode.* Write .jsonl"):
        write_shard(path, [[{"a": "\ud800"}]])
    assert not list(tmp_path.iterdir())
    write_shard(path, [[{"a": "1"}], [{"b": "2"}]], pa.schema([("b", pa.string()), ("a", pa.string())]))
    assert all_rows(path) == [{"b": "", "a": "1"}, {"b": "2", "a": ""}]


def test_objects_pass_through_untouched(tmp_path):
    rows = [
        {"b": 1, "a": None},
        {"a": {"x": [1, "y", {}]}},
        {},
        {"s": "\ud800", "é": "\ue000"},
        {"f": float("inf"), "n": 10**30},
    ]
    for suffix in (*JSON_LINES, ".json"):
        write_shard(tmp_path / f"out{suffix}", [rows])
        assert [list(row.items()) for row in all_rows(tmp_path / f"out{suffix}")] == [list(row.items()) for row in rows]
    assert '{"s": "\\ud800", "\\u00e9": "\\ue000"}' in (tmp_path / "out.jsonl").read_text()
    write_shard(tmp_path / "nan.jsonl", [pa.table({"f": [math.nan, None], "t": pa.array([0, 1], pa.timestamp("s"))})])
    assert (tmp_path / "nan.jsonl").read_text().startswith('{"f": NaN, "t": "1970-01-01 00:00:00"}\n{"f": null,')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, database=None)
@given(rows=st.lists(st.dictionaries(st.text(st.characters()), json_values, max_size=4), max_size=6))
def test_any_objects_survive(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    expected = json.loads(json.dumps(rows))  # two halves of a surrogate pair side by side become one character
    for suffix in (".jsonl", ".jsonl.gz", ".json"):
        write_shard(folder / f"out{suffix}", [rows])
        assert all_rows(folder / f"out{suffix}", rows=2) == expected


def test_json_lines_with_bom_blank_lines_and_line_separators(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes('\ufeff{"a": "x\u2028y\u0085"}\r\n\n  \n{"a": 2}'.encode())
    assert list(read_json_rows(path)) == [{"a": "x\u2028y\u0085"}, {"a": 2}]
    path = tmp_path / "data.json.gz"
    path.write_bytes(gzip.compress("\ufeff [\n {} ,\r\n{} ]\n".encode()))
    assert all_rows(path) == [{}, {}]
    assert open_shards(path)[0].column_names() is None


def test_a_json_list_is_read_in_pieces(tmp_path):
    rows = [{"text": "né " * 50_000, "i": i} for i in range(3)] + [{"i": i} for i in range(20_000)]
    write_shard(tmp_path / "big.json", [rows])
    assert all_rows(tmp_path / "big.json") == rows == json.loads((tmp_path / "big.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"rows": []}', r"expected a list of objects, got dict. JSON Lines must be named .jsonl"),
        ("[{}, 3]", r"a list whose item 2 is int"),
        ("", r"it is empty.*[Cc]ut off"),
        ("[{}, {]", r"item 2: Expecting property name"),
        ("[{} {}]", r"'{' after item 1"),
        ("[{}] []", r"'\[' after the end"),
        ("[{},]", r"not valid JSON \(item 2"),
        ("[" * 100_000, r"not valid JSON \(item 1"),
    ],
)
def test_damaged_json(text, message, tmp_path):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_dataset(tmp_path / "bad.json")


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_damaged_lines_are_named(suffix, tmp_path):
    path = tmp_path / f"bad{suffix}"
    for data, message in (
        (b'{"a": 1}\n[2]\n', r"line 2: expected a JSON object, got list"),
        (b'{"a": 1}\n{"a": oops}\n{"a": 3}\n', r"line 2: not valid JSON \(.*\)\.$"),
        (b'{"a": 1}\n{"a": "\xff"}\n', r"line 2: not UTF-8"),
        (b'{"a": 1}\n{"a": ' + b"[" * 100_000 + b"\n", r"line 2: not valid JSON"),
        (b'{"a": 1}\n{"a": "x"}\n', r"values of different types"),
    ):
        path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
        with pytest.raises(ValueError, match=message):
            read_dataset(path)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_damaged_compressed_files(suffix, tmp_path):
    path = tmp_path / f"bad{suffix}"
    for data in (b"", b"no archive at all\n"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"bad{suffix}.*cut off or damaged"):
            read_dataset(path)


def test_compressed_files_of_several_frames(tmp_path):
    lines = [json.dumps({"i": i}).encode() + b"\n" for i in range(2)]
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, lines)))
    skippable = (0x184D2A50).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"any."
    frames = [zstandard.ZstdCompressor().compress(line) for line in lines]
    (tmp_path / "a.jsonl.zst").write_bytes(skippable + frames[0] + skippable + frames[1])
    assert all_rows(tmp_path / "a.jsonl.gz") == all_rows(tmp_path / "a.jsonl.zst") == [{"i": 0}, {"i": 1}]
    (tmp_path / "a.jsonl.zst").write_bytes(frames[0] + frames[1][:-3])
    with pytest.raises(ValueError, match=r"ends within a frame"):
        all_rows(tmp_path / "a.jsonl.zst")


def test_zst_without_its_library_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl.zst").touch()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for call in (lambda: open_shards(tmp_path / "a.jsonl.zst"), lambda: check_output(tmp_path / "b.jsonl.zst")):
        with pytest.raises(ImportError, match=r'pip install "scar-hf\[zst\]"'):
            call()


@pytest.mark.parametrize("source", ["jsonl", "folder"])
def test_formulas_are_marked_on_request(source, tmp_path, tiny_ranker, capsys):
    texts = ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "plain", "a=1", "-1.5", "+3e4", "", "'=", " =1"]
    rows = [{"instruction": text, "response": "fine", "=name": "ok", "n": -2} for text in texts]
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if source == "folder":
        (tmp_path / "in").mkdir()
        write_shard(tmp_path / "in" / "a.csv", [rows])
        data = tmp_path / "in"
    out = tmp_path / ("o.csv" if source == "jsonl" else "out")
    command = ["score", str(data), "-o", str(out), "--model", str(tiny_ranker), "--quiet"]

    def read() -> list[dict]:
        with open(out / "a.csv" if out.is_dir() else out, newline="") as file:
            return list(csv.DictReader(file))

    assert main(command) == 0
    assert [row["instruction"] for row in read()] == texts
    assert main([*command, "--safe-csv", "--overwrite"]) == 0
    found = read()
    assert [row["instruction"] for row in found] == [f"'{t}" if i < 6 else t for i, t in enumerate(texts)]
    assert all(row["'=name"] == "ok" and row["n"] == "-2" and float(row["scar_score"]) < 99 for row in found)
    assert main(["verify", str(out)]) == 0 and "FAILED" not in capsys.readouterr().out
    assert main(["score", str(data), "-o", str(tmp_path / "o.jsonl"), "--safe-csv", "--model", str(tiny_ranker)]) == 1
    assert "(--safe-csv) applies to CSV" in capsys.readouterr().err
