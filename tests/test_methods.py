"""Baselines: each against an independent computation on 200 rows, and behind the interface of SCAR."""

import json
import math
import pickle
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from scar_hf import scar_rank, scar_select
from scar_hf.cli import main
from scar_hf.files import read_dataset
from scar_hf.manifest.commands import select_command, select_snippet
from scar_hf.methods import (
    ColumnScorer,
    CombinedScorer,
    DiversityScorer,
    LanguageModelScorer,
    LongestScorer,
    RandomScorer,
    method_scorer,
    read_method,
    score_source,
)
from scar_hf.methods.diversity import cluster, coverage_scores
from scar_hf.style import Surprisal

WORDS = ["river", "stone", "lamp", "quiet", "orange", "seven", "window", "cloud", "paper", "ember", "salt", "glass", "winter"]


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """200 rows of different lengths, with a number of somebody's in each but two."""
    draw = random.Random(0)
    made = []
    for i in range(200):
        instruction = " ".join(draw.choices(WORDS, k=draw.randint(2, 8)))
        response = " ".join(draw.choices(WORDS, k=draw.randint(2, 30)))
        made.append({"instruction": f"{instruction}?", "response": f"{response}.", "reward": draw.gauss(0, 1), "id": i})
    made[17]["reward"], made[18]["reward"] = None, math.nan
    return Dataset.from_list(made)


@pytest.fixture(scope="module")
def lm(tiny_lm, tmp_path_factory) -> str:
    """The tiny language model with opinions, where random weights have next to none."""
    folder = tmp_path_factory.mktemp("opinionated")
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32, max_position_embeddings=2048)
    with torch.no_grad():
        model.lm_head.weight.mul_(30)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_lm).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def losses(rows, lm) -> np.ndarray:
    """Mean loss of each response after its instruction and after none, by a plain forward pass of transformers, row by row."""
    tokenizer, model = AutoTokenizer.from_pretrained(lm), AutoModelForCausalLM.from_pretrained(lm, dtype=torch.float32).eval()

    def loss(instruction: str, response: str) -> float:
        turn = [{"role": "user", "content": instruction}]
        context = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        before = tokenizer(context, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([before + tokenizer(response, add_special_tokens=False)["input_ids"]])
        labels = ids.clone()
        labels[0, : len(before)] = -100
        with torch.inference_mode():
            return float(model(input_ids=ids, labels=labels).loss)

    return np.array([[loss(row["instruction"], row["response"]), loss("", row["response"])] for row in rows])


def in_float32(lm: str) -> Surprisal:
    return Surprisal(lm, dtype="float32", max_length=512)


def test_the_longest_are_the_longest(rows):
    scored = score_source(rows, LongestScorer())
    assert scored.scores.tolist() == [len(row["response"]) for row in rows]


def test_a_draw_at_random_is_even_and_knows_no_order(rows):
    scores = score_source(rows, RandomScorer(seed=1)).scores
    backwards = score_source(rows.select(range(199, -1, -1)), RandomScorer(seed=1)).scores
    assert (scores == backwards[::-1]).all()
    counts = np.histogram(scores, bins=4, range=(0, 1))[0]
    assert counts.sum() == 200 and ((counts > 30) & (counts < 70)).all()
    assert abs(np.corrcoef(scores, score_source(rows, RandomScorer(seed=2)).scores)[0, 1]) < 0.2


def test_perplexities_are_those_of_plain_transformers(rows, lm, losses):
    scores = score_source(rows, LanguageModelScorer("perplexity", in_float32(lm)), cache=False).scores
    assert np.allclose(np.exp(-scores), np.exp(losses[:, 0]), rtol=1e-3)


def test_ifd_is_the_published_ratio_and_unhelpful_instructions_come_last(rows, lm, losses):
    scores = score_source(rows, LanguageModelScorer("ifd", in_float32(lm)), cache=False).scores
    ratios = np.exp(losses[:, 0]) / np.exp(losses[:, 1])
    assert (ratios < 1).sum() > 20 < (ratios > 1).sum()
    assert np.allclose(np.abs(scores), ratios, rtol=1e-3)
    clear = np.abs(ratios - 1) > 1e-3
    assert ((scores > 0) == (ratios < 1))[clear].all()


def test_a_base_model_without_a_chat_template_reads_plain_texts(rows, lm, tmp_path):
    tokenizer, model = AutoTokenizer.from_pretrained(lm), AutoModelForCausalLM.from_pretrained(lm, dtype=torch.float32).eval()
    tokenizer.chat_template = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    def loss(before: str, response: str) -> float:
        start = [tokenizer.eos_token_id, *tokenizer(before, add_special_tokens=False)["input_ids"]]
        ids = torch.tensor([start + tokenizer(response, add_special_tokens=False)["input_ids"]])
        labels = ids.clone()
        labels[0, : len(start)] = -100
        with torch.inference_mode():
            return float(model(input_ids=ids, labels=labels).loss)

    found = np.array([[loss(f"{row['instruction']}\n\n", row["response"]), loss("", row["response"])] for row in rows])
    base = in_float32(str(tmp_path))
    scores = score_source(rows, LanguageModelScorer("perplexity", base), cache=False).scores
    assert np.allclose(np.exp(-scores), np.exp(found[:, 0]), rtol=1e-3)
    scores = score_source(rows, LanguageModelScorer("ifd", base), cache=False).scores
    assert np.allclose(np.abs(scores), np.exp(found[:, 0] - found[:, 1]), rtol=1e-3)


def test_a_draw_at_random_depends_on_the_row_and_the_seed_alone(rows):
    scores = score_source(rows, RandomScorer(seed=4)).scores
    order = np.argsort(-scores, kind="stable")[:20]
    # Any subset keeps its order: a row's number depends on nothing else.
    part = score_source(rows.select(range(50, 150)), RandomScorer(seed=4)).scores
    assert (part == scores[50:150]).all() and len(set(scores.tolist())) == 200
    assert scar_rank(rows, method="random", seed=4, progress=False).select(20).indices.tolist() == sorted(order.tolist())


def test_one_pass_of_the_language_model_serves_both_methods(rows, lm, monkeypatch):
    first = score_source(rows, LanguageModelScorer("ifd", in_float32(lm))).scores
    monkeypatch.setattr(Surprisal, "measure", lambda *_, **__: pytest.fail("the language model was asked again"))
    assert (score_source(rows, LanguageModelScorer("ifd", in_float32(lm))).scores == first).all()
    assert np.isfinite(score_source(rows, LanguageModelScorer("perplexity", in_float32(lm))).scores).all()


def test_a_column_decides_and_rows_without_a_number_have_no_score(rows):
    scored = score_source(rows, ColumnScorer("reward"))
    given = np.array([math.nan if value is None else value for value in rows["reward"]], dtype=np.float32)
    assert np.array_equal(scored.scores, given, equal_nan=True)
    assert scored.skipped == {17: "no number in 'reward'", 18: "no number in 'reward'"}
    with pytest.raises(ValueError, match="No row has a number in the column 'instruction'"):
        score_source(rows, ColumnScorer("instruction"))


@pytest.mark.parametrize("numbers", [[1700000000 + i for i in range(8)], [10.0**i for i in range(35, 43)]])
def test_a_column_whose_order_scores_cannot_hold_is_refused(numbers):
    ds = Dataset.from_dict({"instruction": list("abcdefgh"), "response": list("ABCDEFGH"), "when": [float(n) for n in numbers]})
    with pytest.raises(ValueError, match="'when' differ too little for their size"):
        scar_select(ds, k=2, method="when", progress=False)
    ds = ds.remove_columns("when").add_column("when", [n / max(numbers) for n in range(8)])
    assert scar_select(ds, k=2, method="when", progress=False)["instruction"][:] == ["g", "h"]


def test_diversity_takes_from_each_cluster_what_lies_nearest_to_its_centre():
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(4, 16))
    label = draw.permutation(np.repeat(np.arange(4), [140, 40, 15, 5]))
    space = (centres[label] + 0.1 * draw.normal(size=(200, 16))).astype(np.float32)
    space /= np.linalg.norm(space, axis=1, keepdims=True)
    found, nearness = cluster(space, 4)
    # Every row is nearest to its own cluster's mean, by plain numpy.
    means = np.stack([space[found == c].mean(axis=0) for c in range(4)])
    cosines = space @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    assert (cosines.argmax(axis=1) == found).all() and np.allclose(cosines.max(axis=1), nearness, atol=1e-4)
    order = np.argsort(-coverage_scores(space, 4))
    assert np.bincount(label[order[:20]], minlength=4).tolist() == [5, 5, 5, 5]
    assert set(order[:4]) == {int(np.argmax(np.where(found == c, cosines.max(axis=1), -1))) for c in range(4)}


def test_diversity_covers_topics_that_others_miss(tiny_ranker):
    topics = ["bees", "rivers", "bread"] * 2 + ["glass"] * 60
    made = [{"instruction": f"Tell me about {t}.", "response": f"All about {t} {i % 7}."} for i, t in enumerate(topics)]
    scored = score_source(Dataset.from_list(made), DiversityScorer(clusters=8, model=str(tiny_ranker), dtype="float32"))
    assert sorted(scored.scores)[-1] == 1 and len(set(scored.scores.tolist())) == len(made)


def test_several_methods_are_combined_by_rank_or_by_distance(rows):
    members = {"longest": 1.0, "reward": -0.5}
    lengths = np.array([len(row["response"]) for row in rows], dtype=float)
    rewards = np.array([math.nan if value is None else value for value in rows["reward"]])
    present = ~np.isnan(rewards)

    def ranks(values):
        return np.array([1 + (values > v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    expected = np.full(200, np.nan)
    expected[present] = (1 / (60 + ranks(lengths)))[present] + 0.5 / (60 + ranks(-rewards[present]))
    scored = score_source(rows, method_scorer(members))
    assert np.allclose(scored.scores, expected, rtol=1e-5, equal_nan=True)
    assert set(scored.skipped) == {17, 18}
    by_distance = score_source(rows, method_scorer(members, combine="z_score")).scores
    z = (lengths - lengths.mean()) / lengths.std() - 0.5 * (rewards - np.nanmean(rewards)) / np.nanstd(rewards)
    assert np.allclose(by_distance, z, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_names_and_weights_are_read():
    assert read_method("scar") == {"scar": 1.0}
    assert read_method("scar=1, ifd=0.5") == {"scar": 1.0, "ifd": 0.5}
    for bad in ({}, "scar=much", {"scar": None}):
        with pytest.raises(ValueError, match="must be a name or"):
            read_method(bad)
    with pytest.raises(ValueError, match="number other than 0"):
        method_scorer({"random": 0, "longest": 1})
    with pytest.raises(ValueError, match="Did you mean 'longest'"):
        method_scorer("longst", columns_of_data=["instruction"])
    with pytest.raises(ValueError, match="needs a causal language model"):
        method_scorer("ifd")


def test_a_method_can_be_sent_to_another_process(rows, lm):
    for scorer in (RandomScorer(3), LongestScorer(), LanguageModelScorer("ifd", in_float32(lm)), ColumnScorer("reward")):
        again = pickle.loads(pickle.dumps(scorer))
        assert again.identity() == scorer.identity()
    together = pickle.loads(pickle.dumps(CombinedScorer([(RandomScorer(3), 1), (LongestScorer(), 2)])))
    assert together.identity()["members"][0]["seed"] == 3


def test_scar_rank_takes_any_method(rows, scorer):
    by_length = scar_rank(rows, method="longest", progress=False)
    best = by_length.top(20)
    assert len(best) == 20 and min(map(len, best["response"])) >= np.partition(by_length.scores, -20)[-20]
    assert scar_rank(rows, method={"longest": 1, "reward": 1}, progress=False).select(10).manifest["settings"]["combine"]
    with pytest.raises(ValueError, match="Pass a scorer as `model`, or a method by its name"):
        scar_rank(rows, model=scorer, method="longest")
    with pytest.raises(ValueError, match=r"no method and no column 'rewards'\. Did you mean 'reward'"):
        scar_rank(rows, method="rewards")


def test_the_command_line_selects_by_any_method_and_its_manifest_repeats_it(rows, lm, tmp_path, capsys, write_jsonl):
    data, out = write_jsonl(rows.remove_columns("reward").to_list()), tmp_path / "out.jsonl"
    command = ["select", str(data), "-k", "20", "--quiet"]
    assert main([*command, "-o", str(out), "--method", "longest"]) == 0
    kept = read_dataset(out)
    lengths = sorted((len(row["response"]) for row in rows), reverse=True)
    assert sorted(kept["scar_score"], reverse=True) == lengths[:20]
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert "--method longest" in select_command(manifest, "again.jsonl")
    assert main(["verify", str(out)]) == 0
    both = tmp_path / "both.jsonl"
    combined = ["--method", "longest=1,ifd=0.5", "--lm", lm, "--combine", "z_score"]
    assert main([*command, "-o", str(both), *combined]) == 0
    manifest = json.loads((tmp_path / "both.jsonl.manifest.json").read_text())
    assert f"--method longest=1,ifd=0.5 --lm {lm} --combine z_score" in select_command(manifest, None)
    assert "method='longest=1,ifd=0.5'" in select_snippet(manifest)
    # Row for row what Python gives.
    ranking = scar_rank(rows, method={"longest": 1, "ifd": 0.5}, lm=lm, combine="z_score", progress=False)
    assert read_dataset(both)["id"][:] == ranking.top(20)["id"][:]
    capsys.readouterr()
    assert main([*command, "-o", str(tmp_path / "x.jsonl"), "--method", "ifd"]) == 2
    assert "needs a causal language model: pass lm= (--lm)" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "x.jsonl"), "--method", "random", "--engine", "ray"]) == 2


def test_a_report_of_another_method_names_it(rows, tmp_path, scorer):
    selection = scar_rank(rows, method="longest", progress=False).select(0.1)
    page = selection.report(scorer=scorer, examples=0, progress=False).html()
    assert "ranked by the method longest" in page
