"""Evaluation: rules whose metrics are known beforehand, intervals against slow references, and the command."""

import json
from dataclasses import replace
from itertools import product
from random import Random

import numpy as np
import pytest

from scar_hf.cli import main
from scar_hf.training import Triple, evaluate_ranker
from scar_hf.training.comparisons import ORDERINGS, Comparisons
from scar_hf.training.evaluation import METRICS, evaluate, spread_rows
from scar_hf.training.intervals import CrossAuc, Instructions, Share, difference, mean_measure, measure

TOPICS = ["bees", "rivers", "bread", "glass", "chess", "wool", "tides", "maps", "moss", "clocks", "salt", "kites"]


class Rule:
    """A ranker that is a function of (instruction, response)."""

    def __init__(self, rule):
        self.rule = rule

    def score(self, instructions, responses, progress=False):
        assert len(set(zip(instructions, responses, strict=True))) == len(instructions)  # nothing is scored twice
        return np.array([self.rule(x, y) for x, y in zip(instructions, responses, strict=True)], dtype=np.float32)


def triples(n=12, source="web", domain="open"):
    """Rows with one human and two LLM answers that name their topic, all of about the same length."""
    return [
        Triple(
            f"Tell me about {topic}.",
            {
                "direct": [f"Certainly! Here is what {topic} are, in short: they have been known to people for ages."],
                "referenced": [f"Certainly. In short, {topic} have been known to people for many long ages, it is said."],
                "human": [f"well {topic} have been known to people for ages i think, and that is about it, no idea really"],
            },
            source=source,
            domain=domain,
        )
        for topic in TOPICS[:n]
    ]


def test_a_ranker_that_reads_the_question_is_told_from_one_that_does_not():
    reads = evaluate_ranker(Rule(lambda x, y: float(x.split()[-1].strip(".") in y) + ("Certainly" in y)), triples())["all"]
    blind = evaluate_ranker(Rule(lambda x, y: len(y) + 100 * ("Certainly" in y)), triples())["all"]
    assert reads["right_question_human"] == reads["right_question_llm"] == 1
    assert abs(blind["right_question_human"] - 0.5) < 0.2 and abs(blind["right_question_llm"] - 0.5) < 0.2
    assert reads["refusal_below_human"] == reads["refusal_below_llm"] == 1
    assert blind["truncated_below"] == 1 and blind["llm_human"] == blind["cross_instruction"] == 1


def test_a_ranker_that_likes_refusals_is_shown_with_the_worst():
    liked = "Is there anything else you would like to know?"
    found = evaluate_ranker(Rule(lambda x, y: -len(y)), triples())
    assert found["all"]["refusal_below_human"] < 0.3 and found["all"]["truncated_below"] == 0
    texts = found["refusals"]["human"]
    assert texts == sorted(texts, key=lambda t: t["below"]) and texts[0]["below"] < texts[-1]["below"]
    assert np.mean([t["below"] for t in texts]) == pytest.approx(found["all"]["refusal_below_human"])
    # A refusal that is the response itself is not compared with itself.
    stock = [t["text"] for t in texts]
    rows = [Triple("a", {"direct": ["one two three"], "human": [stock[0]]})]
    assert evaluate_ranker(Rule(lambda x, y: len(y)), rows)["counts"]["all"]["refusal_below_human"] == len(stock) - 1
    assert liked not in stock


def test_mismatches_are_of_other_instructions_and_equal_length():
    rows = [*triples(4), *triples(4), *triples(3, source="lab")]  # the same instructions twice in one source
    found = Comparisons(rows)
    texts = {position: key for key, position in found._keys.items()}
    wrong = [(rows[row], texts[b][1]) for row, _, b in found.pairs["right_question_human"]]
    assert len(wrong) == 11
    for triple, text in wrong:
        assert triple.instruction.split()[-1].strip(".") not in text
        owners = [t for t in rows if text in t.responses["human"]]
        assert triple.source in {t.source for t in owners}
        assert abs(len(text.split()) / len(triple.responses["human"][0].split()) - 1) <= 0.25
    alone = [Triple("a", {"human": ["one two three"], "direct": ["x"]}), Triple("b", {"human": ["one"], "direct": ["x"]})]
    assert "right_question_human" not in Comparisons(alone).pairs  # no other answer is about as long
    assert Comparisons(rows).pairs["right_question_llm"].tolist() == found.pairs["right_question_llm"].tolist()


def test_auc_across_instructions_is_what_counting_gives():
    rng = np.random.default_rng(0)
    rows = [
        Triple(
            f"question {i % 7}",
            {
                "human": [f"h{i}{'x' * int(rng.integers(1, 9))}" for _ in range(2)],
                "direct": [f"d{i}{'x' * int(rng.integers(1, 12))}"],
                "referenced": [f"r{i}{'x' * int(rng.integers(1, 12))}"],
            },
            source="one" if i < 9 else "two",
        )
        for i in range(16)
    ]
    found = evaluate_ranker(Rule(lambda x, y: len(y)), rows)

    def counted(kinds, inside):
        ours = [(t.source, t.instruction, text) for t in inside for kind in kinds for text in t.responses[kind]]
        humans = [(t.source, t.instruction, text) for t in inside for text in t.responses["human"]]
        wins = [0.5 + 0.5 * np.sign(len(a[2]) - len(b[2])) for a, b in product(ours, humans) if a[:2] != b[:2]]
        return np.mean(wins), len(wins)

    for name, inside in (("one", rows[:9]), ("two", rows[9:])):
        value, number = counted(("direct", "referenced"), inside)
        assert found["source"][name]["cross_instruction"] == pytest.approx(value)
        assert found["counts"]["source"][name]["cross_instruction"] == number
    assert found["all"]["cross_instruction_direct"] == pytest.approx(counted(("direct",), rows)[0])


def test_intervals_are_those_of_a_slow_bootstrap():
    rng = np.random.default_rng(1)
    n = 30
    units = np.repeat(np.arange(n), 3)
    ours, theirs = rng.normal(0.5, 1, 3 * n).round(1), rng.normal(0, 1, 3 * n).round(1)
    instructions = Instructions(np.repeat([0, 1], n // 2), samples=200, seed=3)
    outcomes = (ours > theirs).astype(float)
    auc = CrossAuc(units, ours, units, theirs)
    found = measure({"auc": auc, "share": Share(units, outcomes)}, instructions)
    weights = np.concatenate(list(instructions.weights()))
    assert weights.shape == (200, n) and (weights[:, : n // 2].sum(axis=1) == n // 2).all()  # a source keeps its weight
    for draw in range(0, 200, 20):
        w = weights[draw][units]
        other = units[:, None] != units[None, :]
        pairs = w[:, None] * w[None, :] * other
        wins = 0.5 + 0.5 * np.sign(ours[:, None] - theirs[None, :])
        assert found["auc"].draws[draw] == pytest.approx((pairs * wins).sum() / pairs.sum())
        assert found["share"].draws[draw] == pytest.approx((w * outcomes).sum() / w.sum())
    assert found["auc"].low < found["auc"].value < found["auc"].high
    assert found["share"].low == pytest.approx(np.percentile(found["share"].draws, 2.5))


def test_many_answers_to_one_instruction_make_no_interval_narrow():
    once = np.array([0.0, 1.0] * 10)
    instructions = Instructions(np.zeros(20), samples=500, seed=0)
    few = measure({"m": Share(np.arange(20), once)}, instructions)["m"]
    many = measure({"m": Share(np.repeat(np.arange(20), 50), np.repeat(once, 50))}, instructions)["m"]
    assert (few.low, few.high) == pytest.approx((many.low, many.high)) and 0.35 < few.high - few.low < 0.55
    # Where nothing was seen to fail, something still may: the end of Wilson's interval for 20 instructions.
    sure = measure({"m": Share(np.repeat(np.arange(20), 50), np.ones(1000))}, instructions)["m"]
    assert sure.high == 1 and sure.low == pytest.approx(0.839, abs=1e-3)
    never = measure({"m": Share(np.arange(20), np.zeros(20))}, instructions)["m"]
    assert never.low == 0 and never.high == pytest.approx(0.161, abs=1e-3)
    mean = mean_measure([sure, never])
    assert mean.value == 0.5 and mean.low == pytest.approx(0.5 - 0.161 / 2, abs=1e-3)


def test_rankers_are_compared_draw_by_draw():
    rows = triples()
    good = evaluate(Rule(lambda x, y: "Certainly" in y), rows, samples=200)
    same = evaluate(Rule(lambda x, y: 2 * ("Certainly" in y)), rows, samples=200)
    bad = evaluate(Rule(lambda x, y: ("Certainly" not in y) or "moss" in y), rows, samples=200)
    all_rows = ("all", "")
    assert difference(same.groups[all_rows]["llm_human"], good.groups[all_rows]["llm_human"]) == (0, 0, 0)
    value, low, high = difference(bad.groups[all_rows]["llm_human"], good.groups[all_rows]["llm_human"])
    assert low <= value <= high < 0


def test_sources_of_one_instruction_each_leave_no_certainty():
    rows = [replace(triple, source=f"https://a.example/{i}") for i, triple in enumerate(triples())]

    def noisy(seed):
        return evaluate(Rule(lambda x, y: Random(f"{seed} {y}").random()), rows, samples=400)

    ours, theirs = noisy(1), noisy(2)
    for group in (("all", ""), ("source", "https://a.example/3")):
        mine, other = ours.groups[group]["llm_human"], theirs.groups[group]["llm_human"]
        assert mine.high - mine.low > 0.2
        found, low, high = difference(mine, other)
        assert high - low > 0.2 or found == 0
    assert np.ptp(ours.groups["all", ""]["llm_human"].draws) > 0.2, "the sources are drawn from together"
    good = evaluate(Rule(lambda x, y: "Certainly" in y), rows, samples=400)
    bad = evaluate(Rule(lambda x, y: "Certainly" not in y), rows, samples=400)
    one = ("source", "https://a.example/3")
    found, low, high = difference(good.groups[one]["llm_human"], bad.groups[one]["llm_human"])
    assert found == 1 and low < 0.5, "a single instruction"


def test_every_metric_is_there_and_named():
    rows = [*triples(), *triples(6, "lab", "code")]
    found = evaluate_ranker(Rule(lambda x, y: len(y)), rows)
    assert set(found["all"]) == set(METRICS) | {"pairs", "length_matched_pairs"}
    assert "comments_stripped" not in found["source"]["web"] and "comments_stripped" in found["domain"]["code"]
    assert found["macro"] == found["mean"]["llm_human"]
    for metric in METRICS:
        low, high = found["intervals"]["all"][metric]
        assert 0 <= low <= found["all"][metric] <= high <= 1, metric
    assert found["counts"]["all"]["instructions"] == 18 and found["counts"]["all"]["complete"] == 18
    json.dumps(found, allow_nan=False)


def test_rows_without_human_answers_have_no_measures_of_them():
    rows = [Triple(t.instruction, {k: t.responses[k] for k in ("direct", "referenced")}) for t in triples()]
    found = evaluate_ranker(Rule(lambda x, y: len(y)), rows)
    assert "llm_human" not in found["all"] and "macro" not in found and found["all"]["pairs"] == 0
    assert set(found["all"]) > {"direct_referenced", "refusal_below_llm", "right_question_llm", "truncated_below"}
    assert [f"{a}_{b}" for a, b in ORDERINGS if f"{a}_{b}" in found["all"]] == ["direct_referenced"]
    with pytest.raises(ValueError, match="no rows"):
        evaluate_ranker(Rule(len), [])
    with pytest.raises(ValueError, match="at least 2, got 1"):
        evaluate_ranker(Rule(lambda x, y: 0), rows, samples=1)


def test_rows_are_spread_over_each_source():
    rows = [Triple(f"{source} {i}", {}, source=source) for source in ("a", "b") for i in range(10)] + [Triple("c", {})]
    assert [t.instruction for t in spread_rows(rows, 3)] == ["a 0", "a 3", "a 6", "b 0", "b 3", "b 6", "c"]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        spread_rows(rows, 0)


@pytest.fixture
def triples_file(write_jsonl):
    rows = [
        {"instruction": t.instruction, **{k: v[0] for k, v in t.responses.items()}, "source": t.source, "domain": t.domain}
        for t in [*triples(), *triples(8, "lab", "code")]
    ]
    return write_jsonl(rows, "triples.jsonl")


def test_the_command_shows_rankers_side_by_side(triples_file, tiny_ranker, tmp_path, capsys):
    out = tmp_path / "metrics.json"
    args = ["evaluate", triples_file, "--model", "scar-ranker", "--model", tiny_ranker, "-o", out, "--device", "cpu"]
    assert main([*map(str, args), "--max-rows", "6", "--samples", "100"]) == 0
    shown = capsys.readouterr().out
    for title in ("All rows (12 instructions)", "Mean over sources", "Source web", "Source lab"):
        assert title in shown
    assert all(heading in shown for heading in METRICS.values()) and "Worst refusal against human answers" in shown
    found = json.loads(out.read_text())
    assert list(found["rankers"]) == ["scar-ranker", tiny_ranker.name] and found["rows"] == 12
    assert found["triples"] == ["triples.jsonl"] and str(tmp_path) not in out.read_text()
    first, second = (found["rankers"][name]["all"]["llm_human"] for name in found["rankers"])
    delta, low, high = found["differences"][tiny_ranker.name]["all"]["llm_human"]
    assert delta == pytest.approx(second - first) and low <= delta <= high
    assert f"{first:.3f}" in shown and f"{second:.3f}" in shown
    assert main([*map(str, args), "--max-rows", "6"]) == 1
    assert "exists" in capsys.readouterr().err


def test_the_command_prints_markdown_by_domain(triples_file, tiny_ranker, capsys):
    args = ["evaluate", triples_file, "--model", tiny_ranker, "--markdown", "--by", "domain", "--samples", "50"]
    assert main([*map(str, args), "--dtype", "float32"]) == 0
    shown = capsys.readouterr().out
    assert "| Domain code (8 instructions)" in shown and "|---" in shown and "Source web" not in shown


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["nowhere.jsonl"], 1, "nowhere.jsonl does not exist"),
        (["TRIPLES", "--model", "a", "--model", "a"], 2, "must not name a ranker twice"),
        (["TRIPLES", "--max-rows", "0"], 2, "at least 1, got 0"),
        (["TRIPLES", "-o", "metrics.txt"], 2, "must be a .json file"),
        (["TRIPLES", "--model", "no/such-ranker"], 1, "no/such-ranker"),
        (["PLAIN"], 1, "no row with at least two of direct, referenced and human"),
    ],
)
def test_what_cannot_be_evaluated_is_said(args, status, message, triples_file, write_jsonl, capsys):
    plain = write_jsonl([{"instruction": "a", "human": "b"}], "plain.jsonl")
    places = {"TRIPLES": str(triples_file), "PLAIN": str(plain)}
    assert main(["evaluate", *(places.get(arg, arg) for arg in args)]) == status
    assert message in capsys.readouterr().err
