"""`ds.filter(scar_filter(...))` keeps what scar_select keeps, or says why it cannot."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from datasets.fingerprint import Hasher
from torch.utils.data import DataLoader

import scar_hf
from scar_hf import ScarScorer, scar_filter, scar_rank, scar_select


@pytest.fixture
def ds() -> Dataset:
    """Two hundred rows, some equal in what is scored, some without a response."""
    rows = [{"instruction": f"What is {i % 13}?", "response": f"It is {i % 13}. " * (1 + i % 5), "id": i} for i in range(200)]
    rows[7]["response"] = None
    rows[150]["response"] = " "
    return Dataset.from_list(rows)


@pytest.fixture(params=[True, False], ids=["cached", "uncached"])
def caching(request):
    (datasets.enable_caching if request.param else datasets.disable_caching)()
    yield request.param
    datasets.enable_caching()


@pytest.mark.parametrize("num_proc", [None, 1, 2])
@pytest.mark.parametrize("k", [0.1, 17])
def test_the_literal_form_keeps_what_select_keeps(ds, tiny_ranker, caching, num_proc, k):
    expected = scar_select(ds, k=k, progress=False, model=tiny_ranker)
    kept = ds.filter(scar_filter(k=k, progress=False, model=tiny_ranker), num_proc=num_proc)
    assert kept["id"][:] == expected["id"][:]
    assert kept.column_names == ["instruction", "response", "id"]
    assert ds.filter(scar_filter(k=k, progress=False, model=tiny_ranker), num_proc=num_proc)["id"][:] == expected["id"][:]


def test_other_ways_of_calling_it(ds, tiny_ranker):
    expected = scar_select(ds, k=0.1, progress=False, model=tiny_ranker)["id"][:]
    made = scar_filter(k=0.1, progress=False, model=tiny_ranker)
    assert ds.filter(made, batched=True, batch_size=7)["id"][:] == expected
    assert ds.filter(made, with_indices=True)["id"][:] == expected
    assert ds.filter(scar_filter(ds, k=0.1, progress=False, model=tiny_ranker))["id"][:] == expected
    assert ds.filter(scar_filter(k=0.1, progress=False, model=tiny_ranker).fit(ds), num_proc=2)["id"][:] == expected
    assert ds.with_format("numpy").filter(made)["id"][:].tolist() == expected
    messages = ds.map(lambda r: {"messages": [{"role": "user", "content": r["instruction"]},
                                              {"role": "assistant", "content": r["response"]}]})  # fmt: skip
    assert messages.filter(made)["id"][:] == expected
    assert messages.filter(made, batched=True)["id"][:] == expected


def test_one_filter_on_several_datasets_selects_from_each(ds, tiny_ranker):
    parts = DatasetDict(a=ds.select(range(80)), b=ds.select(range(80, 200)).shuffle(seed=1))
    made = scar_filter(k=0.1, progress=False, model=tiny_ranker)
    for num_proc in (None, 2):
        kept = parts.filter(made, num_proc=num_proc)
        for name, part in parts.items():
            assert kept[name]["id"][:] == scar_select(part, k=0.1, progress=False, model=tiny_ranker)["id"][:]


def test_a_dataset_is_scored_once_and_in_batches(ds, monkeypatch):
    calls = []
    score_chunks = ScarScorer.score_chunks
    monkeypatch.setattr(ScarScorer, "score_chunks", lambda self, *a, **k: calls.append(1) or score_chunks(self, *a, **k))
    datasets.disable_caching()
    try:
        ds.filter(scar_filter(k=0.1, progress=False))
        ds.filter(scar_filter(threshold=1.0, progress=False), num_proc=2)
    finally:
        datasets.enable_caching()
    assert len(calls) == 2


def test_a_threshold_keeps_the_same_everywhere(ds, tiny_ranker):
    ranking = scar_rank(ds, progress=False, model=tiny_ranker)
    threshold = float(np.nanquantile(ranking.scores, 0.8)) + 1e-4
    expected = np.flatnonzero(ranking.scores >= threshold).tolist()
    made = scar_filter(threshold=threshold, progress=False, model=tiny_ranker, dtype="float32")
    assert ds.filter(made)["id"][:] == ds.filter(made, num_proc=2)["id"][:]
    rows = [row for row in ds.to_list() if made(row)]
    assert [row["id"] for row in rows] == ds.filter(made)["id"][:]
    stream = ds.to_iterable_dataset()
    assert [row["id"] for row in stream.filter(made, batched=True)] == [row["id"] for row in rows]
    assert ds.filter(scar_filter(threshold=threshold, progress=False, model=tiny_ranker))["id"][:] == expected


@pytest.fixture
def stream(tiny_ranker):
    """Five hundred rows on a stream, and what scores them."""
    rows = [
        {"instruction": f"What is {i}?", "response": f"It is {i * 7919 % 1000}. " * (1 + i % 9), "id": i} for i in range(500)
    ]
    ds = Dataset.from_list(rows)
    return ds, ScarScorer(str(tiny_ranker), device="cpu", dtype="float32")


@pytest.mark.parametrize("k", [0.05, 0.1, 0.5])
def test_a_share_of_a_stream_is_that_of_its_first_rows(stream, k, caplog):
    ds, small = stream
    scores = scar_rank(ds, model=small, progress=False).scores
    made = scar_filter(k=k, model=small, progress=False, calibration_rows=200)
    kept = list(ds.to_iterable_dataset(num_shards=4).filter(made, batched=True, batch_size=50))
    threshold = np.sort(scores[:200])[-int(k * 200)]
    assert [row["id"] for row in kept] == np.flatnonzero(scores >= threshold).tolist()
    assert sum(row["id"] < 200 for row in kept) == int(k * 200) and abs(len(kept) / 500 - k) < 0.06
    assert (made.seen, made.kept) == (500, len(kept))
    assert caplog.text.count("keeps an approximate share of a stream") == 1 and "of its first 200 rows" in caplog.text
    del made
    assert f"scar_filter(k={k}) kept {len(kept)} of 500 rows" in caplog.text


def test_a_stream_shorter_than_what_it_is_calibrated_on_is_exact(stream, caplog):
    ds, small = stream
    expected = scar_select(ds, k=0.1, model=small, progress=False)["id"][:]
    made = scar_filter(k=0.1, model=small, progress=False)
    for how in ({}, {"batched": True, "batch_size": 32}):
        assert [row["id"] for row in ds.to_iterable_dataset().filter(made, **how)] == expected
    assert "Of a stream" not in caplog.text and caplog.text.count("kept 50 of 500 rows (10.0%)") == 1  # of the first pass


def test_a_stream_is_scored_once_and_stays_where_it_is(stream, monkeypatch):
    ds, small = stream
    scored, score_chunks = [], ScarScorer.score_chunks

    def counting(self, chunks, *args, **kwargs):
        for chunk, result in score_chunks(self, chunks, *args, **kwargs):
            scored.append(len(chunk.rows))
            yield chunk, result

    monkeypatch.setattr(ScarScorer, "score_chunks", counting)
    made = scar_filter(k=0.1, model=small, progress=False, calibration_rows=300)
    filtered = ds.to_iterable_dataset().shuffle(seed=3, buffer_size=100).filter(made, batched=True, batch_size=10)
    rows, state = [], None
    for row in filtered:
        rows.append(row["id"])
        if len(rows) == 20:
            state = filtered.state_dict()
    assert sum(scored) == 500
    filtered.load_state_dict(state)
    assert {row["id"] for row in filtered} <= set(rows)


def test_another_stream_has_its_own_threshold_and_a_fitted_filter_keeps_one(stream):
    ds, small = stream
    low = ds.map(lambda row: {"response": "x"})
    made = scar_filter(k=0.2, model=small, progress=False, calibration_rows=100)
    for part in (ds, low.add_column("n", range(500)), ds):
        assert sum(row["id"] < 100 for row in part.to_iterable_dataset().filter(made, batched=True)) >= 20
    fitted = scar_filter(ds.to_iterable_dataset(), k=0.2, model=small, progress=False, calibration_rows=100)
    expected = [row["id"] for row in ds.to_iterable_dataset().filter(fitted, batched=True)]
    assert [row["id"] for row in ds.to_list() if fitted(row)] == expected
    again = pickle.loads(pickle.dumps(fitted))
    assert [row["id"] for row in ds.to_list() if again(row)] == expected
    loader = DataLoader(ds.to_iterable_dataset(num_shards=2).filter(fitted, batched=True), num_workers=2, batch_size=None)
    assert sorted(int(row["id"]) for row in loader) == expected


def test_what_a_stream_cannot_have(stream):
    ds, small = stream
    with pytest.raises(ValueError, match=r"unknown before its end"):
        list(ds.to_iterable_dataset().filter(scar_filter(k=5, model=small)))
    with pytest.raises(ValueError, match=r"`calibration_rows` must be at least 1, got 0"):
        scar_filter(k=0.1, calibration_rows=0)
    empty = Dataset.from_dict({"instruction": ["q"] * 3, "response": [" "] * 3}).to_iterable_dataset()
    with pytest.raises(ValueError, match=r"Nothing can be selected from 3 rows.*the response is empty"):
        list(empty.filter(scar_filter(k=0.1, model=small, progress=False)))


def test_where_the_dataset_cannot_be_known_it_is_an_error(ds):
    with pytest.raises(ValueError, match=r"cannot determine which dataset.*scar_select\(ds, k=...\)"):
        [row for row in ds.to_list() if scar_filter(k=0.1)(row)]
    other = Dataset.from_list([{"instruction": "Other?", "response": "Quite other."}])
    with pytest.raises(ValueError, match=r"does not belong to the dataset that this scar_filter was fitted to"):
        other.filter(scar_filter(ds, k=0.1, progress=False))
    fitted = scar_filter(ds, k=1, progress=False)
    with pytest.raises(ValueError, match=r"the same instruction and response.*scar_select"):
        [row for row in ds.to_list() if fitted(row)]
    with pytest.raises(ValueError, match=r"without `input_columns`"):
        ds.filter(scar_filter(k=0.1), input_columns="response")


@pytest.mark.parametrize(
    "settings", [{}, {"k": 0.1, "threshold": 1}, {"k": 1.5}, {"threshold": float("nan")}, {"threshold": "1"}]
)
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=r"`(k|threshold)`"):
        scar_filter(**settings)


def test_a_share_goes_by_name(ds):
    with pytest.raises(TypeError, match=r"Pass a share as scar_filter\(k=0\.1\)"):
        scar_filter(0.1)
    with pytest.raises(TypeError, match=r"must be a datasets.Dataset"):
        scar_filter(k=0.1).fit(ds.to_list())


def test_fingerprints(ds, tiny_ranker):
    def scar_filter(*args, **settings):
        return scar_hf.scar_filter(*args, model=str(tiny_ranker), **settings)

    made = scar_filter(k=0.1, progress=False)
    before = Hasher.hash(made)
    assert before == Hasher.hash(scar_filter(k=0.1, tokens_per_batch=64))
    ds.filter(made)
    assert Hasher.hash(made) == before
    others = [
        scar_filter(k=0.2),
        scar_filter(threshold=0.1),
        scar_filter(k=0.1, max_length=32),
        scar_filter(k=0.1, dtype="float16"),
        scar_filter(k=0.1, turn="last"),
        scar_filter(k=0.1, truncation=False),
        scar_filter(k=0.1, columns=("id", "response")),
        scar_filter(k=0.1, formatting_func=lambda row: (row["a"], row["b"])),
        scar_filter(k=0.1, formatting_func=lambda row: (row["b"], row["a"])),
        scar_filter(ds, k=0.1, progress=False),
    ]
    assert len({before, *map(Hasher.hash, others)}) == 11
    code = (
        "import sys, scar_hf, datasets; print(datasets.fingerprint.Hasher.hash(scar_hf.scar_filter(k=0.1, model=sys.argv[1])))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tiny_ranker)], capture_output=True, text=True, check=True)
    assert run.stdout.split()[-1] == before


def test_another_revision_on_the_hub_is_another_fingerprint(tmp_path, monkeypatch):
    from huggingface_hub import constants

    from scar_hf.scoring.checkpoints import checkpoint_identity, resolve_checkpoint

    repo = tmp_path / "models--someone--ranker"
    config = (Path(resolve_checkpoint("scar-ranker")) / "config.json").read_text(encoding="utf-8")
    for commit in ("a" * 40, "b" * 40):
        (repo / "snapshots" / commit).mkdir(parents=True)
        (repo / "snapshots" / commit / "config.json").write_text(config)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    (repo / "refs" / "v2").write_text("b" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert json.loads(config)["model_type"] == "scar"
    assert checkpoint_identity("someone/ranker") == "a" * 40
    assert checkpoint_identity("someone/ranker", "v2") == "b" * 40
