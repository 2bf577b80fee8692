"""Near-duplicates are left out, groups keep their shares, and neither moves a row without being asked to."""

import math
import pickle
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from scar_hf import ScarRanking, ScarScorer, scar_rank, scar_select
from scar_hf.rows.pairs import PairReader
from scar_hf.rows.source import RowSource, rows_of
from scar_hf.selecting.criteria import count_of
from scar_hf.selecting.diversity import choose, content_space, spread
from scar_hf.selecting.quotas import Grouping, largest_remainder
from scar_hf.selecting.top_k import top_indices

many = settings(max_examples=150, deadline=None)
scores = st.lists(
    st.one_of(st.just(float("nan")), st.sampled_from([0.0, 1.5, 2.0]), st.floats(-9, 9, width=32)), min_size=1, max_size=60
)
shares = st.one_of(st.floats(0, 1, exclude_min=True), st.integers(1, 60))


@pytest.fixture(scope="module")
def twins() -> Dataset:
    """Forty rows, of which each has a copy with a word or two replaced, twenty rows further on."""
    rng = random.Random(0)
    things = ["bees", "rivers", "bread", "glass", "chess", "wool", "tides", "maps", "moss", "clocks"]
    acts = ["Explain", "Describe"]
    facts = {
        "bees": "Bees gather nectar, which workers dry with their wings until it is honey.",
        "rivers": "Rivers carry sand from the mountains, and lay it down where they slow.",
        "bread": "Bread rises because yeast eats sugar and leaves gas in the dough.",
        "glass": "Glass is sand, soda and lime, molten at some fifteen hundred degrees.",
        "chess": "Chess came from India through Persia, and its queen was once the weakest piece.",
        "wool": "Wool keeps warm even when wet, as its crimped fibres hold air.",
        "tides": "Tides follow the moon, whose pull is stronger on the near side of the sea.",
        "maps": "Maps must stretch the globe somewhere, so that areas or angles are false.",
        "moss": "Mosses have no roots; they drink rain with their whole surface.",
        "clocks": "Clocks were ruled by pendulums until quartz, which swings thousands of times a second.",
    }
    extra = {"Explain": " It took people centuries to learn this.", "Describe": " Children ask about it more than adults."}
    first = [(f"{act} {thing} to me.", facts[thing] + extra[act]) for act in acts for thing in things]
    second = [(x, y.replace("the", rng.choice(["this", "that"]), 1).replace(".", "!", 1)) for x, y in first]
    pairs = first + second
    return Dataset.from_dict(
        {
            "instruction": [x for x, _ in pairs],
            "response": [y for _, y in pairs],
            "id": list(range(len(pairs))),
            "source": [("web", "book", "book", None)[i % 4] for i in range(len(pairs))],
        }
    )


@pytest.fixture(scope="module")
def ranking(twins, small) -> ScarRanking:
    return scar_rank(twins, model=small, progress=False, cache=False)


def twins_kept(kept: np.ndarray) -> int:
    return sum(1 for i in kept.tolist() if i + 20 in kept)


def test_near_twins_are_left_out(twins, scorer):
    ranking = scar_rank(twins, model=scorer, progress=False, cache=False)
    kept = {diversity: ranking.indices(12, diversity=diversity) for diversity in (0.0, 0.5, 0.9)}
    assert twins_kept(kept[0.0]) >= 3 > twins_kept(kept[0.5]) and twins_kept(kept[0.9]) == 0, kept
    for rows in kept.values():
        assert len(rows) == 12 and rows.tolist() == sorted(rows.tolist()) and ranking.order()[0] in rows


def test_scores_fall_no_further_than_diversity_lets_them(ranking):
    for diversity in (0.1, 0.3, 1.0):
        pool = set(ranking.indices(math.floor(5 * (1 + 4 * diversity))).tolist())
        assert set(ranking.indices(5, diversity=diversity).tolist()) <= pool


def test_selecting_by_both_is_the_same_from_every_side(twins, ranking, small):
    how = {"stratify_by": "source", "diversity": 0.4}
    kept, dropped = ranking.top(0.3, **how), ranking.dropped(0.3, **how)
    assert len(kept) == 12 and sorted(kept["id"][:] + dropped["id"][:]) == list(range(40))
    assert kept["id"][:] == sorted(kept["id"][:])
    assert kept.column_names == [*twins.column_names, "scar_score"]
    assert [kept["source"][:].count(name) for name in ("web", "book", None)] == [3, 6, 3]
    assert ranking.threshold(0.3, **how) == pytest.approx(min(kept["scar_score"][:]))
    selected = scar_select(twins, k=0.3, model=small, progress=False, cache=False, **how)
    assert selected["id"][:] == kept["id"][:]
    explained = ranking.explained(0.3, **how)
    assert [row["id"] for row in explained if row["scar_decision"] == "kept"] == kept["id"][:]
    assert "12 kept by score and quotas for 'source' and diversity 0.4, down to" in explained[0]["scar_reason"]
    manifest = ranking.manifest(0.3, **how)
    assert manifest["options"] == {"k": 0.3, "stratify_by": "source", "diversity": 0.4}
    assert manifest["selection"]["kept"] == 12
    assert manifest["selection"]["threshold"] == pytest.approx(ranking.threshold(0.3, **how))


def test_without_either_the_rows_are_those_of_before(ranking):
    for k in (1, 7, 0.25, 1.0):
        np.testing.assert_array_equal(ranking.indices(k), top_indices(ranking.scores, k))
        np.testing.assert_array_equal(ranking.indices(k, diversity=0), top_indices(ranking.scores, k))
    assert ranking.manifest(3)["options"] == {"k": 3, "stratify_by": None, "diversity": 0.0}


def test_splits_are_diversified_each_by_itself(twins, small):
    splits = DatasetDict(train=twins.select(range(25)), test=twins.select(range(25, 40)))
    how = {"k": 0.4, "stratify_by": "source", "diversity": 0.5, "model": small, "progress": False, "cache": False}
    kept = scar_select(splits, **how)
    assert {name: len(split) for name, split in kept.items()} == {"train": 10, "test": 6}
    assert kept["test"]["id"][:] == scar_select(splits["test"], **how)["id"][:]


def test_rows_without_a_score_are_never_kept(twins, small):
    rows = twins.to_list()
    for i in (0, 3, 21):
        rows[i]["response"] = ""
    ranking = scar_rank(Dataset.from_list(rows), model=small, progress=False, cache=False)
    for how in ({"diversity": 0.7}, {"stratify_by": "source"}, {"stratify_by": "source", "diversity": 1.0}):
        assert not {0, 3, 21} & set(ranking.indices(1.0, **how).tolist())
        assert len(ranking.indices(1.0, **how)) == 37
        assert len(ranking.indices(20, **how)) == 20


def test_a_ranker_in_memory_compares_rows_too(twins, tiny_model, tokenizer):
    scorer = ScarScorer.from_model(tiny_model(vocab_size=len(tokenizer)), tokenizer)
    ranking = scar_rank(twins, model=scorer, progress=False)
    kept = ranking.indices(20, diversity=0.8)
    assert len(kept) == 20 and twins_kept(kept) < twins_kept(ranking.indices(20))
    sent = pickle.loads(pickle.dumps(ranking))
    np.testing.assert_array_equal(sent.indices(5), ranking.indices(5))
    with pytest.raises(ValueError, match=r"this ranking has no scorer.*scar_rank"):
        sent.indices(5, diversity=0.5)


def test_a_ranking_that_was_sent_keeps_its_scorer(twins, small):
    ranking = scar_rank(twins, model=small, progress=False, cache=False)
    sent = pickle.loads(pickle.dumps(ranking))
    np.testing.assert_array_equal(sent.indices(10, diversity=0.5), ranking.indices(10, diversity=0.5))


def test_vectors_are_those_of_the_model(twins, small):
    vectors = small.encode_rows(rows_of(twins, PairReader()))
    assert vectors.shape == (40, 3, 32) and vectors.dtype == np.float32
    for part, column in enumerate(("instruction", "response")):
        ids = small.tokenizer(twins[5][column], return_tensors="pt", max_length=64, truncation=True)["input_ids"]
        first, _ = small.model.encode(ids)
        np.testing.assert_allclose(vectors[5, part], first[0].detach().numpy(), atol=1e-5)
    assert small.encode_rows([]).shape == (0, 3, 32)
    with torch.no_grad():
        scores, _ = small.model.rank(*torch.from_numpy(vectors).unbind(dim=1))
    np.testing.assert_allclose(scores.numpy(), small.score(twins["instruction"][:], twins["response"][:]), atol=1e-5)
    turns = [{"from": role, "value": text} for role, text in (("human", "a?"), ("gpt", "b"), ("human", "c?"), ("gpt", "d"))]
    several = PairReader(turn="all").read({"conversations": [turns]})
    alone = PairReader().read({"prompt": ["a?", "c?"], "completion": ["b", "d"]})
    np.testing.assert_allclose(small.encode_rows(several)[0], small.encode_rows(alone).mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("diversity", [-0.1, 1.1, float("nan"), "0.5", True, None])
def test_diversity_out_of_range(diversity, twins, ranking):
    with pytest.raises(ValueError, match=r"`diversity` must be in \[0, 1\]"):
        scar_select(twins, k=0.5, diversity=diversity)
    with pytest.raises(ValueError, match=r"`diversity` must be in \[0, 1\]"):
        ranking.top(5, diversity=diversity)


@pytest.mark.parametrize(
    ("stratify_by", "message"),
    [
        ("sauce", r"`stratify_by` names the column 'sauce', but the data has the columns \['instruction'"),
        (["source"], r"`stratify_by` must be a column name or \{column: \{value: share\}\}, got \['source'\]"),
        ({"source": {"web": -1}}, r"The share of source='web' in `stratify_by` must be a finite number >= 0, got -1"),
        ({"source": {"web": 0}}, r"`stratify_by` must give at least one value of 'source' a share above 0"),
        ({"source": {"wep": 1}}, r"lists values that no row has in 'source': \['wep'\]. Values found: \['web', 'book', None\]"),
    ],
)
def test_groups_that_are_none(stratify_by, message, ranking):
    with pytest.raises(ValueError, match=message):
        ranking.top(5, stratify_by=stratify_by)


def test_lists_are_no_groups(ranking):
    with_lists = ScarRanking(Dataset.from_dict({"tags": [["a"], ["b"]]}), np.zeros(2, dtype=np.float32))
    with pytest.raises(ValueError, match=r"'tags', which holds lists"):
        with_lists.top(1, stratify_by="tags")


def test_shares_as_named(ranking, caplog):
    kept = ranking.top(10, stratify_by={"source": {"web": 0.7, None: 0.3}})
    assert [kept["source"][:].count(name) for name in ("web", "book", None)] == [7, 0, 3]
    # Ten rows are from the web: what it cannot fill goes to the other group.
    kept = ranking.top(15, stratify_by={"source": {"web": 9, "book": 1}})
    assert [kept["source"][:].count(name) for name in ("web", "book", None)] == [10, 5, 0]
    assert not caplog.text
    assert len(ranking.top(15, stratify_by={"source": {"web": 1}})) == 10
    assert "Only 10 of 15 rows can be kept" in caplog.text


def test_classes_go_by_their_names():
    features = Features({"kind": ClassLabel(names=["prose", "code"]), "weight": Value("float64")})
    ds = Dataset.from_dict({"kind": [1, 0, 1, None], "weight": [float("nan"), 0.5, None, 0.5]}, features=features)
    source = RowSource(ds, PairReader())
    kinds, weights = Grouping("kind"), Grouping("weight")
    kinds.add(source.column("kind"))
    for value in source.column("weight"):
        weights.add([value])
    assert kinds.groups().names == ["code", "prose", None]
    groups = weights.groups()
    assert groups.labels.tolist() == [0, 1, 0, 1] and groups.names == [None, 0.5]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any), st.integers(0, 200))
@many
def test_largest_remainder_is_within_one_of_the_exact_share(weights, count):
    parts = largest_remainder(weights, count)
    exact = [Fraction(count * weight, sum(weights)) for weight in weights]
    assert sum(parts) == count and all(abs(part - share) < 1 for part, share in zip(parts, exact, strict=True))
    rounded_up = [exact[i] - math.floor(exact[i]) for i in range(len(parts)) if parts[i] > math.floor(exact[i])]
    rounded_down = [exact[i] - math.floor(exact[i]) for i in range(len(parts)) if parts[i] == math.floor(exact[i])]
    assert not rounded_up or not rounded_down or min(rounded_up) >= max(rounded_down)


@given(scores, shares, st.data())
@many
def test_quotas_keep_the_best_of_each_group(values, k, data):
    groups = data.draw(st.lists(st.sampled_from(["a", "b", None]), min_size=len(values), max_size=len(values)))
    array = np.array(values, dtype=np.float32)
    kept = ScarRanking(Dataset.from_dict({"g": groups}), array).indices(k, stratify_by="g").tolist()
    n, scored = len(values), [i for i, value in enumerate(values) if not math.isnan(value)]
    count = min(count_of(k, n), len(scored))
    assert len(kept) == count and kept == sorted(set(kept)) and set(kept) <= set(scored)
    for name in set(groups):
        members = [i for i in scored if groups[i] == name]
        mine = [i for i in kept if groups[i] == name]
        # Within a group: the best first, of equal ones the earlier.
        assert mine == sorted(sorted(members, key=lambda i: (-float(array[i]), i))[: len(mine)])
        assert abs(len(mine) - count * groups.count(name) / n) < 1 or len(scored) < n


@given(scores, shares, st.floats(0, 1), st.integers(1, 3), st.integers(0, 5))
@many
def test_diverse_rows_are_exactly_so_many_and_always_the_same(values, k, diversity, kinds, seed):
    rng = np.random.default_rng(seed)
    array = np.array(values, dtype=np.float32)
    labels = rng.integers(0, kinds, len(values))
    vectors = rng.normal(size=(5, 2, 4)).astype(np.float32)[rng.integers(0, 5, len(values))]  # many are twins
    scored = ~np.isnan(array)
    room = np.bincount(labels[scored], minlength=kinds)
    quotas = np.minimum(room, np.random.default_rng(seed).integers(0, len(values) + 1, kinds))
    asked = []

    def embed(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return vectors[rows]

    kept = choose(array, quotas, labels, diversity, embed)
    assert kept.tolist() == sorted(set(kept.tolist())) and scored[kept].all()
    np.testing.assert_array_equal(np.bincount(labels[kept], minlength=kinds), quotas)
    np.testing.assert_array_equal(kept, choose(array, quotas, labels, diversity, embed))
    for rows in asked:  # no more rows are encoded than the pools have
        assert rows.tolist() == sorted(rows.tolist())
        assert (np.bincount(labels[rows], minlength=kinds) <= quotas * (1 + 4 * diversity) + 1e-6).all()
    if diversity == 0:
        assert not asked


def by_definition(space, standing, groups, quotas, diversity) -> list[int]:
    """The greedy choice one row at a time, looking at all rows each time."""
    novelty, left, chosen = np.ones(len(space)), quotas.copy(), []
    while left.any():
        worth = (1 - diversity) * standing + diversity * novelty
        worth[chosen] = -np.inf
        worth[left[groups] == 0] = -np.inf
        chosen.append(int(worth.argmax()))
        left[groups[chosen[-1]]] -= 1
        cosines = (space @ space[chosen[-1]]).astype(np.float64)
        novelty = np.minimum(novelty, np.round(1 - np.clip(cosines, 0, 1), 4))
    return chosen


@pytest.mark.parametrize("diversity", [0.1, 0.3, 0.6, 0.9])
def test_choosing_in_batches_is_choosing_one_by_one(diversity):
    rng = np.random.default_rng(7)
    n = 1500
    vectors = rng.normal(size=(80, 2, 12))[rng.integers(0, 80, n)] + rng.normal(size=(n, 2, 12)) * rng.uniform(0, 1, (n, 1, 1))
    space = content_space(vectors.astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(space, axis=1), 1, atol=1e-5)
    groups, standing = rng.integers(0, 3, n), 1 - np.arange(n) / n
    quotas = np.array([300, 0, 250])
    chosen = spread(space, standing, groups, quotas, diversity)
    assert chosen.tolist() == by_definition(space, standing, groups, quotas, diversity)


def test_equal_rows_do_not_break_the_space():
    same = np.ones((6, 2, 4), dtype=np.float32)
    assert np.isfinite(content_space(same)).all()
    assert content_space(same[:1]).shape == (1, 8)
    labels = np.zeros(6, dtype=np.int64)
    kept = choose(np.zeros(6, dtype=np.float32), np.array([3]), labels, 0.5, lambda rows: same[rows])
    assert kept.tolist() == [0, 1, 2]
