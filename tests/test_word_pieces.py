"""Reading words from memory gives the tokenizer's own ids, or says that it cannot."""

import random
import string
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoTokenizer

from scar_hf import ScarScorer
from scar_hf.scoring.checkpoints import resolve_checkpoint
from scar_hf.scoring.tokenization import _REMEMBERED, WordPieces, tokenize

TOKENIZER = AutoTokenizer.from_pretrained(resolve_checkpoint("scar-ranker"))
WORDS = WordPieces(TOKENIZER)
LETTERS = string.ascii_lowercase + string.digits


@pytest.fixture
def fast() -> ScarScorer:
    return ScarScorer.from_pretrained("scar-ranker-fast", device="cpu", dtype="float32")


def assert_same(texts: list[str], max_length: int = 64) -> None:
    slow, fast = tokenize(TOKENIZER, texts, max_length), tokenize(TOKENIZER, texts, max_length, words=WORDS)
    assert fast.token_ids == slow.token_ids
    np.testing.assert_array_equal(fast.truncated, slow.truncated)


def test_every_character_reads_the_same_alone_and_among_others():
    """All characters up to U+3000, and some of the others."""
    assert_same([f"Ab{chr(i)}cd {chr(i)} e{chr(i)}" for i in range(0x3000) if not 0xD800 <= i < 0xE000])
    rng = random.Random(0)
    some = [chr(i) for i in rng.sample(range(0x3000, 0x110000), 3000) if not 0xD800 <= i < 0xE000]
    assert_same(["".join(some[i : i + 7]) + f"x{some[i]}y" for i in range(0, len(some), 7)])
    assert WORDS.encode("naïve café – “Straße” …", 64) is not None
    assert WORDS.encode("日本", 64) is None


@given(st.text(st.one_of(st.characters(codec="ascii"), st.characters(codec="latin-1"), st.characters(codec="utf-8"))))
def test_any_text_reads_the_same(text):
    assert_same([text])
    assert_same([text * 9], max_length=5)


def test_special_tokens_in_a_text_are_left_to_the_tokenizer():
    texts = ["[SEP]", "a[CLS]b", "[sep]", "[S\x00EP] is", "[ SEP ]", "[PAD] [UNK] [MASK]"]
    assert_same(texts)
    assert WORDS.encode("a [SEP] b", 64) is None


@pytest.mark.parametrize("length", [3, 4, 63, 64, 65])
def test_truncation_cuts_at_the_same_token(length):
    for words in range(length - 4, length + 2):
        assert_same(["bee " * max(0, words), "unbelievableness " * max(0, words)], max_length=length)
    ids, truncated = WORDS.encode("bee " * (length - 1), length)
    assert truncated and len(ids) == length
    assert not WORDS.encode("bee " * (length - 2), length)[1]


def test_words_of_any_length_are_read():
    assert_same(["x" * n for n in (1, 99, 100, 101, 5000)])


@pytest.mark.parametrize("length", [4, 8, 100, 5000])
def test_words_that_never_repeat_take_bounded_memory(length):
    words, rng = WordPieces(TOKENIZER), random.Random(0)
    tracemalloc.start()
    try:
        for _ in range(2 * _REMEMBERED // 1000):
            words.encode(" ".join("".join(rng.choices(LETTERS, k=length)) for _ in range(1000 // length + 1)), 512)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()
    assert sum(map(len, words._ids)) <= _REMEMBERED


def test_other_tokenizers_are_not_imitated():
    def changed(change):
        tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint("scar-ranker"))
        change(tokenizer)
        return tokenizer

    assert WordPieces.fits(TOKENIZER)
    for change in (
        lambda t: setattr(t.backend_tokenizer, "normalizer", normalizers.BertNormalizer(lowercase=False)),
        lambda t: setattr(t.backend_tokenizer, "normalizer", normalizers.NFC()),
        lambda t: setattr(t.backend_tokenizer, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda t: setattr(t, "truncation_side", "left"),
        lambda t: setattr(t, "split_special_tokens", True),
    ):
        assert not WordPieces.fits(changed(change))
    more = changed(lambda t: t.add_tokens(["honeycomb", "Über"]))
    words = WordPieces(more)
    for text in ("a honeycomb", "a HoneyComb of bees", "Über", "uber alles", "the bees"):
        found = words.encode(text, 64)
        assert found is None or found[0] == more(text)["input_ids"]
    assert words.encode("a honeycomb", 64) is None


def test_a_scorer_reads_english_from_memory(fast, monkeypatch):
    calls = []
    encode = type(fast.tokenizer).set_truncation_and_padding
    monkeypatch.setattr(
        type(fast.tokenizer), "set_truncation_and_padding", lambda self, *args: (calls.append(1), encode(self, *args))
    )
    english = fast.score(["What do bees eat?"], ["Bees eat nectar and pollen."])
    assert not calls
    fast.score(["蜂は何を食べますか"], ["蜜と花粉"])
    assert calls
    monkeypatch.setattr(fast._loaded, "words", None)
    np.testing.assert_array_equal(fast.score(["What do bees eat?"], ["Bees eat nectar and pollen."]), english)
