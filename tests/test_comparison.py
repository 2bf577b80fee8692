"""What different methods keep, side by side: overlap, correlation, spreads, shares."""

import json

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import spearmanr

from scar_hf import scar_rank
from scar_hf.cli import main
from scar_hf.comparison import compare_methods


@pytest.fixture(scope="module")
def rows() -> Dataset:
    draw = np.random.default_rng(0)
    words = ["bee", "river", "stone", "lamp", "cloud"]
    made = []
    for i in range(60):
        text = " ".join(draw.choice(words, size=int(draw.integers(3, 40))))
        made.append(
            {
                "instruction": f"Ask {i}?",
                "response": f"{text}.",
                "source": ("a", "<i>b")[i % 2],
                "reward": float(len(text)) ** 2,
            }
        )
    return Dataset.from_list(made)


def test_overlap_correlation_and_shares_are_those_of_the_selections(rows):
    methods = ["longest", "random", "reward"]
    numbers = compare_methods(rows, [0.2], methods, group_by="source", progress=False).numbers
    kept = [
        set(scar_rank(rows, method=m, progress=False).select(0.2).indices.tolist()) for m in ("longest", "random", "reward")
    ]
    for i in range(3):
        for j in range(3):
            assert numbers["overlap"][0][i][j] == pytest.approx(len(kept[i] & kept[j]) / len(kept[i] | kept[j]), abs=1e-5)
    scores = [scar_rank(rows, method=m, progress=False).scores for m in ("longest", "random")]
    assert numbers["correlation"][0][1] == pytest.approx(spearmanr(*scores)[0], abs=1e-4)
    assert numbers["correlation"][0][2] > 0.99
    longest = numbers["sets"][0]
    assert longest["rows"] == 12 and sum(longest["groups"].values()) == pytest.approx(1)
    assert numbers["words"] == pytest.approx(np.median([len(row["response"].split()) for row in rows]), abs=0.06)
    responses = np.array([len(rows[i]["response"].split()) for i in sorted(kept[0])])
    assert longest["style"]["words"]["spread_after"] == pytest.approx(responses.std(ddof=1), rel=1e-6)
    assert longest["style"]["words"]["low"] is not None and longest["style"]["words"]["random"] is not None


def test_columns_of_any_names_are_compared(rows, write_jsonl, tmp_path):
    named = rows.rename_columns({"instruction": "ask", "response": "reply"}).to_list()
    command = ["compare", str(write_jsonl(named)), "-k", "0.2", "--methods", "longest", "random", "--columns", "ask,reply"]
    assert main([*command, "-o", str(tmp_path / "page.html")]) == 0
    expected = compare_methods(rows, [0.2], ["longest", "random"], progress=False).numbers
    found = json.loads((tmp_path / "page.json").read_text())
    assert [part["style"] for part in found["sets"]] == [part["style"] for part in expected["sets"]]


def test_the_command_writes_page_numbers_and_figures(rows, write_jsonl, tmp_path, capsys):
    page = tmp_path / "comparison.html"
    data = write_jsonl(rows.to_list())
    assert (
        main(["compare", str(data), "-k", "0.2", "--methods", "longest", "random", "--group-by", "source", "-o", str(page)])
        == 0
    )
    assert "longest, k=0.2: 12 rows" in capsys.readouterr().out
    html = page.read_text()
    assert "<script" not in html and "random draws" in html and html.count("<svg") == 2
    assert "&lt;i&gt;b" in html and "<i>" not in html
    numbers = json.loads(page.with_suffix(".json").read_text())
    words = numbers["sets"][0]["style"]["words"]
    change, low, high = (f"{100 * words[name]:+.0f}" for name in ("spread_change", "low", "high"))
    assert numbers["rows"] == 60 and f"{change} ({low} to {high})" in html.replace("\N{NO-BREAK SPACE}", " ")
    assert {file.name for file in (tmp_path / "comparison").iterdir()} == {"spreads-0.png", "overlap-0.png"}


def test_sets_without_any_spread_are_shown_without_it(rows, tmp_path):
    comparison = compare_methods(rows, [1, 10], ["longest", "random"], progress=False)
    comparison.save(tmp_path / "page.html")
    assert {file.name for file in (tmp_path / "page").iterdir()} == {"overlap-0.png", "spreads-1.png", "overlap-1.png"}
    assert "longest, k=1: 1 rows" in str(comparison)


def test_what_cannot_be_compared_is_told(rows):
    with pytest.raises(ValueError, match="at least one method"):
        compare_methods(rows, [0.1], [], progress=False)
    with pytest.raises(ValueError, match="`group_by` names the column 'origin'"):
        compare_methods(rows, [0.1], ["random"], group_by="origin", progress=False)
