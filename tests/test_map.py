"""`ds.map` and `ds.filter` with a scorer, in every way that people call them."""

import numpy as np
import pytest
from datasets import Dataset, Value

from scar_hf import ScarScorer, scar_filter, scar_rank, scar_score, scar_select
from scar_hf.scoring.settings import BUNDLED_RANKER


@pytest.fixture
def ds(rows) -> Dataset:
    return Dataset.from_list(rows)


def scores_of(ds: Dataset) -> np.ndarray:
    assert ds.features["scar_score"] == Value("float32")
    return np.array([np.nan if score is None else score for score in ds.with_format(None)["scar_score"][:]], dtype=np.float32)


def test_a_row_at_a_time_gives_the_scores_of_batches(ds, small):
    expected = scar_rank(ds, model=small, progress=False).scores
    np.testing.assert_allclose(scores_of(ds.map(small)), expected, atol=1e-5)
    np.testing.assert_allclose(scores_of(ds.map(small, batched=True, batch_size=3)), expected, atol=1e-5)
    chats = [[{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["response"]}] for row in ds]
    for made in (Dataset.from_dict({"messages": chats}), Dataset.from_dict({"messages": chats}).to_iterable_dataset()):
        for how in ({}, {"batched": True, "batch_size": 4}):
            np.testing.assert_allclose([row["scar_score"] for row in made.map(small, **how)], expected, atol=1e-5)


def test_a_preference_set_is_scored_by_chosen_rejected_or_the_margin(rows, small):
    given = {"prompt": [row["instruction"] for row in rows], "chosen": [row["response"] for row in rows]}
    given["rejected"] = [row["response"] for row in rows[::-1]]
    ds = Dataset.from_dict(given)
    chosen = small.score(given["prompt"], given["chosen"])
    rejected = small.score(given["prompt"], given["rejected"])
    for preference, expected in (("chosen", chosen), ("rejected", rejected), ("margin", chosen - rejected)):
        scorer = ScarScorer(small.model_name, device="cpu", dtype="float32", preference=preference)
        np.testing.assert_allclose(scar_rank(ds, model=scorer, progress=False).scores, expected, atol=1e-5)
        np.testing.assert_allclose(scores_of(ds.map(scorer, batched=True)), expected, atol=1e-5)
    best = scar_select(ds, k=3, model=scorer, progress=False)
    assert best["prompt"][:] == [given["prompt"][i] for i in sorted(np.argsort(-(chosen - rejected), kind="stable")[:3])]


def test_conversations_of_plain_texts_are_rows_on_a_stream_too(rows, small):
    ds = Dataset.from_dict({"conversations": [[row["instruction"], row["response"]] for row in rows]})
    expected = small.score([row["instruction"] for row in rows], [row["response"] for row in rows])
    for how in ({}, {"batched": True, "batch_size": 4}):
        for made in (ds, ds.to_iterable_dataset()):
            np.testing.assert_allclose([row["scar_score"] for row in made.map(small, **how)], expected, atol=1e-5)


@pytest.mark.parametrize("kind", [None, "pandas", "arrow", "numpy", "torch"])
@pytest.mark.parametrize("how", [{}, {"batched": True, "batch_size": 2}])
def test_rows_without_a_score_are_null_and_do_not_decide_the_type(how, kind, ds, small):
    texts = {"instruction": ["q"] * 4, "response": [None] * 3 + ["an answer"]}
    empty = Dataset.from_dict(texts).cast(ds.remove_columns("id").features).with_format(kind)
    mapped = empty.map(small, **how, writer_batch_size=2).with_format(None)
    assert np.isnan(scores_of(mapped)).tolist() == [True, True, True, False]
    assert mapped["scar_score"][:3] == [None] * 3


def test_a_stream_and_a_plain_batch_get_plain_numbers(ds, small):
    batch = ds.add_item({"id": 99, "instruction": "q", "response": None})
    for rows in (
        batch.to_iterable_dataset().map(small, batched=True),
        [{"scar_score": s} for s in small(batch[:])["scar_score"]],
    ):
        scores = [row["scar_score"] for row in rows]
        assert scores[-1] is None and all(type(score) is float for score in scores[:-1])


def test_a_column_of_numbers_has_no_scores(small):
    ds = Dataset.from_dict({"instruction": ["q", "r"], "response": [2**62, 7]})
    for how in ({}, {"batched": True}):
        mapped = ds.map(small, **how)
        assert np.isnan(scores_of(mapped)).all() and mapped["response"][:] == [2**62, 7]


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "numpy", "torch"])
def test_formatted_datasets_are_scored_and_filtered_alike(kind, ds, small):
    if kind == "polars":
        pytest.importorskip("polars")
    expected = scar_rank(ds, model=small, progress=False).scores
    formatted = ds.with_format(kind)
    scored = formatted.map(small, batched=True, batch_size=4)
    np.testing.assert_allclose(scores_of(scored), expected, atol=1e-5)
    assert scored.with_format(None)["id"][:] == ds["id"][:]
    kept = formatted.filter(scar_filter(k=4, model=small, progress=False), batched=True, batch_size=4)
    assert kept.with_format(None)["id"][:] == scar_select(ds, k=4, model=small, progress=False)["id"][:]


def test_one_pair_gives_one_number(small):
    found = small.score("Say hello.", "Hello!")
    assert isinstance(found, float) and found == pytest.approx(float(small.score(["Say hello."], ["Hello!"])[0]), abs=1e-6)
    with pytest.raises(ValueError, match=r"one instruction and one response, or lists"):
        small.score("Say hello.", ["Hello!"])
    assert scar_score().model_name == BUNDLED_RANKER


def test_nothing_to_select_from_is_an_error_with_the_reasons(small):
    image = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": [{"type": "image"}]}]
    ds = Dataset.from_dict({"messages": [image] * 3})
    message = r"Nothing can be selected from 3 rows: 3 have no score.*3 × a message has content of type image"
    with pytest.raises(ValueError, match=message):
        scar_select(ds, k=0.5, model=small, progress=False)
    with pytest.raises(ValueError, match=message):
        ds.filter(scar_filter(k=0.5, model=small, progress=False))
