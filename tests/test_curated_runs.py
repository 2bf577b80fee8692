"""Curation as a part of `scar-hf select`: what is left out, and where that is said."""

import json

import pytest

pytest.importorskip("rensa")

from datasets import Dataset

from scar_hf import scar_select
from scar_hf.cli import main
from scar_hf.files import read_dataset
from scar_hf.runs import verify_manifest

STORY = (
    "The lighthouse was built in 1859 on a rock that the sea covers twice a day, and its lamp could be seen for twenty miles; "
    "the keepers were taken off in 1982, and since then nobody has slept there."
)
GERMAN = (
    "Die Brücke wurde im Jahr 1904 gebaut und nach dem großen Hochwasser von 1961 vollständig erneuert, seitdem fahren dort "
    "auch wieder Züge über den Fluss."
)


@pytest.fixture
def data(write_jsonl, rows):
    tail = [
        {"instruction": "Tell me about bees.", "response": rows[0]["response"], "id": 10},
        {"instruction": "When was it built?", "response": STORY, "id": 11},
        {"instruction": "When was it built?", "response": f"{STORY} So it is said.", "id": 12},
        {"instruction": "Wann wurde die Brücke gebaut?", "response": GERMAN, "id": 13},
        {"instruction": "What was asked in the test?", "response": f"It said: {rows[9]['response']} And more.", "id": 14},
        {"instruction": "Nothing?", "response": None, "id": 15},
    ]
    return write_jsonl([*rows, *tail])


def run(*args) -> int:
    return main([str(a) for a in args])


def test_rows_are_left_out_with_their_reasons(data, tiny_ranker, tmp_path, write_jsonl, capsys):
    evaluation = write_jsonl(
        [{"instruction": "Tell me about clocks.", "response": "All about clocks: " + "it is well known. " * 10}], "test.jsonl"
    )
    options = ["--model", tiny_ranker, "--device", "cpu", "--drop-duplicates", "--drop-near-duplicates", "0.7",
               "--languages", "en", "--evaluation", evaluation]  # fmt: skip
    assert run("select", data, "-k", "1.0", "-o", tmp_path / "out" / "o.jsonl", "--explain", *options) == 0
    kept = read_dataset(tmp_path / "out" / "o.jsonl")["id"][:]
    listed = [json.loads(line) for line in (tmp_path / "out" / "o.jsonl.dropped.jsonl").read_text().splitlines()]
    reasons = {entry["row"]: entry["reason"] for entry in listed}
    assert set(kept) == set(range(15)) - set(reasons)
    assert reasons[13].startswith("language: de") and reasons[9].startswith("in the evaluation set: row 0 of ")
    assert ({0, 10} & set(reasons)) and ({11, 12} & set(reasons)) and not ({0, 10} <= set(reasons) or {11, 12} <= set(reasons))
    assert any(reason.startswith("near-duplicate of row 1") for reason in reasons.values())
    manifest = json.loads((tmp_path / "out" / "o.jsonl.manifest.json").read_text())
    assert manifest["selection"]["dropped"] == len(reasons) and manifest["dropped_rows"] == "o.jsonl.dropped.jsonl"
    assert [step["threshold"] for step in manifest["options"]["curation"] if "threshold" in step] == [0.7]
    assert all(check.passed is not False for check in verify_manifest(tmp_path / "out" / "o.jsonl"))
    said = capsys.readouterr().out
    assert f"Dropped by curation: {len(reasons)} rows" in said and "near-duplicate" in said

    assert run("explain", data, "-k", "1.0", "--row", 13, *options) == 0
    said = capsys.readouterr().out
    assert "row 13 of data.jsonl: dropped" in said and "language: de" in said
    # The same command finds its output; without curation it is another run.
    assert run("select", data, "-k", "1.0", "-o", tmp_path / "out" / "o.jsonl", "--explain", *options) == 0
    assert run("select", data, "-k", "1.0", "-o", tmp_path / "out" / "o.jsonl", "--explain", *options[:4]) == 1


def test_a_share_is_one_of_all_rows(data, tiny_ranker, tmp_path):
    select = ["select", data, "--quiet", "--model", tiny_ranker, "--device", "cpu"]
    assert run(*select, "-k", "0.25", "-o", tmp_path / "a.jsonl", "--drop-duplicates", "--languages", "en") == 0
    assert len(read_dataset(tmp_path / "a.jsonl")) == 4  # of 16
    assert run(*select, "-k", "1.0", "-o", tmp_path / "b.jsonl", "--languages", "de") == 0
    assert 13 in read_dataset(tmp_path / "b.jsonl")["id"][:]
    assert run(*select, "-k", "3", "-o", tmp_path / "c.jsonl", "--drop-near-duplicates", "1.5") == 2
    assert run(*select, "-k", "3", "-o", tmp_path / "c.jsonl", "--languages", "klingon") == 2


def test_quotas_and_diversity_over_files_are_those_of_datasets(rows, tiny_ranker, tmp_path, write_jsonl, capsys):
    many = [{**row, "source": "ab"[i % 3 == 0], "response": f"{row['response']} {i}."} for i, row in enumerate(rows * 4)]
    data = write_jsonl(many)
    command = [
        "select",
        data,
        "-k",
        "0.25",
        "--model",
        tiny_ranker,
        "--device",
        "cpu",
        "--stratify-by",
        "source",
        "--diversity",
        "0.5",
    ]
    assert run(*command, "-o", tmp_path / "o.jsonl", "--explain") == 0
    found = read_dataset(tmp_path / "o.jsonl")
    expected = scar_select(Dataset.from_list(many), k=0.25, stratify_by="source", diversity=0.5, model=str(tiny_ranker),
                           device="cpu", progress=False)  # fmt: skip
    assert found["response"][:] == expected["response"][:] and sorted(found["source"][:]) == ["a"] * 6 + ["b"] * 4
    assert "quotas for 'source' and diversity 0.5" in found["scar_reason"][0]
    assert run("select", data, "-k", "2", "-o", tmp_path / "p.jsonl", "--stratify-by", "color") == 1
    assert run("select", data, "-k", "2", "-o", tmp_path / "p.jsonl", "--diversity", "2") == 2
    said = capsys.readouterr().err
    assert "--stratify-by names the column 'color'" in said and "`diversity` must be in [0, 1]" in said


def test_another_evaluation_set_of_the_same_name_gives_another_output(data, tiny_ranker, tmp_path, write_jsonl):
    out, options = tmp_path / "o.jsonl", ["-k", "1.0", "--model", tiny_ranker, "--device", "cpu", "--quiet"]
    row = {"instruction": "Tell me about clocks.", "response": "All about clocks: " + "it is well known. " * 10}
    evaluation = write_jsonl([row], "test.jsonl")
    assert run("select", data, "-o", out, "--evaluation", evaluation, *options) == 0
    assert str(tmp_path) not in (tmp_path / "o.jsonl.dropped.jsonl").read_text()
    write_jsonl([row | {"instruction": "Else?", "response": "What is this about? Nothing that occurs there."}], "test.jsonl")
    assert run("select", data, "-o", out, "--evaluation", evaluation, *options) == 1, "the old output is not taken for this one"
