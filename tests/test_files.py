"""Reading and writing instruction sets, and what is said of damaged ones."""

import json

import pytest
from datasets import Dataset, DatasetDict

from scar_hf.files import check_output, read_dataset, write_dataset

NESTED = [
    {"messages": [{"role": "user", "content": "Hi – ½"}, {"role": "assistant", "content": "Ho"}], "n": 1, "tags": ["a"]},
    {
        "messages": [{"role": "user", "content": "He\u2028y"}, {"role": "assistant", "content": 'Say "yes"\n'}],
        "n": None,
        "tags": [],
    },
]


@pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out.parquet", "folder"])
def test_round_trip(name, tmp_path):
    ds = Dataset.from_list(NESTED)
    path = write_dataset(ds, tmp_path / "deep" / name)
    assert read_dataset(path).to_list() == NESTED
    assert [p.name for p in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.json", "empty.parquet"])
def test_no_rows(name, tmp_path):
    path = write_dataset(Dataset.from_dict({"instruction": [], "response": []}), tmp_path / name)
    assert len(read_dataset(path)) == 0


def test_an_existing_output_needs_overwrite(tmp_path):
    ds = Dataset.from_list(NESTED)
    for name in ("a.jsonl", "folder"):
        write_dataset(ds, tmp_path / name)
        with pytest.raises(ValueError, match=r"exists. Pass --overwrite"):
            write_dataset(ds, tmp_path / name)
        write_dataset(ds.select([1]), tmp_path / name, overwrite=True)
        assert len(read_dataset(tmp_path / name)) == 1
    with pytest.raises(ValueError, match=r"ends in '.xlsx'"):
        check_output(tmp_path / "a.xlsx")


def test_rows_may_lack_columns(tmp_path, write_jsonl):
    ds = read_dataset(write_jsonl([{"a": 1}, {"b": "x"}]))
    assert ds.to_list() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


@pytest.mark.parametrize("name", ["cut.jsonl", "cut.json", "cut.parquet"])
def test_a_file_cut_in_the_middle(name, tmp_path):
    path = write_dataset(Dataset.from_list(NESTED * 50), tmp_path / name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 - 3])
    with pytest.raises(ValueError, match=rf"{name}.*([Cc]ut off)"):
        read_dataset(path)


def test_damaged_lines_are_named(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"a": 1}\n[2]\n')
    with pytest.raises(ValueError, match=r"line 2: expected a JSON object, got list"):
        read_dataset(path)
    path.write_text('{"a": 1}\n{"a": oops}\n{"a": 3}\n')
    with pytest.raises(ValueError, match=r"line 2: not valid JSON"):
        read_dataset(path)
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(ValueError, match=r"not UTF-8"):
        read_dataset(path)
    path.write_text('{"a": 1}\n{"a": "x"}\n')
    with pytest.raises(ValueError, match=r"values of different types"):
        read_dataset(path)
    path = tmp_path / "object.json"
    path.write_text(json.dumps({"rows": []}))
    with pytest.raises(ValueError, match=r"expected a list of objects, got dict"):
        read_dataset(path)


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"does not exist"):
        read_dataset(tmp_path / "nothing.jsonl")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"ends in '.txt'; expected .jsonl"):
        read_dataset(tmp_path / "a.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"not one written by"):
        read_dataset(tmp_path / "folder")
    DatasetDict(train=Dataset.from_list(NESTED)).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match=r"holds the splits \['train'\]"):
        read_dataset(tmp_path / "splits")
