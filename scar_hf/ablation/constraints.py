"""Instructions with a constraint on format, length or words that a program verifies. Correctness is not checked."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_TOPICS = (
    "how bread is baked",
    "why leaves change their colour in autumn",
    "what a library is good for",
    "how to learn to swim",
    "the life of a honey bee",
    "what makes a good teacher",
    "how a bicycle stays upright",
    "why people travel",
    "how to look after a house plant",
    "what a river does to its valley",
    "how letters reach their addresses",
    "why sleep matters",
)


@dataclass(frozen=True)
class Constraint:
    """
    A constraint on an answer.

    Args:
        name (`str`): name of the constraint.
        wording (`str`): the sentence added to the instruction.
        holds (`Callable`): takes an answer without surrounding whitespace and returns whether it meets the constraint.
    """

    name: str
    wording: str
    holds: Callable[[str], bool]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text)


def _sentences(text: str) -> int:
    return len([part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text) if _words(part)])


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _is_object(text: str, keys: tuple[str, ...]) -> bool:
    inside = re.fullmatch(r"(?:```(?:json)?\s*)?(\{.*\})\s*(?:```)?", text, flags=re.DOTALL)
    try:
        found = json.loads(inside[1]) if inside else None
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and set(found) == set(keys)


CONSTRAINTS = (
    Constraint("one sentence", "Answer in exactly one sentence.", lambda t: _sentences(t) == 1),
    Constraint("three sentences", "Answer in exactly three sentences.", lambda t: _sentences(t) == 3),
    Constraint("at most 30 words", "Use no more than 30 words.", lambda t: 0 < len(_words(t)) <= 30),
    Constraint("at least 60 words", "Write at least 60 words.", lambda t: len(_words(t)) >= 60),
    Constraint("a given word", 'Use the word "lantern" somewhere.', lambda t: bool(re.search(r"\blanterns?\b", t.lower()))),
    Constraint("a word left out", 'Do not use the word "and".', lambda t: bool(_words(t)) and "and" not in _words(t.lower())),
    Constraint("a given beginning", 'Begin with the words "In short".', lambda t: t.lower().startswith("in short")),
    Constraint("a given end", 'End with the words "That is all."', lambda t: t.rstrip("\"'").lower().endswith("that is all.")),
    Constraint(
        "four list items",
        'Answer as a list of exactly four items, each on a line that begins with "- ", and nothing else.',
        lambda t: len(_lines(t)) == 4 and all(line.startswith("- ") for line in _lines(t)),
    ),
    Constraint(
        "numbered steps",
        'Answer as exactly three numbered steps, on lines that begin with "1.", "2." and "3.", and nothing else.',
        lambda t: [line[:2] for line in _lines(t)] == ["1.", "2.", "3."],
    ),
    Constraint("lower case", "Write in lower-case letters only.", lambda t: bool(_words(t)) and t == t.lower()),
    Constraint("capitals", "WRITE IN CAPITAL LETTERS ONLY.", lambda t: bool(_words(t)) and t == t.upper()),
    Constraint("no comma", "Do not use any comma.", lambda t: bool(_words(t)) and "," not in t),
    Constraint(
        "two paragraphs",
        "Write exactly two paragraphs with an empty line between them.",
        lambda t: len([part for part in re.split(r"\n\s*\n", t) if part.strip()]) == 2,
    ),
    Constraint(
        "JSON",
        'Answer as a JSON object with exactly the keys "title" and "summary", and nothing else.',
        lambda t: _is_object(t, ("title", "summary")),
    ),
    Constraint(
        "a heading",
        'Put a title on the first line, as a Markdown heading that begins with "# ".',
        lambda t: bool(re.match(r"# \S", t)) and len(_lines(t)) > 1,
    ),
)


def constrained_prompts(count: int, seed: int = 0) -> list[tuple[str, Constraint]]:
    """
    Make instructions, each with one constraint.

    Args:
        count (`int`): number of instructions, spread evenly over the constraints; at most constraints times topics.
        seed (`int`, *optional*, defaults to 0): seed for pairing topics with constraints.

    Returns:
        `list[tuple(str, Constraint)]`: each instruction and its constraint.

    Raises:
        `ValueError`: if `count` is too large.
    """
    most = len(CONSTRAINTS) * len(_TOPICS)
    if count > most:
        raise ValueError(f"There are {most} instructions with constraints, got constraints={count}.")
    rng = np.random.default_rng(seed)
    topics = np.stack([rng.permutation(len(_TOPICS)) for _ in CONSTRAINTS])
    made = []
    for i in range(count):
        constraint, topic = CONSTRAINTS[i % len(CONSTRAINTS)], _TOPICS[topics[i % len(CONSTRAINTS), i // len(CONSTRAINTS)]]
        made.append((f"Explain {topic}. {constraint.wording}", constraint))
    return made


def verify(constraint: Constraint, answer: str) -> bool:
    """Return whether an answer meets its constraint; an empty answer never does."""
    text = answer.strip()
    return bool(text) and constraint.holds(text)
