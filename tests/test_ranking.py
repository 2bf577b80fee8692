"""What is kept: exactly so many, in order, all columns."""

import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, load_from_disk

from scar_hf import ScarRanking, scar_filter, scar_rank, scar_select
from scar_hf.selecting.criteria import count_of


@pytest.fixture
def ranking(rows, scorer) -> ScarRanking:
    return scar_rank(Dataset.from_list(rows), model=scorer, progress=False)


def test_select_keeps_the_best_rows_in_their_order(rows, ranking, scorer):
    kept = scar_select(Dataset.from_list(rows), k=0.3, model=scorer, progress=False)
    best = np.argsort(-ranking.scores)[:3]
    assert kept["id"][:] == sorted(best.tolist())
    assert kept.column_names == ["instruction", "response", "id", "scar_score"]
    assert kept.features["scar_score"].dtype == "float32"
    np.testing.assert_array_equal(kept["scar_score"][:], ranking.scores[sorted(best)])


def test_top_dropped_and_threshold_agree(ranking):
    kept, dropped = ranking.top(4), ranking.dropped(4)
    assert sorted(kept["id"][:] + dropped["id"][:]) == list(range(10))
    assert ranking.threshold(4) == pytest.approx(min(kept["scar_score"][:]))
    assert ranking.above(ranking.threshold(4))["id"][:] == kept["id"][:]
    assert len(ranking) == 10


def test_ties_go_to_the_earlier_row():
    ds = Dataset.from_dict({"id": [0, 1, 2, 3]})
    ranking = ScarRanking(ds, np.array([1.0, 2.0, 1.0, 1.0], dtype=np.float32))
    assert ranking.top(2)["id"][:] == [0, 1]
    assert ranking.top(3)["id"][:] == [0, 1, 2]


@pytest.mark.parametrize(
    ("k", "n", "count"),
    [
        (0.1, 14996, 1499),
        (0.29, 100, 29),
        (0.5, 3, 1),
        (0.01, 5, 1),
        (1.0, 7, 7),
        (1, 7, 1),
        (9, 7, 7),
        (0.1, 0, 0),
        (0.3, 10, 3),
    ],
)
def test_count_of(k, n, count):
    assert count_of(k, n) == count


@pytest.mark.parametrize("k", [0, 0.0, 1.5, -1, -0.1, float("nan"), "0.1", True])
def test_k_out_of_range(k, rows):
    with pytest.raises(ValueError, match=r"`k` must be a share in \(0, 1\] or a count >= 1"):
        scar_select(Dataset.from_list(rows), k=k)


def test_without_k_a_tenth_is_kept_or_what_reaches_the_threshold(scorer, rows):
    ds = Dataset.from_list(rows)
    ranking = scar_rank(ds, model=scorer, progress=False)
    assert scar_select(ds, model=scorer, progress=False)["id"][:] == ranking.top(0.1)["id"][:]
    threshold = ranking.threshold(3)
    assert scar_select(ds, threshold=threshold, model=scorer, progress=False)["id"][:] == ranking.top(3)["id"][:]
    with pytest.raises(ValueError, match=r"`k` must be a share in \(0, 1\] or a count >= 1, got None"):
        ranking.select()


def test_a_threshold_above_every_score_keeps_nothing(scorer, rows):
    ds = Dataset.from_list(rows)
    given = {"threshold": 99, "model": scorer, "progress": False}
    assert len(scar_select(ds, **given)) == len(ds.filter(scar_filter(**given))) == 0
    kept = scar_select(DatasetDict(train=ds, test=ds.select([])), sft_format=True, **given)
    assert {name: len(split) for name, split in kept.items()} == {"train": 0, "test": 0}


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_rows(n, scorer, rows):
    ds = Dataset.from_list(rows).select(range(n))
    kept = scar_select(ds, k=0.1, model=scorer, progress=False)
    assert len(kept) == n and "scar_score" in kept.column_names


def test_invalid_rows_are_counted_or_an_error(rows, scorer, caplog):
    rows[2]["response"], rows[5]["response"] = "", None
    ds = Dataset.from_list(rows)
    ranking = scar_rank(ds, model=scorer, progress=False)
    assert ranking.skipped == {2: "the response is empty", 5: "the response is missing"}
    assert "2 of 10 rows have no score" in caplog.text
    assert ranking.dataset[2]["scar_score"] is None
    assert set(ranking.top(1.0)["id"][:]) == set(range(10)) - {2, 5}
    assert {2, 5} <= set(ranking.dropped(8)["id"][:])
    with pytest.raises(ValueError, match=r"2 of 10 rows cannot be scored.*row 2: the response is empty; row 5.*missing"):
        scar_rank(ds, device="cpu", strict=True, progress=False)


def test_every_row_can_say_why(rows, scorer):
    rows[4]["response"] = None
    rows[6]["response"] = rows[7]["response"]
    rows[6]["instruction"] = rows[7]["instruction"]
    ranking = scar_rank(Dataset.from_list(rows), model=scorer, progress=False)
    place = int(np.flatnonzero(ranking.order() == 7)[0])
    explained = ranking.explained(place)
    assert explained[4]["scar_decision"] == "skipped" and explained[4]["scar_reason"] == "the response is missing"
    assert explained[4]["scar_rank"] is None
    assert explained[6]["scar_decision"] == "kept" and explained[6]["scar_rank"] == place
    assert explained[7]["scar_decision"] == "dropped" and "an earlier row with the same score" in explained[7]["scar_reason"]
    assert sorted(rank for rank in explained["scar_rank"][:] if rank) == list(range(1, 10))
    assert explained["scar_decision"][:].count("kept") == place


def test_splits_are_selected_each_by_itself(rows, scorer):
    splits = DatasetDict(train=Dataset.from_list(rows[:6]), test=Dataset.from_list(rows[6:]))
    kept = scar_select(splits, k=0.5, model=scorer, progress=False)
    assert {name: len(split) for name, split in kept.items()} == {"train": 3, "test": 2}
    for name, split in splits.items():
        assert kept[name]["id"][:] == scar_select(split, k=0.5, model=scorer, progress=False)["id"][:]
    with pytest.raises(TypeError, match=r"got a DatasetDict: pass one of its splits, \['train', 'test'\]"):
        scar_rank(splits)
    with pytest.raises(TypeError, match=r"got a stream.*scar_filter\(k=0\.1\)"):
        scar_rank(splits["train"].to_iterable_dataset())


def test_an_existing_score_column_is_not_overwritten_silently(ranking, scorer):
    with pytest.raises(ValueError, match=r"already has a column 'scar_score'"):
        scar_rank(ranking.dataset, model=scorer)
    again = scar_rank(ranking.dataset, model=scorer, overwrite=True, progress=False)
    np.testing.assert_array_equal(again.scores, ranking.scores)


def test_other_inputs_are_refused(rows):
    with pytest.raises(TypeError, match=r"takes a datasets.Dataset, got list"):
        scar_rank(rows)


def test_a_dataset_with_a_format_is_read_plain(rows, scorer, ranking):
    ds = Dataset.from_list(rows).with_format("numpy")
    np.testing.assert_array_equal(scar_rank(ds, model=scorer, progress=False).scores, ranking.scores)


def test_save(ranking, tmp_path):
    ranking.save(tmp_path / "ranked")
    assert load_from_disk(tmp_path / "ranked")["scar_score"][:] == pytest.approx(ranking.scores.tolist())
    report = json.loads((tmp_path / "ranked" / "ranking.json").read_text())
    assert report["rows"] == 10 and report["skipped"] == {} and report["model"] == "scar-ranker"
