"""Which responses of a language model are left out of triples, and why."""

import pytest

from scar_hf.synthesis import Completion
from scar_hf.synthesis.filters import finished, language_finder, problem_of, script_of


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two! Thr", "One. Two!"),
        ("It is made in steps:\n\n1. **Mix** the clay.\n2. **Dry", "It is made in steps:\n\n1. **Mix** the clay."),
        ("Use this:\n\n```python\nx = 1\n```\n\nThen", "Use this:\n\n```python\nx = 1\n```"),
        ("It is easy. Use this:\n\n```python\nx = 1\ny", "It is easy."),
        ("Clay is old.\n\n### Steps:\n\n- ", "Clay is old."),
        ("no end at al", ""),
    ],
)
def test_the_end_of_a_whole_sentence(text, whole):
    assert finished(text) == whole


HUMAN = "The dam at Aswan was built between 1960 and 1970 to control the yearly floods of the Nile and to produce electricity."
GOOD = (
    "Between 1960 and 1970 a dam went up at Aswan; it tames the floods that the Nile brings yearly, and produces electricity."
)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("direct", GOOD, None),
        ("referenced", GOOD, None),
        ("direct", "  \n", "empty"),
        ("direct", "<think>Hm, hm.</think>\n", "empty"),
        ("direct", "<think>Well, the dam", "cut off"),
        ("direct", "As an AI language model, I have no opinion about dams.", "AI disclaimer"),
        ("direct", "I am unable to answer this question about the dam.", "refusal"),
        ("direct", "I'm sorry to hear that your field was flooded. The dam at Aswan has prevented this since 1970.", None),
        ("direct", "The dam holds water. " * 12, "repeats itself"),
        ("direct", "Tell me why the Aswan dam was built.", "copies the instruction"),
        ("direct", "The dam was built for electricity.<|im_end|>\nuser: and the floods?", "chat marks"),
        ("referenced", HUMAN + " It is large.", "copies the reference"),
        ("referenced", "According to the answer above, the Nile's floods led to a dam at Aswan, 1960 to 1970, for electricity.",
         "mentions the reference"),
        ("referenced", f"Here is the rewritten answer: {GOOD}", "mentions the reference"),
        ("referenced", "It is a very famous building in a country far away.", "drops the reference"),
        ("direct", "Der Damm bei Assuan wurde gebaut, um die jährlichen Fluten des Nils zu zähmen und Strom zu erzeugen.",
         "another language"),
    ],
)  # fmt: skip
def test_reasons_to_leave_a_response_out(kind, text, reason):
    found = problem_of(
        kind, Completion(text, "stop"), "Tell me why the Aswan dam was built.", HUMAN, language=language_finder()
    )
    assert found == reason


def test_without_a_language_library_the_script_tells():
    text = "Плотина построена между 1960 и 1970 годами, чтобы управлять паводками."
    assert problem_of("direct", Completion(text), "Why?", HUMAN, language=script_of) == "another language"
    assert problem_of("direct", Completion(GOOD), "Why?", HUMAN, language=script_of) is None
