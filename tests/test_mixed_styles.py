"""The example of mixed styles is made from Dolly and triples, each instruction once."""

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

MAKE = Path(__file__).parent.parent / "examples" / "mixed_styles" / "make.py"
WORDS = "the river runs past the mill and the old stone bridge to the sea"


def instruction(i: int) -> str:
    return f"What is known about river number {i}?"


@pytest.fixture
def inputs(write_jsonl):
    dolly = [{"instruction": instruction(i), "response": f"Of number {i}: {WORDS}."} for i in range(200)]
    triples = [
        {
            "instruction": instruction(i).upper() if i % 2 else instruction(i),
            "human": f"Of number {i}: {WORDS}.",
            "direct": {"large": f"Direct answer {i}: {WORDS}."} | ({"small": f"Small answer {i}."} if i < 5 else {}),
            "referenced": {"large": f"Rewritten answer {i}: {WORDS}."} if i < 20 else {},
        }
        for i in range(60)
    ]
    triples[0]["direct"]["large"] = triples[0]["referenced"]["large"] = "I'm sorry, but I can't help with that."
    triples.append({"instruction": "Write a function.", "direct": {"large": "def f(): pass"}, "referenced": {}})
    return write_jsonl(dolly, "dolly.jsonl"), write_jsonl(triples, "triples.jsonl")


@pytest.fixture
def make(monkeypatch):
    """Runs the script with these arguments."""
    spec = importlib.util.spec_from_file_location("make_mixed_styles", MAKE)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*args) -> None:
        monkeypatch.setattr(sys, "argv", [str(MAKE), *map(str, args)])
        script.main()

    return run


def test_rows_are_of_three_kinds_and_no_instruction_comes_twice(make, inputs, tmp_path, capsys):
    out = tmp_path / "mixed.jsonl"
    make(*inputs, "--rows", 100, "-o", out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert Counter(row["source"] for row in rows) == {"human": 55, "direct": 30, "referenced": 15}
    assert len({row["instruction"] for row in rows}) == len(rows) == 100
    beginnings = {"human": "Of number", "direct": "Direct answer", "referenced": "Rewritten answer"}
    for row in rows:
        assert row["response"].startswith(beginnings[row["source"]])
        number = int(row["instruction"].split()[-1].rstrip("?"))
        assert f" {number}: " in row["response"] and (row["source"] == "human") == (number >= 60)
    assert "100 rows in" in capsys.readouterr().out and "sorry" not in out.read_text(encoding="utf-8")
    first = out.read_bytes()
    make(*inputs, "--rows", 100, "-o", out)
    assert out.read_bytes() == first


def test_what_cannot_be_made_is_said(make, inputs, tmp_path):
    dolly, triples = inputs
    with pytest.raises(SystemExit, match="0 referenced responses"):
        make(dolly, triples, "--model", "small", "-o", tmp_path / "mixed.jsonl")
    with pytest.raises(SystemExit, match="no direct or referenced response"):
        make(dolly, dolly, "-o", tmp_path / "mixed.jsonl")
    assert not (tmp_path / "mixed.jsonl").exists()
