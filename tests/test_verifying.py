"""Manifests: changed, forged and malformed ones are noticed."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from scar_hf.cli import main
from scar_hf.manifest.sidecars import find_manifest
from scar_hf.runs import select_files, verify_manifest

run_data = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "run_data.py")))
many_rows = run_data.many_rows


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


@pytest.mark.parametrize("content", [b"[]", b"3", b'{"cut', b"\xff", b"[" * 100_000, b"NaN", b""])
def test_a_manifest_that_cannot_be_read_is_named(content, write_jsonl, tmp_path, capsys):
    data = write_jsonl([{"instruction": "q", "output": "a"}])
    (tmp_path / "data.jsonl.manifest.json").write_bytes(content)
    assert main(["verify", str(data)]) == 1
    said = capsys.readouterr().err
    assert "data.jsonl.manifest.json is not a manifest of scar-hf, or is damaged" in said and said.count("\n") == 1
