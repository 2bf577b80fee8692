"""What a judge says of a grid with several shares, and comparisons whose outcomes are all equal."""

import json

import numpy as np
import pytest

from scar_hf.ablation import AblationSettings, PairwiseJudge, compare_cells, result_of, sentence_of
from scar_hf.synthesis.backends import Completion

N = 12
QUALITY = {"bad": 0, "middling": 1, "good": 2, "best": 3}


class Judge:
    """Prefers the answer of the higher quality."""

    model, concurrency = "judge", 2
    asked = 0

    async def complete(self, messages, sampling) -> Completion:
        self.asked += 1
        parts = messages[1]["content"].split("Answer A:\n")[1].split("Answer B:\n")
        first, second = (QUALITY[part.split()[0]] for part in parts)
        better = "tie" if first == second else "A" if first > second else "B"
        return Completion(json.dumps({"better": better}), "stop", 1, 1)

    async def close(self) -> None:
        pass

    def describe(self) -> dict:
        return {"model": self.model}


def cell(method: str, k: float, quality: str, rows: int = N, **more) -> dict:
    draw = np.random.default_rng(len(method))
    return {
        "cell": {"method": method, "k": k, "budget": "steps", "seed": 0},
        "nll": {"human": draw.random(rows).tolist()},
        "style": {"words": draw.random(rows).tolist()},
        "answers": [f"{quality} {i}" for i in range(rows)],
        **more,
    }


def judge_rows(cells: list[dict], **options) -> dict[tuple, dict]:
    found = [row for row in compare_cells(cells, **options) if row["measure"] == "judge"]
    return {(row["method"], row["k"], row["baseline_k"]): row for row in found}


@pytest.fixture
def cells() -> list[dict]:
    """A tenth of random rows is worse than everything, and a quarter is better."""
    random = [cell("random", 0.1, "bad"), cell("random", 0.25, "good")]
    return [*random, cell("everything", 1.0, "middling"), cell("scar", 0.1, "best"), cell("scar", 0.25, "best")]


def test_everything_is_judged_at_each_share(cells, tmp_path):
    judge = Judge()
    judged = PairwiseJudge(judge).judge_cells(cells, [f"Question {i}?" for i in range(N)], tmp_path, progress=False)
    found = judge_rows(judged)
    assert {key: (row["value"], row["baseline"], row["verdict"]) for key, row in found.items()} == {
        ("everything", 1.0, 0.1): (1.0, 0.5, "better"),
        ("everything", 1.0, 0.25): (0.0, 0.5, "worse"),
        ("scar", 0.1, 0.1): (1.0, 0.5, "better"),
        ("scar", 0.25, 0.25): (1.0, 0.5, "better"),
    }
    # SCAR and everything are compared by their wins against the same random rows.
    between = judge_rows([own for own in judged if own["cell"]["method"] != "random"], baseline="everything")
    assert {key: (row["value"], row["baseline"]) for key, row in between.items()} == {
        ("scar", 0.1, 1.0): (1.0, 1.0),
        ("scar", 0.25, 1.0): (1.0, 0.0),
    }
    # What is kept as JSON gives the same, and what was asked is not asked again.
    assert judge_rows(json.loads(json.dumps(judged))) == found
    asked = judge.asked
    assert PairwiseJudge(judge).judge_cells(cells, [f"Question {i}?" for i in range(N)], tmp_path, False) == judged
    assert judge.asked == asked == 2 * N * 4

    settings = AblationSettings("lm", k=(0.1, 0.25), methods=("scar", "random", "everything"), budgets=("steps",), seeds=1)
    grid = {"settings": settings.describe(), "data": {"rows": 300}, "held_out": {"rows": N, "kinds": ["human"]}, "versions": {}}
    result = result_of(grid, settings, judged)
    values = {(row["cell"]["method"], row["cell"]["k"]): row["values"].get("judge") for row in result.numbers["cells"]}
    assert values == {("random", 0.1): 0.5, ("random", 0.25): 0.5, ("everything", 1): None, ("scar", 0.1): 1, ("scar", 0.25): 1}
    assert "all, against 0.25" in result.html()
    # With one share there is one number.
    one = AblationSettings("lm", k=(0.25,), methods=("scar", "random", "everything"), budgets=("steps",), seeds=1)
    table = result_of(grid, one, [own for own in judged if own["cell"]["k"] != 0.1]).numbers["cells"]
    assert [row["values"]["judge"] for row in table] == [0.5, 0.0, 1.0]


def test_outcomes_of_an_unknown_share_are_not_used(cells):
    old = [own | {"judge": [0.5 if own["cell"]["method"] == "random" else 1.0] * N} for own in cells]
    assert set(judge_rows(old)) == {("scar", 0.1, 0.1), ("scar", 0.25, 0.25)}
    assert judge_rows(old, baseline="everything") == {}


def test_equal_outcomes_are_told_as_they_are():
    def compared(rows: int, own: float) -> dict:
        pair = [cell("random", 0.1, "bad", rows, judge=[0.5] * rows), cell("scar", 0.1, "best", rows, judge=[own] * rows)]
        return judge_rows(pair)["scar", 0.1, 0.1]

    won, lost, few, same = compared(12, 1.0), compared(12, 0.0), compared(5, 1.0), compared(12, 0.5)
    verdicts = [row["verdict"] for row in (won, lost, few, same)]
    assert verdicts == ["better", "worse", "no difference shown", "no difference shown"]
    assert all(row["low"] is None and row["rows_needed"] is None for row in (won, lost, few, same))
    title = "wins by the judge, ties as halves"
    assert sentence_of(won) == f"SCAR beats random: {title} (+50.0 %, the same for each of 12 instructions)."
    assert sentence_of(lost) == f"SCAR is beaten by random: {title} (-50.0 %, the same for each of 12 instructions)."
    assert sentence_of(few).endswith(f"{title} (+50.0 %). 5 instructions are too few for an interval.")
    assert sentence_of(same).endswith(f"{title} (+0.0 %). Both have the same values.")


class JudgeOfLength(Judge):
    """Prefers the longer answer, unless both begin alike, where it always prefers the first."""

    async def complete(self, messages, sampling) -> Completion:
        first, second = messages[1]["content"].split("Answer A:\n")[1].split("\n\nReply")[0].split("\n\nAnswer B:\n")
        better = "A" if first[0] == second[0] or len(first) > len(second) else "B"
        return Completion(json.dumps({"better": better}), "stop", 1, 1)


def test_a_judge_sees_both_orders_and_disagreement_is_a_tie(tmp_path):
    cells = [cell("random", 0.1, "", 3) | {"answers": ["bb", "b", "xy"]}]
    cells.append(cell("scar", 0.1, "", 3) | {"answers": ["a", "aaa", "xyz"]})
    judged = PairwiseJudge(JudgeOfLength()).judge_cells(cells, ["p", "q", "r"], tmp_path, progress=False)
    by_method = {own["cell"]["method"]: own["judge"] for own in judged}
    assert by_method == {"random": [0.5, 0.5, 0.5], "scar": [0.0, 1.0, 0.5]}
    assert len((tmp_path / "judge.completions.jsonl").read_text().splitlines()) == 6
