"""What a run may replace: only what the manifest of its own output names."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from scar_hf.runs import select_files, verify_manifest

run_data = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "run_data.py")))
many_rows, write_shards, contents = run_data.many_rows, run_data.write_shards, run_data.contents


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
        with pytest.raises(ValueError, match=r"is in the place of a file of the output"):
            select_files(data, tmp_path / "c.jsonl", small, 2, progress=False)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    for name in ("manifest.json", "skipped.jsonl", "x.dropped.jsonl"):
        with pytest.raises(ValueError, match=r"a name that scar-hf reserves"):
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

    def slow(source, scorer, **kwargs):
        from scar_hf.runs import score_shards

        (tmp_path / "out" / "notes.txt").write_text("mine")
        return score_shards(source, scorer, **kwargs)

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
