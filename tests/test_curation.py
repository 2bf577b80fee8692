"""Rows dropped before selection: duplicates, near-duplicates, evaluation data."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from scar_hf.curation import (
    Contamination,
    Curation,
    ExactDuplicates,
    Languages,
    NearDuplicates,
    contamination_of,
    curate,
)
from scar_hf.rows.pairs import RowPairs

WORDS = ("river", "stone", "bread", "glass", "clock", "tide", "moss", "wool", "chess", "bee")


def text(count: int, seed: int, vocabulary: int = 4000) -> str:
    rng = random.Random(seed)
    return " ".join(f"{rng.choice(WORDS)}{rng.randrange(vocabulary // len(WORDS))}" for _ in range(count))


def edit(original: str, changes: int, seed: int = 0) -> str:
    """Replace words, far enough from each other that each change costs three 3-grams on each side."""
    words = original.split()
    for i in range(changes):
        words[2 + i * 4] = f"changed{seed}x{i}"
    return " ".join(words)


def grams(value: str) -> set[str]:
    words = value.lower().split()
    return {" ".join(words[i : i + 3]) for i in range(len(words) - 2)}


def similarity(left: str, right: str) -> float:
    return len(grams(left) & grams(right)) / len(grams(left) | grams(right))


def pair_rows(*responses: str) -> list[RowPairs]:
    return [RowPairs((("", response),)) for response in responses]


def found(rows: list[RowPairs], threshold: float = 0.5, **settings) -> NearDuplicates:
    finder = NearDuplicates(threshold, **settings)
    finder.add(rows)
    return finder


def test_equal_rows_leave_the_earliest_or_the_best_scored():
    ds = Dataset.from_dict({"instruction": ["a", "b", "a", "a"], "response": ["x", "y", "x", "z"]})
    assert curate(ds, [ExactDuplicates()]).dropped == {2: "duplicate of row 0"}
    best = curate(ds, [ExactDuplicates()], scores=[0.1, 9.0, 0.2, 0.0])
    assert best.dropped == {0: "duplicate of row 2"}
    assert best.dataset["response"][:] == ["y", "x", "z"]
    assert curate(ds.add_column("scar_score", [0.1, 9.0, 0.2, 0.0]), [ExactDuplicates()]).dropped == best.dropped


def test_a_row_without_a_score_gives_way_and_one_without_a_response_stays():
    ds = Dataset.from_dict({"instruction": ["a"] * 4, "response": ["x", "x", None, None], "mine": [None, -3.0, None, 2.0]})
    curated = curate(ds, [ExactDuplicates()], scores="mine")
    assert curated.dropped == {0: "duplicate of row 1"}
    assert curated.dataset["response"][:] == ["x", None, None]
    assert curate(ds, [NearDuplicates()], scores="mine").dropped == {0: "near-duplicate of row 1 (Jaccard 1.00)"}


def test_near_duplicates_are_those_above_the_threshold_by_exact_similarity():
    original = text(60, seed=1)
    near, far = edit(original, 4), edit(original, 9, seed=1)
    rows = pair_rows(original, near, far)
    assert similarity(original, near) > 0.6 > similarity(original, far)
    assert found(rows, 0.6).dropped() == {1: f"near-duplicate of row 0 (Jaccard {similarity(original, near):.2f})"}
    lower = found(rows, similarity(original, far)).dropped()
    assert lower[2] == f"near-duplicate of row 0 (Jaccard {similarity(original, far):.2f})"


def test_the_best_scored_row_of_a_group_stays_and_ties_go_to_the_earlier():
    original = text(60, seed=2)
    finder = found(pair_rows(edit(original, 2), text(60, seed=3), original, edit(original, 1, seed=4)))
    assert finder.groups().tolist() == [0, 1, 0, 0]
    assert list(finder.dropped(np.array([0.0, 0.0, 1.0, 0.5]))) == [0, 3]
    assert list(finder.dropped(np.array([0.0, 0.0, 0.0, 0.0]))) == [2, 3]
    assert list(finder.dropped(np.array([np.nan, 0.0, -5.0, np.nan]))) == [0, 3]
    assert list(finder.dropped(without={0})) == [3]


def test_groups_are_transitive_and_say_so():
    first = text(80, seed=5)
    words = first.split()
    middle = " ".join(words[:68]) + " " + text(12, seed=6)
    last = text(12, seed=7) + " " + " ".join(middle.split()[12:])
    assert similarity(first, middle) > 0.6 and similarity(middle, last) > 0.6 > similarity(first, last)
    dropped = found(pair_rows(first, last, middle), 0.6).dropped()
    assert dropped[1] == f"near-duplicate of row 0 (Jaccard {similarity(first, last):.2f}, through others)"
    assert dropped[2].endswith(f"(Jaccard {similarity(first, middle):.2f})")


def test_questions_about_one_passage_with_their_own_answers_are_no_near_duplicates():
    passage = text(150, seed=8)
    ds = Dataset.from_dict(
        {
            "instruction": ["Who founded it?", "When was it closed?", "When was it closed?"],
            "context": [passage] * 3,
            "response": ["Two sisters from Graz did.", "In the winter of 1904.", "In the winter of 1904!"],
        }
    )
    assert list(curate(ds, [NearDuplicates()]).dropped) == [2]
    assert list(curate(ds, [NearDuplicates(response_threshold=0)]).dropped) == [1, 2]
    assert list(curate(ds, [NearDuplicates(on="instruction")]).dropped) == [1, 2]
    assert list(curate(ds, [NearDuplicates(on="response")]).dropped) == [2]


def test_recall_and_precision_on_planted_twins():
    responses, planted = [], []
    for i in range(1000):
        original = text(60, seed=i)
        responses.append(original)
        if i % 4 == 0:
            twin = edit(original, 1 + i // 4 % 6, seed=i)
            planted.append((len(responses) - 1, len(responses), similarity(original, twin)))
            responses.append(twin)
    for threshold in (0.5, 0.7):
        labels = found(pair_rows(*responses), threshold).groups()
        same = {(a, b): labels[a] == labels[b] for a, b, _ in planted}
        above = [same[a, b] for a, b, value in planted if value >= threshold]
        assert len(above) > 100 and np.mean(above) > 0.97
        assert len(responses) - len(set(labels.tolist())) == sum(above)


def test_groups_are_those_of_comparing_every_pair():
    rng = random.Random(3)
    base = [text(30, seed=i) for i in range(15)]
    responses = [edit(rng.choice(base), rng.randrange(7), seed=i) for i in range(300)]
    sets = [grams(response) for response in responses]
    linked = np.array([[len(a & b) >= 0.6 * len(a | b) for b in sets] for a in sets])
    expected = np.arange(len(responses))
    while True:
        spread = np.where(linked, expected, len(responses)).min(axis=1)
        if (spread == expected).all():
            break
        expected = spread
    assert found(pair_rows(*responses), 0.6).groups().tolist() == expected.tolist()
    assert 50 < len(set(expected.tolist())) < 250


def test_thousands_of_equal_rows_are_one_group():
    labels = found(pair_rows(*[text(30, seed=1)] * 3000, *[text(30, seed=2)] * 50)).groups()
    assert (labels[:3000] == 0).all() and (labels[3000:] == 3000).all()


def test_texts_without_spaces_or_words():
    rng = random.Random(0)
    chinese = "".join(chr(0x4E00 + rng.randrange(5000)) for _ in range(200))
    rows = pair_rows(chinese, chinese[:150] + "不" + chinese[151:], "!!!", "???", "Paris", "paris.", "Rome")
    assert list(found(rows, 0.8).dropped()) == [1, 5]


def test_words_keep_their_vowel_signs_and_accents():
    assert not found(pair_rows("दिन दान दीन दून", "दान दीन दिन दून"), 0.8).dropped()
    assert not found(pair_rows("كَتَبَ كُتُب كِتَاب", "كُتِبَ كَتْب كُتَّاب"), 0.8).dropped()
    shared = "भारत की राजधानी नई दिल्ली है"
    finder = Contamination({"test": pair_rows(f"{shared} और यह यमुना नदी के किनारे पर बसी हुई है")})
    finder.add(pair_rows(f"{shared} जहाँ संसद भवन है", f"{shared} और यह यमुना नदी के किनारे पर बसी हुई है"))
    assert list(finder.dropped()) == [1]


def test_rows_come_in_any_portions_and_nothing_is_no_rows():
    rows = pair_rows(*(text(40, seed=i // 2) for i in range(40)))
    whole, parts = found(rows), NearDuplicates(0.5)
    for start in (0, 7, 8):
        parts.add(rows[start : {0: 7, 7: 8, 8: None}[start]])
        parts.groups()
    assert parts.dropped() == whole.dropped() and len(whole.dropped()) == 20
    assert NearDuplicates().dropped() == {} == ExactDuplicates().dropped()


def noisy_rows() -> list[RowPairs]:
    rng = random.Random(0)
    base = [text(40, seed=i) for i in range(60)]
    return pair_rows(*(edit(rng.choice(base), rng.randrange(6), seed=i) for i in range(300)))


def test_the_same_in_every_process():
    script = "from test_curation import found, noisy_rows; print(found(noisy_rows(), 0.6, seed=7).dropped())"
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.path.dirname(__file__)}
    other = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout
    assert "Jaccard" in other and other.strip() == str(found(noisy_rows(), 0.6, seed=7).dropped())


def test_a_row_that_the_evaluation_set_has_is_dropped_with_the_evidence():
    question = "A rectangular garden is twice as long as it is wide, and its fence measures 36 meters. How long is it?"
    evaluation = Dataset.from_dict({"question": ["Who?", question], "answer": ["Me.", "12 meters"]})
    ds = Dataset.from_dict(
        {
            "instruction": [f"Solve: {question.upper()}", "Who wrote this?", " who? ", "WHO"],
            "output": ["12", "12 meters", "Nobody.", "No one."],
        }
    )
    curated = curate(ds, [contamination_of({"gsm": evaluation})])
    gram = "a rectangular garden is twice as long as it is wide and its"
    assert curated.dropped == {
        0: f"in the evaluation set: row 1 of gsm, 13-gram '{gram}' (9 of 10)",
        2: "in the evaluation set: row 0 of gsm, the same instruction 'who?' (1 of 1)",
    }
    assert curated.dataset["instruction"][:] == ["Who wrote this?", "WHO"]
    assert not curate(ds, [contamination_of(evaluation, on="response")]).dropped
    assert list(curate(ds, [contamination_of(evaluation, ngram=30)]).dropped) == [2]


def test_what_many_evaluation_rows_share_is_a_template():
    template = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    evaluation = Dataset.from_dict({"prompt": [f"{template} {text(20, seed=i)}" for i in range(12)], "completion": ["x"] * 12})
    ds = Dataset.from_dict({"prompt": [f"{template} Say hello.", f"{template} {text(20, seed=3)}"], "completion": ["y", "y"]})
    assert list(curate(ds, [contamination_of(evaluation)]).dropped) == [1]
    assert list(curate(ds, [contamination_of(evaluation, max_rows=12)]).dropped) == [0, 1]


def test_the_name_and_row_of_each_evaluation_set():
    sets = {"first": pair_rows(text(20, seed=1), text(20, seed=2)), "second": pair_rows(text(20, seed=3))}
    finder = Contamination(sets)
    finder.add(pair_rows(text(20, seed=3), text(20, seed=9)))
    finder.add(pair_rows(text(20, seed=2)))
    reasons = finder.dropped()
    assert list(reasons) == [0, 2]
    assert "row 0 of second" in reasons[0] and "row 1 of first" in reasons[2]


def test_a_step_chooses_among_what_the_steps_before_left():
    original = text(60, seed=1)
    rows = pair_rows(original, edit(original, 1), edit(original, 2, seed=2), original)
    curation = Curation([Contamination({"test": pair_rows(text(20, seed=5))}), ExactDuplicates(), NearDuplicates(0.5)])
    curation.add(rows)
    assert list(curation.dropped()) == [1, 2, 3]
    # The best-scored row is in the evaluation set, so that the next best of its group stays.
    curation = Curation([Contamination({"test": pair_rows(edit(original, 1))}, ngram=59), NearDuplicates(0.5)])
    curation.add(rows)
    reasons = curation.dropped(np.array([0.0, 9.0, 1.0, 0.5]))
    assert list(reasons) == [0, 1, 3]
    assert reasons[1].startswith("in the evaluation set") and reasons[0].startswith("near-duplicate of row 2")
    assert json.loads(json.dumps(curation.settings()))[0]["evaluation_rows"] == {"test": 1}
    assert curation.settings()[1] | {"rensa": ""} == {
        "step": "near-duplicates",
        "threshold": 0.5,
        "response_threshold": 0.125,
        "num_perm": 256,
        "ngram": 3,
        "seed": 0,
        "on": "both",
        "rensa": "",
    }


def test_a_row_that_an_earlier_step_dropped_joins_no_others():
    words = text(60, seed=1).split()
    first, last = (" ".join(change + words[6:]) for change in (words[:6], [f"new{i}" for i in range(6)]))
    middle, last = (" ".join([*value.split()[:54], *(f"end{i}" for i in range(6))]) for value in (first, last))
    rows = pair_rows(first, middle, last)
    assert similarity(first, middle) > 0.7 > similarity(first, last)
    curation = Curation([Contamination({"test": pair_rows(middle)}, ngram=58), NearDuplicates(0.7)])
    curation.add(rows)
    assert list(curation.dropped()) == [1]
    assert list(found(rows, 0.7).dropped()) == [1, 2]


def test_errors_say_what_came_in():
    ds = Dataset.from_dict({"instruction": ["a"], "response": ["b"]})
    for call, words in {
        lambda: curate(ds, [NearDuplicates(threshold=1.5)]): "in \\(0, 1\\], got 1.5",
        lambda: curate(ds, [NearDuplicates(num_perm=2)]): "num_perm` must be at least 16",
        lambda: curate(ds, [NearDuplicates(on="prompt")]): "'both', 'instruction' or 'response', got 'prompt'",
        lambda: curate(ds, [NearDuplicates(response_threshold=2)]): "`response_threshold` .* got 2",
        lambda: curate(ds, [ExactDuplicates()], scores="quality"): "'quality', but the data has the columns",
        lambda: curate(ds, [ExactDuplicates()], scores=[1.0, 2.0]): "each of 1 rows",
        lambda: curate(ds, [ExactDuplicates()], scores=["good"]): "must be numbers",
        lambda: curate(ds, [ExactDuplicates()], columns=("ask", "reply")): "names \\['ask', 'reply'\\]",
        lambda: curate(ds, [contamination_of(ds, ngram=1)]): "at least 2",
        lambda: curate(ds, [contamination_of({"empty": ds.select([])})]): "No row of the evaluation sets \\['empty'\\]",
    }.items():
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="one of its splits, \\['train'\\]"):
        curate(DatasetDict(train=ds), [ExactDuplicates()])
    with pytest.raises(TypeError, match="got list"):
        curate(ds, [contamination_of({"test": [1]})])


def test_a_missing_library_says_how_to_get_it(monkeypatch):
    for name, make in {"rensa": NearDuplicates, "py3langid.langid": lambda: Languages(["en"])}.items():
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=r'pip install "scar-hf\[curation\]"'):
            make()


def test_a_dataset_without_rows():
    ds = Dataset.from_dict({"instruction": [], "response": []})
    full = Dataset.from_dict({"instruction": ["a"], "response": ["b"]})
    for curated in (curate(ds, [ExactDuplicates()]), curate(ds, [NearDuplicates()]), curate(ds, [contamination_of(full)])):
        assert len(curated.dataset) == 0 and curated.dropped == {}
