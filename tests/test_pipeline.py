"""`ScarModel.score` and the pipeline give the scorer's numbers, to those who have only the model."""

import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, pipeline

TEXTS = [
    "What do bees eat?",
    "Bees eat nectar and pollen, and the larvae are fed a jelly that young workers make of both. " * 4,
    "Yes.",
    "def add(a, b):\n    return a + b",
    "一、二、三 🙂",
    "half of a pair: \ud83d and a whole one: \ud83d\ude42",
    "scar " * 900,
    "Sure! Here are three reasons:\n\n1. **Cost.** It is cheap.\n2. **Speed.** It is fast.",
]


def pairs(count=14, seed=0):
    generator = random.Random(seed)
    return [generator.choice([*TEXTS, ""]) for _ in range(count)], [generator.choice(TEXTS) for _ in range(count)]


@pytest.mark.parametrize(("batch_size", "max_length"), [(1, None), (5, None), (64, 16), (7, 40)])
def test_score_agrees_with_the_scorer(scorer, batch_size, max_length):
    from scar_hf import ScarScorer

    instructions, responses = pairs(seed=batch_size)
    got = scorer.model.score(scorer.tokenizer, instructions, responses, batch_size, max_length)
    assert got.dtype == torch.float32 and got.shape == (14,)
    expected = ScarScorer.from_model(scorer.model, scorer.tokenizer, max_length=max_length).score(instructions, responses)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_score_of_nothing_and_of_one(scorer):
    assert scorer.model.score(scorer.tokenizer, [], []).shape == (0,)
    assert scorer.model.score(scorer.tokenizer, ("a",), iter(["b"])).shape == (1,)


@pytest.mark.parametrize("side", ["left", "right"])
def test_score_in_training_mode_and_any_padding_side(tiny_ranker, tiny_model, side):
    tokenizer = AutoTokenizer.from_pretrained(tiny_ranker, padding_side=side)
    model = tiny_model(vocab_size=len(tokenizer))
    expected = model.score(tokenizer, *pairs())
    model.train()
    torch.testing.assert_close(model.score(tokenizer, *pairs(), batch_size=3), expected, atol=1e-5, rtol=0)
    assert model.training


@pytest.mark.parametrize(
    ("instructions", "responses", "options", "message"),
    [
        (["a"], [], {}, "same length, got 1 and 0"),
        (["a", None], ["b", "c"], {}, "instruction of row 1 must be a string, got NoneType"),
        (["a"], [3], {}, "response of row 0 must be a string, got int"),
        (["a", "b"], ["c", " \n"], {}, "response of row 1 is empty"),
        (["a"], ["b"], {"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        (["a"], ["b"], {"max_length": 513}, "`max_length` must be from 4 to 512"),
        (["a"], ["b"], {"max_length": 3}, "`max_length` must be from 4 to 512"),
    ],
)
def test_score_says_what_it_cannot_score(scorer, instructions, responses, options, message):
    with pytest.raises(ValueError, match=message):
        scorer.model.score(scorer.tokenizer, instructions, responses, **options)


@pytest.fixture(scope="module")
def ranker(scorer):
    return pipeline("scar-ranking", model=scorer.model, tokenizer=scorer.tokenizer, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 4, 14])
def test_pipeline_agrees_with_the_scorer(ranker, scorer, batch_size):
    instructions, responses = pairs()
    inputs = [{"instruction": x, "response": y} for x, y in zip(instructions, responses, strict=True)]
    outputs = ranker(inputs, batch_size=batch_size)
    assert [list(output) for output in outputs] == [["score"]] * 14
    expected = scorer.score(instructions, responses)
    np.testing.assert_allclose([output["score"] for output in outputs], expected, atol=1e-5)
    if batch_size == 1:
        streamed = [output["score"] for output in ranker(pair for pair in inputs)]
        np.testing.assert_allclose(streamed, expected, atol=1e-5)
        ds = Dataset.from_list(inputs[:3])
        for given in (ds, ds.to_iterable_dataset()):
            assert [output["score"] for output in ranker(given)] == pytest.approx(streamed[:3], abs=1e-5)


def test_pipeline_takes_one_pair_and_a_length(ranker, scorer):
    pair = {"instruction": TEXTS[0], "response": TEXTS[1], "id": 7}
    assert ranker(pair)["score"] == pytest.approx(scorer.score([TEXTS[0]], [TEXTS[1]])[0], abs=1e-5)
    short = scorer.model.score(scorer.tokenizer, [TEXTS[0]], [TEXTS[1]], max_length=10)[0].item()
    assert ranker(pair, max_length=10)["score"] == pytest.approx(short, abs=1e-5)
    assert abs(short - ranker(pair)["score"]) > 1e-3


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("What do bees eat?", {}, "Expected .*got str"),
        ({"instruction": "a"}, {}, r"got \['instruction'\]"),
        ({"instruction": "a", "response": ["b", "c"]}, {}, "response of the pair must be a string, got list"),
        ({"instruction": "a", "response": ""}, {}, "response of the pair is empty"),
        ({"instruction": "a", "response": "b"}, {"top_k": 3}, r"got \['top_k'\]"),
    ],
)
def test_pipeline_says_what_it_cannot_score(ranker, inputs, options, message):
    with pytest.raises(ValueError, match=message):
        ranker(inputs, **options)


def test_pipeline_loads_from_what_it_saves(tiny_ranker, tmp_path, rows):
    first = pipeline("scar-ranking", model=str(tiny_ranker), device="cpu")
    first.save_pretrained(tmp_path / "saved")
    second = pipeline("scar-ranking", model=str(tmp_path / "saved"), device="cpu")
    assert second(rows[0])["score"] == pytest.approx(first(rows[0])["score"], abs=1e-6)
