"""Consistency of a set: spreads, their intervals, and what changes from one set to another."""

import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from scar_hf.style import StyleMeasures, compare, draw_baselines, linguistic_form, style_consistency, style_measures


def measured(**values: np.ndarray) -> StyleMeasures:
    return StyleMeasures(values, len(next(iter(values.values()))))


def normal(n: int, spread: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(5, spread, n)


@pytest.fixture
def plain(rows) -> Dataset:
    return Dataset.from_list(rows)


def test_rows_are_measured_as_their_responses_are(plain, rows):
    found = style_measures(plain, progress=False)
    for name, values in linguistic_form([row["response"] for row in rows]).items():
        np.testing.assert_array_equal(found[name], values)
    assert len(found) == 10 and found.to_dataset().num_rows == 10
    assert found.to_dataset()["mattr"][0] is None  # under fifty words


def test_every_format_is_read(rows):
    chats = [
        {
            "messages": [
                {"role": "user", "content": row["instruction"]},
                {"role": "assistant", "content": row["response"]},
                {"role": "user", "content": "More."},
                {"role": "assistant", "content": "No more."},
            ]
        }
        for row in rows
    ]
    plain = style_measures(Dataset.from_list(rows), progress=False)
    first = style_measures(Dataset.from_list(chats), progress=False)
    np.testing.assert_array_equal(first["words"], plain["words"])
    last = style_measures(Dataset.from_list(chats), turn="last", progress=False)
    assert last["words"].tolist() == [2] * 10
    every = style_measures(Dataset.from_list(chats), turn="all", progress=False)
    np.testing.assert_array_equal(every["words"], plain["words"] + 2)
    renamed = Dataset.from_list([{"q": row["instruction"], "a": row["response"]} for row in rows])
    np.testing.assert_array_equal(style_measures(renamed, columns=("q", "a"), progress=False)["ttr"], plain["ttr"])


def test_rows_without_a_response_are_left_out_and_counted(plain, caplog):
    bad = Dataset.from_dict({"instruction": ["a", "b", "c"], "response": ["Some words here.", None, "  "]})
    found = style_measures(bad, progress=False)
    assert found.skipped == {1: "the response is missing", 2: "the response is empty"}
    assert np.isnan(found["words"]).tolist() == [False, True, True]
    assert "2 of 3 rows were not measured" in caplog.text
    assert found.select([2, 0]).skipped == {0: "the response is empty"}
    assert found.select(np.array([True, False, False]))["words"].tolist() == [3]
    consistency = style_consistency(found, samples=20)
    assert consistency["words"].n == 1 and np.isnan(consistency["words"].spread)
    assert any("2 of 3 rows" in note for note in consistency.notes)


def test_spread_is_the_standard_deviation_and_its_interval_is_as_wide_as_theory_says():
    values = normal(500)
    with_gaps = np.where(np.arange(500) % 5 == 0, np.nan, values)
    found = style_consistency(measured(ttr=values, mtld=with_gaps), samples=2000)
    spread = found["ttr"]
    assert spread.mean == pytest.approx(values.mean()) and spread.spread == pytest.approx(values.std(ddof=1))
    fourth = np.mean((values - values.mean()) ** 4)
    error = np.sqrt((fourth - values.var() ** 2) / (4 * values.var() * 500))  # of a standard deviation, by the delta method
    assert spread.high - spread.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert spread.mean_high - spread.mean_low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(500), rel=0.08)
    assert spread.low < spread.spread < spread.high
    assert found["mtld"].n == 400 and found["mtld"].spread == pytest.approx(np.nanstd(with_gaps, ddof=1))


def test_intervals_of_many_rows_are_as_wide_as_theory_says():
    values = np.sort(normal(60_000))  # in an order, as rows of several sources are
    spread = style_consistency(measured(ttr=values), samples=300)["ttr"]
    assert spread.high - spread.low == pytest.approx(2 * 1.96 / np.sqrt(2 * 60_000), rel=0.2)


def test_large_values_keep_their_spread():
    found = style_consistency(measured(words=normal(300) + 1e9), samples=100)["words"]
    assert found.low < found.spread < found.high and found.spread == pytest.approx(1, rel=0.2)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    first, again = (style_consistency(measured(ttr=normal(50)), samples=50).to_dict() for _ in range(2))
    assert first == again
    assert style_consistency(measured(ttr=normal(50)), samples=50, seed=1).to_dict() != first


def test_a_set_has_not_changed_from_itself():
    change = compare(measured(ttr=normal(80)), measured(ttr=normal(80)), samples=50)["ttr"]
    assert (change.spread_change, change.low, change.high, change.verdict) == (0, 0, 0, "unclear")


def test_what_is_narrower_is_called_so_and_noise_is_not():
    before = measured(ttr=normal(400, 2.0), mtld=normal(400), flesch=normal(400))
    after = measured(ttr=normal(300, 1.0, seed=1), mtld=normal(300, seed=2), flesch=normal(300, 2.0, seed=3))
    changes = compare(before, after, samples=400)
    assert [changes[name].verdict for name in ("ttr", "mtld", "flesch")] == ["narrower", "unclear", "wider"]
    change = changes["ttr"]
    assert change.spread_change == pytest.approx(change.spread_after / change.spread_before - 1)
    assert change.low < change.spread_change < change.high < 0
    assert change.mean_low < change.mean_after - change.mean_before < change.mean_high


def test_measures_without_spread_have_no_change():
    change = compare(measured(bold=np.zeros(20)), measured(bold=normal(20)), samples=20)["bold"]
    assert np.isnan(change.spread_change) and change.verdict == "unclear"


def test_an_interval_of_rows_that_are_all_alike_is_not_certainty():
    alike = np.r_[np.zeros(30), np.nan]
    found = style_consistency(measured(bold=alike), samples=50)["bold"]
    assert found.spread == 0 and np.isnan([found.low, found.high, found.mean_low, found.mean_high]).all()
    change = compare(measured(bold=normal(60)), measured(bold=alike), samples=50)
    assert change["bold"].spread_change == -1 and np.isnan(change["bold"].low) and change["bold"].verdict == "unclear"
    assert "all rows kept have the same value: Bold" in change.notes[-1]


def test_equal_values_have_no_spread_whatever_their_mean_is_rounded_to():
    before = measured(flesch=normal(60), ttr=np.full(60, 0.7), words=np.arange(60.0))
    change = compare(before, measured(flesch=np.full(30, 0.7), ttr=np.full(30, 0.7), words=np.arange(30.0)), samples=50)
    assert np.full(30, 0.7).std(ddof=1) > 0
    assert change["flesch"].spread_after == 0 and change["flesch"].verdict == "unclear" and np.isnan(change["flesch"].high)
    assert change["ttr"].spread_before == 0 and np.isnan(change["ttr"].spread_change)
    assert [set(found) for found in change.baselines.values()] == [{"flesch", "words"}] * 2


def test_baselines_tell_what_length_alone_does():
    words = np.random.default_rng(0).lognormal(4, 1, 2000).round()
    before = measured(words=words, ttr=words**-0.3, flesch=normal(2000, seed=5))
    longest = before.select(np.argsort(-words)[:400:2])
    change = compare(before, longest, samples=50)
    for name in ("words", "ttr", "flesch"):
        random = change.baselines["random"][name]
        assert random.low < random.change < random.high and abs(random.change) < 0.05 and random.low < 0 < random.high
    # The type-token ratio follows length here, so that rows of the same lengths have the same spread; Flesch does not.
    same = change.baselines["same_lengths"]
    assert change["ttr"].spread_change == pytest.approx(same["ttr"].change, abs=0.02)
    assert same["ttr"].high < -0.5 and same["flesch"].low < 0 < same["flesch"].high
    narrow = before.select(np.argsort(np.abs(before["flesch"]))[:200])
    change = compare(before, narrow, samples=50)
    assert change["flesch"].spread_change < change.baselines["same_lengths"]["flesch"].low
    shown = change.to_dict()
    assert shown["draws"] == 200 and set(shown["measures"]["ttr"]["same_lengths"]) == {"change", "low", "high"}
    assert "Same lengths" in str(change) and compare(before, narrow, samples=50).to_dict() == shown
    assert compare(longest, before, samples=50).baselines == {}
    assert set(compare(measured(ttr=normal(9)), measured(ttr=normal(5)), samples=9).baselines) == {"random"}


def test_baselines_of_samples_are_those_of_all_rows():
    rng = np.random.default_rng(0)
    words = rng.lognormal(4, 1, 20_000).round()
    everything = measured(words=words, ttr=words**-0.1 + rng.normal(0, 0.05, 20_000))
    kept = np.flatnonzero(rng.random(20_000) < np.where(words > 100, 0.5, 0.05))
    sample = everything.select(np.sort(rng.choice(20_000, 4000, replace=False)))
    whole = draw_baselines(everything, everything.select(kept))
    assert len(kept) < 4000
    for rows in (kept, np.concatenate([kept, kept])):
        found = draw_baselines(sample, everything.select(rows), sampled=True)
        assert found["same_lengths"]["ttr"].change == pytest.approx(whole["same_lengths"]["ttr"].change, abs=0.03)
        widths = [draws["random"]["ttr"].high - draws["random"]["ttr"].low for draws in (found, whole)]
        assert widths[0] > 0.7 * widths[1]
    change = compare(sample, everything.select(kept), samples=9, sampled=True)
    assert change.baselines["random"] == draw_baselines(sample, everything.select(kept), sampled=True)["random"]


def test_tables_and_dicts(plain):
    consistency = style_consistency(plain, samples=30, progress=False)
    text = str(consistency)
    assert "Style of 10 rows" in text and "Type-token ratio (TTR)" in text and "95 % interval" in text
    assert json.loads(json.dumps(consistency.to_dict(), allow_nan=False))["measures"]["ttr"]["n"] == 10
    assert consistency.to_dict()["measures"]["mattr"]["mean"] is None  # under fifty words
    change = compare(consistency, plain.select(range(5)), samples=30, progress=False)
    assert "10 rows -> 5 rows" in str(change)
    assert json.loads(json.dumps(change.to_dict(), allow_nan=False))["measures"]["words"]["verdict"] == "narrower"


def test_sets_with_few_or_no_rows(plain):
    assert np.isnan(style_consistency(plain.select([0]), samples=10, progress=False)["words"].spread)
    empty = style_consistency(plain.select([]), samples=10, progress=False)
    assert empty["words"].n == 0 and "Fewer than two rows have no spread." in str(empty)
    nothing = style_consistency(plain, language="ja", samples=10, progress=False)
    assert nothing.rows == 10 and nothing.spreads == {}
    with pytest.raises(ValueError, match="Nothing to compare"):
        compare(nothing, plain, samples=10, progress=False)


def test_wrong_input_is_refused(plain):
    with pytest.raises(TypeError, match=r"one of its splits, \['train'\]"):
        style_consistency(DatasetDict({"train": plain}))
    with pytest.raises(TypeError, match="got list"):
        style_measures([{"instruction": "a", "response": "b"}])
    with pytest.raises(ValueError, match="No instruction and response found"):
        style_measures(plain.select_columns(["id"]))
    with pytest.raises(ValueError, match="pass `lm`"):
        style_measures(plain, max_length=64)
    with pytest.raises(ValueError, match="at least 2"):
        style_consistency(plain, samples=1)


def test_draws_in_which_all_rows_are_equal_have_no_ratio():
    rare = np.full(200, 0.1)
    rare[3] = 0.242857  # a third of the draws lack this row: their spread is a rounding error
    change = compare(style_consistency(measured(code=rare)), style_consistency(measured(code=rare[:20])))["code"]
    assert change.spread_change > 1 and (np.isnan(change.high) or change.high < 100)
