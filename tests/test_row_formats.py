"""Rows in every format and layout of `datasets`: scored and filtered as in a plain dataset, or an error that says why not."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, IterableDataset, load_dataset

from scar_hf import scar_filter, scar_rank
from scar_hf.cli import main
from scar_hf.methods import method_scorer
from scar_hf.selecting.filter import ScarFilter
from scar_hf.style import Surprisal

N = 8
ANSWERS = ['w "x"\n' * (i + 1) for i in range(N)]
LENGTHS = [float(len(answer)) for answer in ANSWERS]
BEST = list(range(N))[N // 2 :]
WAYS = pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])


def chat(i: int, in_parts: bool = False) -> list[dict]:
    question = [{"type": "text", "text": f"q{i}"}] if in_parts else f"q{i}"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": ANSWERS[i]}]


@pytest.fixture
def longest():
    return method_scorer("longest")


@pytest.fixture
def half(longest) -> ScarFilter:
    """Keeps the longer half of the rows."""
    return scar_filter(k=0.5, model=longest, progress=False)


@pytest.fixture
def chats() -> Dataset:
    return Dataset.from_dict({"id": list(range(N)), "messages": [chat(i) for i in range(N)]})


@pytest.fixture
def in_parts() -> Dataset:
    answers = [[{"type": "text", "text": answer}] for answer in ANSWERS]
    rows = [[{"role": "user", "content": answers[0]}, {"role": "assistant", "content": answer}] for answer in answers]
    return Dataset.from_dict({"id": list(range(N)), "messages": rows})


@pytest.fixture
def old_layout() -> Dataset:
    rows = [{"role": ["user", "assistant"], "content": [f"q{i}", ANSWERS[i]]} for i in range(N)]
    return Dataset.from_dict({"id": list(range(N)), "messages": rows})


@pytest.fixture
def mixed(tmp_path) -> Dataset:
    """Content that is text in some messages and parts in others, which `datasets` reads as its `Json` type."""
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps({"id": i, "messages": chat(i, in_parts=i % 2 == 0)}) + "\n" for i in range(N)))
    ds = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    if "Json" not in str(ds.features):
        pytest.skip("this version of datasets has no Json type")
    return ds


def scores_of(ds: Dataset | IterableDataset) -> list[float | None]:
    if isinstance(ds, Dataset):
        return ds.with_format(None)["scar_score"][:]
    return [score for batch in ds.iter(3) for score in pa.array(batch["scar_score"]).to_pylist()]


@WAYS
def test_json_content_in_arrow_tables_is_decoded(batched, mixed, longest, half):
    tables = mixed.with_format("arrow")
    assert scores_of(tables.map(longest, batched=batched)) == LENGTHS
    stream = mixed.to_iterable_dataset().with_format("arrow")
    tables_of_stream = stream.map(longest, batched=batched).iter(3)
    assert [score for table in tables_of_stream for score in table["scar_score"].to_pylist()] == LENGTHS
    kept = stream.filter(half, batched=batched)
    assert [number for table in kept.iter(3) for number in table["id"].to_pylist()] == BEST


def test_json_content_in_arrow_tables_is_filtered(mixed, half):
    assert mixed.with_format("arrow").filter(half, batched=True).with_format(None)["id"][:] == BEST


@WAYS
@pytest.mark.parametrize("data", ["chats", "in_parts", "old_layout", "mixed"])
@pytest.mark.parametrize("kind", ["numpy", "pandas"])
def test_conversations_in_arrays_are_read(kind, data, batched, longest, half, request):
    formatted = request.getfixturevalue(data).with_format(kind)
    if (kind, data) != ("pandas", "mixed"):  # `datasets` cannot write such a data frame
        assert scores_of(formatted.map(longest, batched=batched)) == LENGTHS
    assert formatted.filter(half, batched=batched).with_format(None)["id"][:] == BEST


@WAYS
@pytest.mark.parametrize("data", ["chats", "in_parts", "old_layout"])
@pytest.mark.parametrize("kind", [None, "numpy"])
def test_conversations_of_streams_are_read_in_any_layout(kind, data, batched, longest, half, request):
    stream = request.getfixturevalue(data).to_iterable_dataset().with_format(kind)
    assert scores_of(stream.map(longest, batched=batched)) == LENGTHS
    assert [row["id"] for row in stream.filter(half, batched=batched)] == BEST


@pytest.mark.parametrize("kind", ["numpy", "pandas", "arrow"])
def test_a_filter_is_fitted_to_a_stream_of_any_format(kind, chats, longest):
    fitted = scar_filter(chats.to_iterable_dataset().with_format(kind), k=0.5, model=longest, progress=False)
    assert chats.filter(fitted)["id"][:] == BEST


@WAYS
def test_an_empty_conversation_of_a_stream_is_a_row(batched, longest):
    rows = [{"id": 0, "messages": []}, {"id": 1, "messages": chat(1)}, {"id": 2, "messages": []}]
    for drop in ([], ["id"]):
        stream = Dataset.from_list(rows).remove_columns(drop).to_iterable_dataset()
        assert [row["scar_score"] for row in stream.map(longest, batched=batched)] == [None, LENGTHS[1], None]
        kept = stream.filter(scar_filter(threshold=0, model=longest), batched=batched)
        assert [row["messages"] for row in kept] == [chat(1)]


def test_an_empty_batch_is_a_batch(longest):
    assert longest({"instruction": [], "response": []}) == {"scar_score": []}
    assert longest({"id": 3, "prompt": [], "completion": []}) == {"scar_score": None}


@WAYS
def test_rows_that_a_transform_makes_unreadable_are_an_error(batched, chats, longest):
    some = chats.to_list()
    some[2]["messages"] = []
    for rows in (chats, Dataset.from_list(some)):
        made = scar_filter(k=0.5, model=longest, progress=False)
        broken = rows.with_transform(lambda batch: {"messages": [len(row) for row in batch["messages"]]})
        with pytest.raises(ValueError, match=r"cannot be read: a conversation must be a list.*with_format\(None\)"):
            broken.filter(made, batched=batched)
        assert rows.filter(made, batched=batched)["id"][:] == BEST


def test_a_fitted_filter_drops_unreadable_rows_wherever_they_are(chats, longest):
    some = chats.to_list()
    some[2]["messages"] = []
    rows = Dataset.from_list(some)
    fitted = scar_filter(rows, k=0.5, model=longest, progress=False)
    assert rows.select(range(N - 1, -1, -1)).filter(fitted)["id"][:] == BEST[::-1]


@WAYS
def test_each_pass_over_a_stream_is_counted_by_itself(batched, chats, longest, half, caplog):
    stream = chats.to_iterable_dataset().filter(half, batched=batched)
    for _ in range(3):
        assert len(list(stream)) == 4 and (half.seen, half.kept) == (8, 4)
    assert caplog.text.count("kept 4 of 8 rows (50.0%)") == 2
    above = scar_filter(threshold=LENGTHS[5], model=longest)
    stream = chats.to_iterable_dataset().filter(above, batched=batched)
    for _ in range(2):
        assert len(list(stream)) == 3 and (above.seen, above.kept) == (8, 3)


@pytest.fixture
def preferences() -> Dataset:
    return Dataset.from_dict(
        {"prompt": ["q"] * 3, "chosen": ["a" * 7, "b" * 20, "c" * 9], "rejected": ["d", "e" * 19, "f" * 30]}
    )


def test_the_longest_margin_is_the_difference_of_lengths(preferences):
    ranking = scar_rank(preferences, method="longest", preference="margin", progress=False)
    assert ranking.scores.tolist() == [6.0, 1.0, -21.0]


def test_the_perplexity_margin_is_the_difference_of_scores(preferences, tiny_lm):
    lm = Surprisal(tiny_lm, max_length=128)
    chosen, rejected, margin = (
        scar_rank(preferences, method="perplexity", lm=lm, preference=preference, progress=False).scores
        for preference in ("chosen", "rejected", "margin")
    )
    assert margin.tolist() == pytest.approx((chosen - rejected).tolist(), abs=1e-5) and abs(margin).max() > 0
    again = scar_rank(preferences, method="perplexity", lm=lm, preference="margin", progress=False)
    assert (again.scores == margin).all()


@pytest.mark.parametrize("method", ["ifd", "diversity", {"longest": 1, "diversity": 0.5}])
def test_methods_without_a_margin_say_so(method, preferences, tiny_lm):
    with pytest.raises(ValueError, match=r"The method '(ifd|diversity)' cannot score preference='margin'"):
        scar_rank(preferences, method=method, lm=tiny_lm, preference="margin", progress=False)


def test_rows_are_counted_by_a_column_next_to_one_of_maps(tmp_path, capsys):
    table = pa.table(
        {
            "instruction": [f"q{i}" for i in range(N)],
            "response": ANSWERS,
            "source": ["left", "right"] * (N // 2),
            "meta": pa.array([[("key", "value")]] * N, type=pa.map_(pa.string(), pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "data.parquet")
    out = tmp_path / "out.jsonl"
    arguments = ["-k", "3", "-o", str(out), "--method", "longest", "--group-by", "source"]
    assert main(["select", str(tmp_path / "data.parquet"), *arguments]) == 0
    assert len(out.read_text().splitlines()) == 3 and "right" in capsys.readouterr().out
