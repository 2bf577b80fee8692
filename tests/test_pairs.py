"""Every row format gives the pair that a person would read in it."""

import pytest

from scar_hf.pairs import PairReader

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "user", "content": "What is moss?"},
    {"role": "assistant", "content": "A plant."},
    {"role": "user", "content": "And lichen?"},
    {"role": "tool", "content": "lookup result"},
    {"role": "assistant", "content": "A fungus with algae."},
]
VICUNA = [
    {"from": "human", "value": "Q1"},
    {"from": "gpt", "value": "A1"},
    {"from": "human", "value": "Q2"},
    {"from": "gpt", "value": "A2"},
]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Sum.", "input": "1 2", "output": "3"}, ("Sum.\n\n1 2", "3")),
        ({"instruction": "Sum.", "input": "", "output": "3", "text": "..."}, ("Sum.", "3")),
        ({"instruction": "Who?", "context": "Ann did.", "response": "Ann", "category": "qa"}, ("Who?\n\nAnn did.", "Ann")),
        ({"instruction": "Who?", "response": "Ann"}, ("Who?", "Ann")),
        ({"prompt": "P", "completion": "C"}, ("P", "C")),
        ({"prompt": CHAT[:3], "completion": [CHAT[3]]}, ("Hello.\n\nWhat is moss?", "A plant.")),
        ({"question": "Q", "answer": "A"}, ("Q", "A")),
        ({"messages": CHAT}, ("Hello.\n\nWhat is moss?", "A plant.")),
        ({"prompt": "ignored", "messages": CHAT}, ("Hello.\n\nWhat is moss?", "A plant.")),
        ({"conversations": VICUNA}, ("Q1", "A1")),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                    {"role": "assistant", "content": "Ho"},
                ]
            },
            ("Hi", "Ho"),
        ),
        ({"messages": [CHAT[1], {"role": "assistant", "content": None}, CHAT[5], CHAT[6]]}, ("Hello.", "A fungus with algae.")),
        ({"messages": [CHAT[1]]}, ("Hello.", None)),
        ({"messages": None}, (None, None)),
    ],
)
def test_formats(row, expected):
    instructions, responses = PairReader().read_batch({name: [value] for name, value in row.items()})
    assert (instructions[0], responses[0]) == expected


def test_last_turn():
    reader = PairReader(turn="last")
    assert reader.read_batch({"messages": [CHAT]}) == (["And lichen?"], ["A fungus with algae."])
    assert reader.read_batch({"conversations": [VICUNA, VICUNA[:2]]}) == (["Q2", "Q1"], ["A2", "A1"])


@pytest.mark.parametrize("columns", [{"instruction": "q", "response": "a"}, ("q", "a")])
def test_named_columns_win(columns):
    batch = {"instruction": ["no"], "output": ["no"], "q": ["Q"], "a": ["A"]}
    assert PairReader(columns=columns).read_batch(batch) == (["Q"], ["A"])


def test_unknown_columns_say_what_was_seen_and_what_fits():
    with pytest.raises(ValueError, match=r"\['quux', 'text'\].*instruction \+ output.*messages.*--columns"):
        PairReader().read_batch({"quux": ["a"], "text": ["b"]})
    with pytest.raises(ValueError, match=r"names \['answer'\], but the data has the columns \['q'\]"):
        PairReader(columns=("q", "answer")).read_batch({"q": ["a"]})


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "narrator", "content": "x"}], "Unknown role 'narrator'"),
        ("just text", "must be a list of messages"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "image.*reads text only"),
    ],
)
def test_what_is_no_conversation_is_refused(messages, message):
    with pytest.raises(ValueError, match=message):
        PairReader().read_batch({"messages": [messages]})


@pytest.mark.parametrize(
    "settings", [{"turn": "middle"}, {"columns": "text"}, {"columns": {"prompt": "a"}}, {"columns": ("a",)}]
)
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=r"`(turn|columns)` must"):
        PairReader(**settings)
