"""Triples: read, split, drawn with negatives, balanced and augmented."""

import gzip
import random

import numpy as np
import pytest
from datasets import Dataset

from scar_hf.training import (
    Triple,
    TripleDataset,
    load_triples,
    split_by_prompt,
)
from scar_hf.training.augmentation import Augmentation, cut_to, strip_comments, strip_markdown
from scar_hf.training.negatives import HELD_OUT_REFUSALS
from scar_hf.training.trainer import TripleCollator

from .triple_data import triple_rows


def test_triples_are_read_from_every_kind_of_file(write_jsonl, tmp_path):
    rows = triple_rows(4)
    rows[0]["direct"] = "A plain text."
    rows[1]["human"] = None
    rows[2] |= {"direct": None, "referenced": {}}  # only a human answer is left
    rows[3]["ratings"] = {"direct": 8, "human": 7.5}
    triples = load_triples(write_jsonl(rows))
    assert [sorted(t.responses) for t in triples] == [
        ["direct", "human", "referenced"],
        ["direct", "referenced"],
        ["direct", "human", "referenced"],
    ]
    assert triples[0].responses["direct"] == ["A plain text."]
    assert len(triples[2].responses["direct"]) == 2 and triples[2].ratings == {"direct": 8.0, "human": 7.5}
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(write_jsonl(rows).read_bytes()))
    assert load_triples(packed) == triples
    table = Dataset.from_list(triple_rows(4))
    table.to_parquet(tmp_path / "t.parquet")
    assert load_triples(tmp_path / "t.parquet") == load_triples(table) == load_triples(triple_rows(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": None}, "row 0: expected a text in `instruction`, got None"),
        ({"human": 3}, "row 0: `human` must be a text"),
        ({"ratings": {"direct": 11}}, "numbers from 0 to 9"),
        ({"ratings": {"robot": 1}}, "must map direct, referenced, human"),
        ({"direct": None, "referenced": None}, "no row with at least two"),
    ],
)
def test_wrong_triples_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        load_triples([triple_rows(1)[0] | change])


def test_split_keeps_a_prompt_on_one_side():
    triples = load_triples(triple_rows(300)) + load_triples(triple_rows(300))
    parts = split_by_prompt(triples, (0.8, 0.1, 0.1))
    prompts = [{t.instruction for t in part} for part in parts]
    assert sum(map(len, parts)) == 600 and not prompts[0] & prompts[1] and not prompts[1] & prompts[2]
    assert 420 < len(parts[0]) < 540
    assert split_by_prompt(triples, (0.8, 0.1, 0.1)) == parts
    assert split_by_prompt(triples, (0.8, 0.1, 0.1), seed=1) != parts
    with pytest.raises(ValueError, match="sum to 1"):
        split_by_prompt(triples, (0.8, 0.1))


def test_split_keeps_together_what_belongs_together():
    def row(i, human, group=None):
        return Triple(f"prompt {i}", {"direct": ["a"], "human": [human]}, group=group)

    # 0 and 1 share a human text, 1 and 2 a group: each trio falls on one side, and so do all trios of a longer chain.
    triples = [t for i in range(0, 300, 3) for t in (row(i, f"h{i}"), row(i + 1, f"h{i}", f"g{i}"), row(i + 2, "x", f"g{i}"))]
    for i, triple in enumerate(triples):
        if i % 3 == 2:
            triple.responses["human"] = [f"other {i}"]
    parts = split_by_prompt(triples, (0.5, 0.5))
    assert all(30 < len(part) < 270 for part in parts)
    for part in parts:
        trios = [int(t.instruction.split()[1]) // 3 for t in part]
        assert all(trios.count(trio) == 3 for trio in trios)


def test_negatives_are_what_their_kind_says():
    texts = [f"The answer to number {i} is long. It has {i} parts, and each is explained in some detail." for i in range(40)]
    triples = [Triple(f"What is number {i}?", {"direct": [text]}, source="ab"[i % 2]) for i, text in enumerate(texts)]
    drawn = {}
    for kind in ("mismatch", "refusal", "truncated", "echo", "loop"):
        dataset = TripleDataset(triples, negatives={kind: 1.0})
        drawn[kind] = [dataset[i] for i in range(len(dataset))]
        assert all(row["negative"] for row in drawn[kind])
    for row in drawn["mismatch"]:
        number = row["instruction"].split()[-1].rstrip("?")
        other = texts.index(row["negative"])
        assert row["negative"] != row["direct"] and other % 2 == int(number) % 2
    assert all(row["direct"].startswith(row["negative"]) and row["negative"] != row["direct"] for row in drawn["truncated"])
    assert not any(row["negative"].endswith(".") for row in drawn["truncated"])
    assert all(row["instruction"] in row["negative"] for row in drawn["echo"])
    assert all(len(set(row["negative"].split(". "))) <= 2 and len(row["negative"]) > 60 for row in drawn["loop"])
    assert len({row["negative"] for row in drawn["refusal"]}) > 15
    assert not {row["negative"] for row in drawn["refusal"]} & set(HELD_OUT_REFUSALS)


def test_a_mismatch_answers_another_instruction():
    """Several answers to one instruction are no mismatches of each other, however alike their lengths."""
    triples = [Triple("Same?", {"human": [f"An answer of one person, number {i}."]}) for i in range(30)]
    triples += [Triple("Other?", {"human": ["Something else altogether."]})]
    dataset = TripleDataset(triples, negatives={"mismatch": 1.0})
    rows = [row for row in map(dataset.__getitem__, range(len(dataset))) if row["instruction"] == "Same?"]
    assert rows and not any(row["negative"].startswith("An answer of one person") for row in rows)


def test_negatives_come_at_their_share_and_always_to_lone_members():
    alone = Triple("Why?", {"human": ["Because of the weather in May."]}, source="alone")
    triples = [*load_triples(triple_rows(400)), alone]
    dataset = TripleDataset(triples, {"alone": 50}, negatives={"refusal": 0.1, "mismatch": 0.2})
    rows = [dataset[i] for i in range(len(dataset))]
    alone = [row for row in rows if row["direct"] is None and row["referenced"] is None]
    assert len(alone) == 50 and all(row["negative"] for row in alone)
    assert 70 < sum(row["negative"] is not None for row in rows if row not in alone) < 170
    assert all(row["negative"] is None for row in map(TripleDataset(load_triples(triple_rows(50))).__getitem__, range(50)))
    for wrong, message in (({"sarcasm": 0.1}, "unknown kinds"), ({"echo": 0.7, "loop": 0.7}, "sum to at most 1")):
        with pytest.raises(ValueError, match=message):
            TripleDataset(triples, negatives=wrong)


def test_a_batch_carries_negatives_only_where_there_are_some(tokenizer):
    rows = [TripleDataset(load_triples(triple_rows(4)), negatives={"refusal": share})[0] for share in (0.0, 1.0)]
    collator = TripleCollator(tokenizer, 32)
    assert "negative_input_ids" not in collator(rows[:1])
    batch = collator(rows)
    assert batch["present"][:, 3].tolist() == [False, True] and batch["negative_input_ids"].shape[0] == 2


def test_draws_change_with_the_epoch_and_follow_from_the_seed():
    dataset, same = (TripleDataset(load_triples(triple_rows(20)), augmentation=Augmentation(window=0.5)) for _ in range(2))
    first = [dataset[i] for i in range(len(dataset))]
    dataset.set_epoch(1)
    second = [dataset[i] for i in range(len(dataset))]
    assert {row["direct"] for row in first} != {row["direct"] for row in second}
    same.set_epoch(1)
    np.testing.assert_equal([same[i] for i in range(len(same))], second)


def test_quotas_balance_sources_and_prompts():
    many = [Triple("one prompt", {"direct": ["a"], "human": [str(i)]}, source="big") for i in range(50)]
    few = [Triple(f"prompt {i}", {"direct": ["a"], "human": ["b"]}, source="big") for i in range(5)]
    small = [Triple("p", {"direct": ["a"], "human": ["b"]}, source="small")]
    dataset = TripleDataset(many + few + small, {"big": 12, "small": 3})
    drawn = [dataset[i]["instruction"] for i in range(len(dataset))]
    assert len(drawn) == 15 and drawn.count("p") == 3
    assert drawn.count("one prompt") == 7 and all(drawn.count(f"prompt {i}") == 1 for i in range(5))
    with pytest.raises(ValueError, match="does not have: \\['none'\\]"):
        TripleDataset(small, {"none": 1})


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("# Title\n\n- **one**\n2. `two`\n", "Title\n\none\ntwo"),
        ("```python\nx = 1  # a*b\n```", "x = 1  # a*b"),
        ("a * b and snake_case_name", "a * b and snake_case_name"),
        ("---", "---"),
        ("* item\n  - sub __bold__", "item\n  sub bold"),
    ],
)
def test_strip_markdown(text, plain):
    assert strip_markdown(text) == plain


@pytest.mark.parametrize(
    ("code", "plain"),
    [
        ('def f(x):\n    """Doc."""\n    # why\n    return x  # done', "def f(x):\n\n    return x"),
        ("/* head\n * er */\nint a; // note\n#include <x>", "int a;\n#include <x>"),
        ("# only a comment", "# only a comment"),
        ('url = "http://x"', 'url = "http://x"'),
    ],
)
def test_strip_comments(code, plain):
    assert strip_comments(code) == plain


def test_augmentation_treats_all_members_alike():
    texts = {"direct": "**bold** " + "word " * 100, "human": "# head\n" + "word " * 30}
    rng = random.Random(0)
    assert Augmentation()(texts, "open", rng) == texts
    stripped = Augmentation(strip_markdown=1.0)(texts, "open", rng)
    assert stripped["direct"].startswith("bold") and stripped["human"].startswith("head")
    assert Augmentation(strip_markdown=1.0)(texts, "code", rng) == texts
    for _ in range(20):
        cut = Augmentation(equal_length=1.0)(texts, "open", rng)
        assert 0.7 < len(cut["direct"]) / len(cut["human"]) < 1.4
    assert max(map(len, Augmentation(window=1.0)(texts, "open", rng).values())) <= 1280
    assert cut_to("one two three", 9) == "one two" and cut_to("short", 9) == "short" and cut_to("x" * 20, 5) == "xxxxx"
