"""Responses that refuse, deflect or say nothing, and answers that only sound like them."""

import json
from pathlib import Path

import pytest
from datasets import Dataset

from scar_hf.cli import main
from scar_hf.curation import Curation, Refusals
from scar_hf.curation.refusals import refusal_reason
from scar_hf.files import read_dataset, read_json_rows
from scar_hf.manifest.sidecars import find_manifest
from scar_hf.report import report_files
from scar_hf.rows.pairs import PairReader
from scar_hf.rows.source import rows_of

LABELLED = list(read_json_rows(Path(__file__).parent / "refusals_labelled.jsonl"))
REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Moss grows in damp shade, on the north side of trees and on old roofs, and drinks through its leaves."


def test_labelled_responses_are_told_apart():
    found = [(row["label"], refusal_reason(row["response"])) for row in LABELLED]
    right = sum(label is not None and kind is not None for label, kind in found)
    assert right / sum(kind is not None for _, kind in found) >= 0.98
    assert right / sum(label is not None for label, _ in found) >= 0.97
    assert sum(label != kind for label, kind in found if label and kind) <= 5


@pytest.mark.parametrize(
    "wrap", ["{}", "**{}**", "> {}", "# Answer\n\n{}", "Hello!\n\n{}", '"{}"', "  {}\n\n", "Assistant: {}"]
)
def test_refusals_are_found_in_any_dress(wrap):
    assert refusal_reason(wrap.format(REFUSAL)) == "refusal"
    assert refusal_reason(wrap.format(REFUSAL.replace("'", "’").upper())) == "refusal"
    assert refusal_reason(wrap.format(ANSWER)) is None


def test_words_of_refusal_within_an_answer_are_none():
    for text in (
        f"{ANSWER} {ANSWER} {ANSWER} {REFUSAL}",
        f'"{REFUSAL}" said the clerk and closed the window. {ANSWER}',
        f"```python\nprint({REFUSAL!r})\n```",
        f"def fallback():\n    return {REFUSAL!r}",
        "I can't say for certain, but the bridge was probably built in the summer of 1904 by two brothers.",
    ):
        assert refusal_reason(text) is None, text


def test_empty_texts_and_hostile_ones_have_an_end():
    assert refusal_reason("") == refusal_reason(" \n\t") == "empty phrase"
    for text in (
        "sorry, " * 100_000,
        "i " * 100_000,
        '"' * 100_000,
        "*" * 100_000,
        "but i cannot " * 50_000,
        "\ud800",
        "?" * 1000,
    ):
        refusal_reason(text)


@pytest.fixture
def mixed() -> list[dict[str, str | None]]:
    texts = [
        ANSWER,
        REFUSAL,
        "Sure!",
        None,
        "As an AI, I don't eat, but moss is edible.",
        "Which moss do you mean?",
        f"{ANSWER} So.",
    ]
    return [{"instruction": f"Tell me about moss {i}.", "response": text} for i, text in enumerate(texts)]


def test_the_step_says_what_it_found(mixed):
    curation = Curation([Refusals()])
    curation.add(rows_of(Dataset.from_list(mixed), PairReader()))
    assert curation.dropped() == {
        1: "refusal ('I'm sorry, but I can't help with that.')",
        2: "empty phrase ('Sure!')",
        4: "AI disclaimer ('As an AI, I don't eat, but moss is edible.')",
        5: "deflection ('Which moss do you mean?')",
    }
    assert curation.settings() == [{"step": "refusals"}]
    turns = [
        {"role": role, "content": text}
        for role, text in (("user", "Hi"), ("assistant", ANSWER), ("user", "And?"), ("assistant", REFUSAL))
    ]
    for turn, expected in (("first", []), ("last", [0]), ("all", [0])):
        step = Refusals()
        step.add(rows_of(Dataset.from_list([{"messages": turns}]), PairReader(None, turn)))
        assert list(step.dropped()) == expected


def test_select_leaves_refusals_out_on_request_and_counts_them_otherwise(mixed, tiny_ranker, tmp_path, write_jsonl, capsys):
    data, run = write_jsonl(mixed), ["--model", str(tiny_ranker), "--device", "cpu"]
    assert main(["select", str(data), "-k", "1.0", "-o", str(tmp_path / "all.jsonl"), *run]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "4 kept rows look like refusals or empty phrases: 1 refusal, 1 empty phrase, 1 AI disclaimer, 1 deflection" in said
    assert main(["select", str(data), "-k", "1.0", "-o", str(tmp_path / "out" / "few.jsonl"), "--drop-refusals", *run]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Dropped by curation: 4 rows" in said and "look like" not in said
    assert read_dataset(tmp_path / "out" / "few.jsonl")["response"][:] == [ANSWER, f"{ANSWER} So."]
    manifest = json.loads(find_manifest(tmp_path / "out" / "few.jsonl").read_text(encoding="utf-8"))
    assert manifest["options"]["curation"] == [{"step": "refusals"}]


def test_the_report_counts_refusals_among_the_rows_kept(mixed, scorer, tmp_path, write_jsonl):
    data = write_jsonl(mixed)
    report = report_files(data, None, scorer, 1.0, progress=False)
    assert report.numbers["refusals"] == {
        "rows": 6,
        "kinds": {"refusal": 1, "empty phrase": 1, "AI disclaimer": 1, "deflection": 1},
    }
    assert "Of the 6 rows kept, 4 look like a refusal or an empty phrase" in report.html()
