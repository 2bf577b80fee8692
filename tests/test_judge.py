"""Ratings by a model that judges, from columns, and whether the judge can be trusted."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scar_hf.modeling.loss_scar import ranking_loss

from scar_hf.cli import main
from scar_hf.synthesis.ratings import Rating, parse_rating, parse_ratings
from scar_hf.training import load_triples
from scar_hf.training.triples import TripleDataset

endpoint = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "fault_server.py"))).endpoint
TOPICS = ("bees", "rivers", "bread", "glass", "chess", "wool", "tides", "maps", "moss", "clocks", "salt", "kites")


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def triples(write_jsonl):
    """A dozen triples, each about its topic from the first word to the last."""

    def text(topic: str, who: str) -> str:
        return " ".join(f"{topic}{i}" for i in range(12)) + f" said the {who} about {topic}."

    rows = [
        {
            "instruction": f"Tell me about {topic}.",
            "human": text(topic, "human"),
            "direct": {"small": text(topic, "small"), "large": text(topic, "large")},
            "referenced": {"small": text(topic, "rewriter")},
            "colour": "red",
        }
        for topic in TOPICS
    ]
    return write_jsonl(rows, "triples.jsonl")


def parts_of(request: dict) -> tuple[str, str]:
    """The topic that is asked about and the answer, as the bundled prompt holds them."""
    text = request["messages"][-1]["content"]
    answer = text.split("Answer:\n", 1)[1].split("\n\nReply with")[0]
    return text.split("Tell me about ", 1)[1].split(".")[0], answer


def honest(request: dict) -> str:
    """Rates whole sentences about the topic 8 and 9, all else low."""
    topic, answer = parts_of(request)
    words = answer.split()
    whole = words[0] == f"{topic}0" and words[-1] == f"{topic}." and words[1] == f"{topic}1"
    return json.dumps({"helpfulness": 8, "correctness": 9} if whole else {"helpfulness": 2, "correctness": 1})


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("7.5", 7.5),
        ("**4**", 4),
        ("8/9", 8),
        ("8 out of 9", 8),
        ("Helpfulness: 7", 7),
        (" 0\n", 0),
        ("9", 9),
        ("Rating: 6.", 6),
        ("7 - clear and to the point", 7),
        ("(0-9): 5", 5),
        (" - 7", 7),
        ("10", None),
        ("9.5", None),
        ("-3", None),
        ("8/10", None),
        ("80%", None),
        ("7 or 8", None),
        ("6-7", None),
        ("between 6 and 7", None),
        ("4, I mean 5", None),
        ("seven", None),
        ("", None),
        ("I would say good", None),
        ("3,5", None),
        ("7 points", 7),
        ("8 out of 9 points.", 8),
        ("**7**\n\nClear and to the point.", 7),
        ("7, since it is clear", 7),
        ("`7` (one slip)", 7),
        ("7 |", 7),
        ("0 errors", None),
        ("2 of the facts are wrong", None),
        ("**2** of the facts are wrong", None),
        ("2 points are wrong", None),
        ("0-error answer", None),
        ("9 on a scale of ten", None),
        ("8 %", None),
        ("7½", None),
        ("\u22123", None),
    ],
)
def test_one_rating_is_read_or_refused(text, rating):
    assert parse_rating(text) == rating


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ('{"helpfulness": 7, "correctness": 8.5}', Rating(7, 8.5)),
        ('Sure!\n```json\n{"Helpfulness": "7/9", "Correctness": 8}\n```', Rating(7, 8)),
        ("<think>helpfulness 2?</think>Helpfulness: **7**/9\nCorrectness: 8 (one slip)", Rating(7, 8)),
        ("- **Helpfulness**: 6\n- **Correctness**: 4", Rating(6, 4)),
        ("Helpfulness: 7\nCorrectness: hard to say", Rating(7, None)),
        ('{"helpfulness": 70, "correctness": 8}', Rating(None, 8)),
        ('{"helpfulness": true, "correctness": null}', Rating(None, None)),
        ('{"helpfulness": NaN, "correctness": 3}', Rating(None, 3)),
        ('{"helpfulness": 7, "correctness": 8} or {"helpfulness": 2, "correctness": 8}', Rating(None, None)),
        ("Helpfulness: 7. Correctness: 8. On reflection, helpfulness: 5", Rating(None, 8)),
        ('{"helpfulness": H, "correctness": C}', Rating(None, None)),
        ("7\n8", Rating(None, None)),
        ("Helpfulness: 9\nCorrectness: 0 errors", Rating(9, None)),
        ("Helpfulness: 9\nCorrectness: 2 of the facts are wrong", Rating(9, None)),
        ("Helpfulness is 7 and correctness is 8.", Rating(7, 8)),
        ('{"helpfulness": 9, "correctness": "0 errors"}', Rating(9, None)),
        ('Perhaps {"helpfulness": 0, "correctness": 0}?\n</think>\n{"helpfulness": 7, "correctness": 8}', Rating(7, 8)),
        ("", Rating(None, None)),
    ],
)
def test_both_ratings_are_read_or_refused(text, rating):
    assert parse_ratings(text) == rating


def test_ratings_reach_training_and_nothing_is_invented(tmp_path, triples, capsys):
    def judge(request: dict) -> str:
        topic, answer = parts_of(request)
        if topic == "bees" and "large" in answer:
            return "This is a fine answer."
        if topic == "rivers" and "human" not in answer:
            return "Helpfulness: 7 or 8"
        return honest(request)

    out = tmp_path / "rated.jsonl"
    with endpoint(judge) as server:
        args = ["judge", str(triples), "-o", str(out), "--base-url", server.url, "--model", "m"]
        assert main(args) == 0
        asked = sum(server.asked.values())
        assert asked == 48 and server.requests[0]["temperature"] == 0
        assert server.requests[0]["response_format"]["schema"]["required"] == ["helpfulness", "correctness"]
        assert main(args) == 0 and sum(server.asked.values()) == asked, "nothing is asked twice"
    said = capsys.readouterr().out
    assert "direct: rated 21, unreadable 3" in said and "11 rated rows" in said and "1 have fewer than two ratings" in said
    rated = {row["instruction"]: row for row in lines(out)}
    bees = rated["Tell me about bees."]
    assert bees["ratings"] == {"direct": None, "referenced": 8.5, "human": 8.5} and bees["colour"] == "red"
    judgement = {"member": "direct", "model": "small", "judge": "m", "helpfulness": 8, "correctness": 9}
    assert bees["judgements"][0] == judgement and bees["judgements"][1]["helpfulness"] is None
    (rivers,) = lines(tmp_path / "rated.jsonl.unrated.jsonl")
    assert rivers["ratings"] == {"direct": None, "referenced": None, "human": 8.5}
    manifest = json.loads((tmp_path / "rated.jsonl.manifest.json").read_text())
    assert manifest["responses"]["direct"] == {"rated": 21, "unreadable": 3}
    assert manifest["data"] == triples.name and str(tmp_path) not in json.dumps(manifest), "it may be published"
    # What training makes of it: the pair with an unreadable rating is not ranked.
    dataset = TripleDataset(load_triples(out))
    row = next(row for row in map(dataset.__getitem__, range(len(dataset))) if "bees" in row["instruction"])
    assert row["ratings"] == [-np.inf, 8.5, 8.5]
    scores, present = torch.tensor([[0.0, 5.0, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert ranking_loss(scores, present, torch.tensor([row["ratings"]])) == 0, "direct is ranked below referenced, unrated"


def test_an_endpoint_without_schemas_is_asked_in_words(tmp_path, triples):
    with endpoint(lambda request: 400 if "response_format" in request else honest(request)) as server:
        assert main(["judge", str(triples), "-o", str(tmp_path / "r.jsonl"), "--base-url", server.url, "--model", "m"]) == 0
        assert sum("response_format" not in request for request in server.requests) == 48
    assert len(lines(tmp_path / "r.jsonl")) == 12


def test_a_good_judge_passes_the_check(tmp_path, triples, capsys):
    out = tmp_path / "rated.jsonl"
    with endpoint(honest) as server:
        assert main(["judge", str(triples), "-o", str(out), "--base-url", server.url, "--model", "m", "--check", "12"]) == 0
    said = capsys.readouterr().out
    for kind in ("shuffled", "truncated", "off-topic"):
        assert f"| {kind} | 1.50 | 1.000 |" in said
    assert "mean difference 0.00 points" in said
    check = json.loads((tmp_path / "rated.jsonl.manifest.json").read_text())["check"]
    assert check["useless"] is None and check["auc"]["off-topic"][0] == 1 and len(lines(out)) == 12


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ('{"helpfulness": 8, "correctness": 8}', "does not tell shuffled or truncated or off-topic answers from good ones"),
        ("Good.", "only 0% of its replies could be read"),
    ],
)
def test_a_useless_judge_is_called_so_and_rates_nothing(tmp_path, triples, capsys, reply, why):
    out = tmp_path / "rated.jsonl"
    with endpoint(lambda request: reply) as server:
        assert main(["judge", str(triples), "-o", str(out), "--base-url", server.url, "--model", "m", "--check"]) == 1
    said = capsys.readouterr().out
    assert "This judge is useless" in said and why in said and "let the filters alone decide" in said
    assert not out.exists()
    assert why in json.loads((tmp_path / "rated.jsonl.manifest.json").read_text())["check"]["useless"]


def test_ratings_of_humans_come_from_columns(tmp_path, write_jsonl):
    rows = [
        {"instruction": "a", "human": "b", "direct": "c", "good": 5, "true": 3, "model": 1},
        {"instruction": "a", "human": "b", "direct": "c", "good": None, "true": 3, "model": 1},
    ]
    out = tmp_path / "rated.jsonl"
    args = ["judge", str(write_jsonl(rows)), "-o", str(out), "--ratings-scale", "1,5"]
    assert main([*args, "--ratings-from", "human=good,true", "--ratings-from", "direct=model"]) == 0
    (row,) = lines(out)
    assert row["ratings"] == {"human": 6.75, "direct": 0}
    assert load_triples(out)[0].ratings == {"human": 6.75, "direct": 0}
    assert lines(tmp_path / "rated.jsonl.unrated.jsonl")[0]["ratings"] == {"human": None, "direct": 0}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "No judge"),
        (["--check"], 2, "--check requires --model"),
        (["--ratings-from", "human"], 2, "takes MEMBER=COLUMN"),
        (["--ratings-from", "robot=x"], 2, "Ratings can be given for direct, referenced, human"),
        (["--ratings-from", "human=x"], 1, "no column 'x' of ratings"),
        (["--ratings-from", "human=colour", "--ratings-scale", "5,1"], 2, "must begin below its end"),
        (["--model", "m"], 2, "No endpoint"),
        (["--model", "m", "--model", "n"], 2, "a single model judges"),
    ],
)
def test_bad_input_is_told_clearly(tmp_path, triples, capsys, arguments, status, message):
    assert main(["judge", str(triples), "-o", str(tmp_path / "r.jsonl"), *arguments]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.jsonl").exists()
