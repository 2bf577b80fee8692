"""Every row format gives the pairs that a person would read in it."""

import pytest

from scar_hf.rows.pairs import PairReader

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
PARTS = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, "there"]}, {"role": "assistant", "content": "Ho"}]


def read(row, **settings):
    return PairReader(**settings).read({name: [value] for name, value in row.items()})[0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Sum.", "input": "1 2", "output": "3"}, ("Sum.\n\n1 2", "3")),
        ({"instruction": "Sum.", "input": "", "output": "3", "text": "..."}, ("Sum.", "3")),
        ({"instruction": "Who?", "context": "Ann did.", "response": "Ann", "category": "qa"}, ("Who?\n\nAnn did.", "Ann")),
        ({"instruction": "Who?", "response": "Ann"}, ("Who?", "Ann")),
        ({"prompt": "P", "completion": "C"}, ("P", "C")),
        ({"prompt": CHAT[:3], "completion": [CHAT[3]]}, ("Hello.\n\nWhat is moss?", "A plant.")),
        ({"prompt": CHAT[:3], "completion": "A plant."}, ("Hello.\n\nWhat is moss?", "A plant.")),
        ({"question": "Q", "answer": "A"}, ("Q", "A")),
        ({"messages": CHAT}, ("Hello.\n\nWhat is moss?", "A plant.")),
        ({"prompt": "ignored", "messages": CHAT}, ("Hello.\n\nWhat is moss?", "A plant.")),
        ({"conversations": VICUNA}, ("Q1", "A1")),
        ({"conversations": {"from": ["human", "gpt"], "value": ["Q", "A"]}}, ("Q", "A")),
        ({"messages": PARTS}, ("Hi\nthere", "Ho")),
        ({"messages": [CHAT[1], {"role": "assistant", "content": None}, CHAT[5], CHAT[6]]}, ("Hello.", "A fungus with algae.")),
        ({"text": "### Instruction:\nSum.\n\n### Input:\n1 2\n\n### Response:\n3</s>"}, ("Sum.\n\n1 2", "3")),
    ],
)
def test_formats(row, expected):
    found = read(row)
    assert found.pairs == (expected,) and found.problem is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"Instruction": "Q", "Response": "A"}, ("Q", "A")),
        ({"INSTRUCTION": "Q", "Input": "more", "OUTPUT": "A"}, ("Q\n\nmore", "A")),
        ({"input": "Q", "output": "A"}, ("Q", "A")),
        ({"inputs": "Q", "targets": "A"}, ("Q", "A")),
        ({"user": "Q", "assistant": "A"}, ("Q", "A")),
        ({"query": "Q", "response": "A", "type": "MATH"}, ("Q", "A")),
        ({"problem": "Q", "solution": "A", "answer": "3"}, ("Q", "A")),
        ({"id": 1, "system_prompt": "S", "question": "Q", "response": "A"}, ("Q", "A")),
        ({"Question": "Q", "Answer": "A"}, ("Q", "A")),
        ({"question": "Q", "context": "CREATE TABLE", "answer": "A"}, ("Q\n\nCREATE TABLE", "A")),
        ({"questions": "Q", "answers": "A"}, ("Q", "A")),
        ({"conversations": ["Q", "A"], "source": "lima"}, ("Q", "A")),
        ({"conversations": ["Q", "A", "Q2", "A2"]}, ("Q", "A")),
        ({"conversation": CHAT}, ("Hello.\n\nWhat is moss?", "A plant.")),
        ({"instruction": "lower", "Instruction": "upper", "output": "A"}, ("lower", "A")),
        ({"prompt": "Q", "completion": [CHAT[3], CHAT[4], CHAT[6]]}, ("Q", "A plant.")),
        ({"prompt": "moss?", "completion": CHAT}, ("Hello.\n\nWhat is moss?", "A plant.")),
    ],
)
def test_columns_that_people_have(row, expected):
    found = read(row)
    assert found.pairs == (expected,) and found.problem is None


LAST = {"role": "assistant", "content": "Both grow."}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, ("Q", "A", "B")),
        ({"question": "Q", "chosen": "A", "rejected": "B", "system": "S"}, ("Q", "A", "B")),
        ({"prompt": [CHAT[1]], "chosen": [CHAT[3]], "rejected": [LAST]}, ("Hello.", "A plant.", "Both grow.")),
        # the prompt again at the start of both, as in UltraFeedback, and conversations of which only the last turn differs
        ({"prompt": "Hello.", "chosen": [CHAT[1], CHAT[3]], "rejected": [CHAT[1], LAST]}, ("Hello.", "A plant.", "Both grow.")),
        ({"chosen": CHAT, "rejected": [*CHAT[:6], LAST]}, ("And lichen?", "A fungus with algae.", "Both grow.")),
        ({"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}, ("Q", "A", "B")),
        ({"chosen": CHAT, "rejected": CHAT}, ("And lichen?", "A fungus with algae.", "A fungus with algae.")),
        ({"messages": VICUNA, "chosen": "A", "rejected": "B", "prompt": "Q"}, ("Q", "A", "B")),
    ],
)
def test_preference_sets(row, expected, caplog):
    question, chosen, rejected = expected
    assert read(row).pairs == ((question, chosen),) and "the chosen ones are scored" in caplog.text
    assert read(row, preference="rejected").pairs == ((question, rejected),)
    margin = read(row, preference="margin")
    assert margin.pairs == ((question, chosen),) and margin.against == ((question, rejected),) and margin.problem is None
    assert margin.digest() not in (read(row).digest(), read({"messages": [*VICUNA]}, turn="all").digest())
    assert read({"row": row}, formatting_func=lambda given: given["row"], preference="margin") == margin


def test_preferences_that_cannot_be_measured():
    half = {"prompt": "Q", "chosen": "A", "rejected": None}
    assert read(half).problem is None and read(half, preference="margin").problem == "the rejected response is missing"
    with pytest.raises(ValueError, match=r"preference='margin' needs the columns chosen and rejected, but the data has"):
        read({"prompt": "Q", "completion": "A"}, preference="margin")
    with pytest.raises(ValueError, match=r"cannot be combined with `columns`"):
        PairReader(("a", "b"), preference="margin")
    with pytest.raises(ValueError, match=r"`preference` must be"):
        PairReader(preference="both")
    assert "returns rows with chosen" in read({"a": 1}, formatting_func=lambda row: ("q", "a"), preference="margin").problem


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nWhat is 1 < 2?<|im_end|>\n<|im_start|>assistant\nTrue.<|im_end|>\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat is 1 < 2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nTrue.<|eot_id|>",
        "<bos><start_of_turn>user\nWhat is 1 < 2?<end_of_turn>\n<start_of_turn>model\nTrue.<end_of_turn>\n",
        "<|system|>\nS</s>\n<|user|>\nWhat is 1 < 2?</s>\n<|assistant|>\nTrue.</s>\n",
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nWhat is 1 < 2? [/INST] True. </s>",
        "### Human: What is 1 < 2?### Assistant: True.",
        "### Question: What is 1 < 2?\n ### Answer: True.",
        "A chat. USER: What is 1 < 2? ASSISTANT: True.</s>",
    ],
)
def test_rendered_texts_are_read_by_the_marks_of_their_template(text):
    assert read({"text": text}).pairs == (("What is 1 < 2?", "True."),)


def test_a_real_template_is_read_back(tokenizer):
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    text = tokenizer.apply_chat_template(CHAT, chat_template=template, tokenize=False)
    assert read({"text": text}, turn="all").pairs == read({"messages": CHAT}, turn="all").pairs


def test_turns():
    assert read({"messages": CHAT}, turn="last").pairs == (("And lichen?", "A fungus with algae."),)
    assert read({"conversations": VICUNA}, turn="all").pairs == (("Q1", "A1"), ("Q2", "A2"))
    half = [*VICUNA, {"from": "gpt", "value": "  "}]
    assert read({"conversations": half}, turn="all").pairs == (("Q1", "A1"), ("Q2", "A2"))
    assert read({"conversations": half}, turn="last").problem == "the response is empty"


@pytest.mark.parametrize("columns", [{"instruction": "q", "response": "a"}, ("q", "a")])
def test_named_columns_win(columns):
    row = {"instruction": "no", "output": "no", "q": "Q", "a": "A"}
    assert read(row, columns=columns).pairs == (("Q", "A"),)


@pytest.mark.parametrize(
    "formatting_func",
    [
        lambda row: (row["ask"], row["say"]),
        lambda row: [{"role": "user", "content": row["ask"]}, {"role": "assistant", "content": row["say"]}],
        lambda row: f"### Human: {row['ask']}\n### Assistant: {row['say']}",
        lambda row: {"prompt": row["ask"], "completion": row["say"], "other": 1},
    ],
)
def test_formatting_functions(formatting_func):
    assert read({"ask": "Q", "say": "A"}, formatting_func=formatting_func).pairs == (("Q", "A"),)
    assert "of a known format, got int" in read({"ask": "Q"}, formatting_func=lambda row: 3).problem


def test_only_the_columns_that_are_read_are_asked_for():
    names = ["id", "input", "output", "instruction", "blob"]
    assert PairReader().needed(names) == ["instruction", "output", "input"]
    assert PairReader(formatting_func=str).needed(names) is None


def test_unknown_columns_say_what_was_seen_and_what_fits():
    with pytest.raises(ValueError, match=r"\['quux', 'texts'\].*instruction \+ output.*messages.*--columns.*formatting_func"):
        read({"quux": "a", "texts": "b"})
    with pytest.raises(ValueError, match=r"names \['answer'\], but the data has the columns \['q'\]"):
        read({"q": "a"}, columns=("q", "answer"))
    with pytest.raises(ValueError, match=r"already tokenised.*tokenizer.decode"):
        read({"input_ids": [1, 2]})


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": [CHAT[1]]}, "the response is missing"),
        ({"messages": None}, "the instruction is missing"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "unknown role 'narrator'"),
        ({"messages": [{"content": "x"}]}, "unknown role None"),
        ({"messages": "just text"}, "must be a list of messages, not str"),
        ({"messages": ["just text"]}, "the response is missing"),
        ({"messages": ["text", 5]}, "must be a list of messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "image; SCAR rankers read only text"),
        ({"messages": [{"role": "user", "content": 3}]}, "not int"),
        ({"prompt": "P", "completion": None}, "the response is missing"),
        ({"prompt": "P", "completion": " \n"}, "the response is empty"),
        ({"prompt": "P", "completion": float("nan")}, "must be a string, not float"),
        ({"prompt": None, "completion": "C"}, "the instruction is missing"),
        ({"text": "no marks at all"}, "no user and assistant markers"),
        ({"text": None}, "missing"),
    ],
)
def test_rows_that_cannot_be_scored_come_with_the_reason(row, problem):
    assert problem in read(row).problem


@pytest.mark.parametrize(
    "settings",
    [{"turn": "middle"}, {"columns": "text"}, {"columns": {"prompt": "a"}}, {"columns": ("a",)},
     {"columns": ("a", "b"), "formatting_func": str}],
)  # fmt: skip
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=r"`(turn|columns)`"):
        PairReader(**settings)


def test_digests_tell_what_is_scored_apart():
    rows = [read({"prompt": a, "completion": b}) for a, b in (("ab", "c"), ("a", "bc"), ("ab", "c"), ("ab", "\ud800"))]
    assert len({row.digest() for row in rows}) == 3 and rows[0].digest() == rows[2].digest()


def test_each_row_is_read_in_its_own_format():
    chat = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "reply"}]
    batch = {
        "instruction": ["q", None, None, "q", None],
        "output": ["a", None, None, None, None],
        "messages": [None, chat, None, None, None],
        "question": [None, None, "why", None, None],
        "answer": [None, None, "because", None, None],
    }
    rows = PairReader().read(batch)
    assert [row.pairs for row in rows[:3]] == [(("q", "a"),), (("ask", "reply"),), (("why", "because"),)]
    assert [row.problem for row in rows[:3]] == [None] * 3 and all(row.problem for row in rows[3:])


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "a text part of a message must be a string, not int"),
        ({"role": "user"}, "a conversation must be a list of messages, not an object"),
        ({"role": 5, "content": None}, "a conversation must be a list of messages, not an object"),
        ({"role": ["user"], "content": []}, "a conversation must be a list of messages, not an object"),
        ([["user", "hello"]], "a conversation must be a list of messages, not list"),
        ([{"role": ["user"], "content": "x"}], "unknown role ['user']"),
    ],
)
def test_badly_typed_conversations_are_skipped_with_a_reason(messages, problem):
    found = PairReader().read({"messages": [messages]})[0].problem
    assert found is not None and found.startswith(problem)
