"""What must hold of any rows at all."""

import json
import math

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scar_hf import scar_rank, scar_select
from scar_hf.files import read_dataset
from scar_hf.rows.pairs import PairReader, RowPairs
from scar_hf.runs import select_files
from scar_hf.scoring.chunks import batches_by_tokens, cut_chunks
from scar_hf.scoring.tokenization import tokenize
from scar_hf.selecting.criteria import count_of
from scar_hf.selecting.top_k import order_of, top_indices

fast = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
any_text = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(categories=["Cs", "Ll", "Zs"]), max_size=10),  # surrogates that stand alone
    st.sampled_from(
        [
            "",
            " \n",
            "Grüße aus München",
            "你好，世界",
            "مرحبا",
            "👩‍👩‍👧",
            "\x00\x01",
            "word " * 3000,
            "a" * 20_000,
            "\t" * 9000 + "end",
        ]
    ),
)
encodable = any_text.filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))
any_value = st.one_of(
    st.none(), any_text, st.just(float("nan")), st.integers(), st.booleans(), st.lists(st.integers(), max_size=2)
)
scores = st.lists(
    st.one_of(st.just(float("nan")), st.sampled_from([0.0, -0.0, 1.5, 2.0]), st.floats(-9, 9, width=32)), max_size=50
)
shares = st.one_of(st.floats(0, 1, exclude_min=True), st.integers(1, 60))


@given(scores, shares)
@settings(max_examples=300, deadline=None)
def test_the_best_rows_are_exactly_so_many_in_order_with_stable_ties(values, k):
    array = np.array(values, dtype=np.float32)
    kept = top_indices(array, k)
    valid = [i for i, value in enumerate(values) if not math.isnan(value)]
    assert len(kept) == min(count_of(k, len(values)), len(valid))
    assert kept.tolist() == sorted(set(kept.tolist()))
    # By the definition itself: the best first, of equal ones the earlier.
    best = sorted(valid, key=lambda i: (-float(array[i]), i))[: len(kept)]
    assert kept.tolist() == sorted(best)
    order = order_of(array).tolist()
    assert sorted(order) == list(range(len(values)))


@given(st.integers(0, 10**7), st.floats(0, 1, exclude_min=True))
@settings(max_examples=300, deadline=None)
def test_a_share_is_within_a_row_of_the_product(n, k):
    count = count_of(k, n)
    assert 0 <= count <= n and abs(count - max(min(n, 1), k * n)) <= 1


@given(st.lists(st.fixed_dictionaries({"instruction": any_value, "response": any_value, "other": any_value}), max_size=12))
@fast
def test_rows_of_any_values_get_a_score_or_a_reason(small, rows):
    found = (
        PairReader().read({name: [row[name] for row in rows] for name in ("instruction", "response", "other")}) if rows else []
    )
    chunks = list(cut_chunks(found))
    results = [result for _, result in small.score_chunks(chunks)]
    values = np.concatenate([r.scores for r in results]) if results else np.empty(0)
    assert len(values) == len(rows)
    for row, reading, value in zip(rows, found, values, strict=True):
        good = isinstance(row["instruction"], str) and isinstance(row["response"], str) and bool(row["response"].strip())
        assert (reading.problem is None) == good == bool(np.isfinite(value))


messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool", "narrator"]), "content": any_value}),
    max_size=5,
)


@given(st.lists(st.one_of(st.none(), messages, any_text), max_size=6), st.sampled_from(["first", "last", "all"]))
@fast
def test_conversations_of_any_shape_are_read_or_refused_with_a_reason(rows, turn):
    for reading in PairReader(turn=turn).read({"messages": rows}):
        if reading.problem is None:
            assert reading.pairs and all(isinstance(text, str) for pair in reading.pairs for text in pair)
        else:
            assert reading.problem.strip() and "Traceback" not in reading.problem
        assert len(reading.digest()) == 16


@given(st.lists(st.tuples(encodable, st.one_of(st.none(), encodable), st.integers(0, 9)), min_size=1, max_size=15), shares)
@fast
def test_selecting_touches_no_column_and_keeps_the_order(small, rows, k):
    ds = Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(("prompt", "completion", "n"))})
    ranking = scar_rank(ds, model=small, cache=False, progress=False)
    if np.isnan(ranking.scores).all():
        with pytest.raises(ValueError, match=r"Nothing can be selected"):
            ranking.top(k)
        return
    kept = scar_select(ds, k=k, model=small, cache=False, progress=False)
    picked = top_indices(ranking.scores, k)
    assert kept.remove_columns("scar_score").to_list() == ds.select(picked).to_list()
    assert kept["scar_score"][:] == ranking.scores[picked].tolist()
    assert set(ranking.skipped) == {i for i, row in enumerate(rows) if row[1] is None or not row[1].strip()}


@given(
    st.lists(st.dictionaries(st.sampled_from(["instruction", "output", "extra"]), any_value, max_size=3), max_size=10), shares
)
@fast
def test_files_of_any_objects_survive(small, tmp_path, rows, k):
    data = tmp_path / "d.jsonl"
    first = {"instruction": "Q", "output": "A"}  # a first row tells the format
    data.write_text("".join(json.dumps(row) + "\n" for row in [first, *rows]))
    select_files(data, tmp_path / "o.jsonl", small, k, overwrite=True, cache=False, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    originals = [json.dumps(row) for row in [first, *rows]]
    stripped = [json.dumps({name: value for name, value in line.items() if name != "scar_score"}) for line in lines]
    places = iter(originals)
    assert all(line in places for line in stripped)  # a subsequence: same rows, same order, nothing touched
    assert 1 <= len(lines) <= count_of(k, len(originals))


@given(st.lists(any_text, min_size=1, max_size=6), st.integers(4, 40))
@fast
def test_windows_hold_all_tokens_and_truncation_their_beginning(tokenizer, texts, max_length):
    whole = tokenize(tokenizer, texts, 10**6)
    cut = tokenize(tokenizer, texts, max_length)
    windows = tokenize(tokenizer, texts, max_length, truncation=False)
    for i, ids in enumerate(whole.token_ids):
        assert cut.truncated[i] == (len(ids) > max_length)
        assert cut.token_ids[i][:-1] == ids[: max_length - 1] or len(ids) <= max_length
        own = [windows.token_ids[w] for w in np.flatnonzero(windows.text_of == i)]
        assert [t for window in own for t in window[1:-1]] == ids[1:-1]
        assert all(len(window) <= max_length for window in own)


@given(st.lists(st.integers(0, 600), max_size=80), st.integers(1, 3000))
@settings(max_examples=200, deadline=None)
def test_batches_hold_every_text_once_within_the_budget(lengths, budget):
    batches = list(batches_by_tokens(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)


@given(st.integers(0, 9000), st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=8, deadline=None)
def test_chunks_hold_every_row_in_order_and_change_only_around_a_change(n, seed, draw):
    rows = [RowPairs(((f"{seed} {i}", "a"),)) for i in range(n)]
    chunks = list(cut_chunks(rows))
    assert [row for chunk in chunks for row in chunk.rows] == rows
    assert all(512 <= len(chunk.rows) <= 2048 for chunk in chunks[:-1])
    at = draw.randint(0, n)
    grown = list(cut_chunks([*rows[:at], RowPairs((("new", "row"),)), *rows[at:]]))
    before = {tuple(chunk.digests) for chunk in chunks}
    start = 0
    for chunk in grown:  # whatever ends before the change is the same
        if start + len(chunk.rows) <= at:
            assert tuple(chunk.digests) in before
        start += len(chunk.rows)


def test_a_row_of_many_megabytes(small, tmp_path):
    rows = [{"prompt": "Q", "completion": "A. " * 2_000_000}, {"prompt": "Q", "completion": "A."}]
    kept = scar_select(Dataset.from_list(rows), k=2, model=small, cache=False, progress=False)
    assert len(kept) == 2 and len(kept[0]["completion"]) == 6_000_000
    (tmp_path / "d.json").write_text(json.dumps(rows))
    select_files(tmp_path / "d.json", tmp_path / "o.parquet", small, 2, progress=False)
    assert len(read_dataset(tmp_path / "o.parquet")[0]["completion"]) == 6_000_000
