"""The formats of supervised fine-tuning and preference sets, known by their columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHAT, PLAIN, PREFERENCE, TEXT = "chat", "plain", "preference", "text"
# Column pairs that name an instruction and a response, each with the columns that may extend the instruction.
_PLAIN_COLUMNS = (
    ("instruction", "output", ("input",)),
    ("instruction", "response", ("context", "input")),
    ("instruction", "completion", ("context", "input")),
    ("instruction", "answer", ("context", "input")),
    ("prompt", "completion", ()),
    ("prompt", "response", ()),
    ("prompt", "output", ()),
    ("prompt", "answer", ()),
    ("question", "answer", ("context",)),
    ("question", "response", ("context",)),
    ("question", "solution", ("context",)),
    ("question", "generated_solution", ()),
    ("question", "best_answer", ("context",)),
    ("questions", "answers", ()),
    ("query", "response", ()),
    ("query", "answer", ()),
    ("query", "output", ()),
    ("problem", "solution", ()),
    ("problem", "generated_solution", ()),
    ("problem", "response", ()),
    ("problem", "answer", ()),
    ("input", "output", ()),
    ("input", "response", ()),
    ("input", "target", ()),
    ("inputs", "targets", ()),
    ("inputs", "outputs", ()),
    ("user", "assistant", ()),
    ("human", "assistant", ()),
)
_CHAT_COLUMNS = ("messages", "conversations", "conversation", "dialogue")
_TEXT_COLUMN = "text"
# What a preference set calls its prompt; without one, both responses are whole conversations.
_PROMPT_COLUMNS = ("prompt", "instruction", "question", "query", "problem", "input", "user")
FORMATS_IN_WORDS = (
    "instruction + output (+ input), instruction + response (+ context), prompt + completion, prompt + response, "
    "question + answer or response, query + response, problem + solution, input + output, inputs + targets, user + assistant, "
    "messages (role/content), conversations (from/value, or texts in turn), chosen + rejected (+ prompt), or text with the "
    "marks of a chat template; in any case"
)


@dataclass(frozen=True, slots=True)
class RowFormat:
    """
    A format of rows.

    Args:
        kind (`str`): `CHAT`, `PLAIN`, `PREFERENCE` or `TEXT`.
        columns (`tuple[str, ...]`):
            As the data calls them. Of `PLAIN` instruction, response and what extends the instruction; of `PREFERENCE` chosen,
            rejected and the prompt, if there is one.
    """

    kind: str
    columns: tuple[str, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """Columns without whose values a row is of another format."""
        return {PLAIN: self.columns[:2], PREFERENCE: self.columns[:1]}.get(self.kind, self.columns)


def formats_of(names: Sequence[str]) -> list[RowFormat]:
    """
    Find the formats that columns fit, whatever the case of their names.

    Args:
        names (`Sequence[str]`): columns that the data has.

    Returns:
        `list[RowFormat]`: the one to be tried first comes first; empty if the columns fit none.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = _canonical(name)
        if plain not in found or name == plain:
            found[plain] = name
    formats = []
    if "chosen" in found and "rejected" in found:
        prompt = [found[name] for name in _PROMPT_COLUMNS if name in found][:1]
        formats.append(RowFormat(PREFERENCE, (found["chosen"], found["rejected"], *prompt)))
    formats += [RowFormat(CHAT, (found[name],)) for name in _CHAT_COLUMNS if name in found]
    for instruction, response, extensions in _PLAIN_COLUMNS:
        if instruction in found and response in found:
            more = (found[name] for name in extensions if name in found)
            formats.append(RowFormat(PLAIN, (found[instruction], found[response], *more)))
    return [*formats, RowFormat(TEXT, (found[_TEXT_COLUMN],))] if _TEXT_COLUMN in found else formats


def format_of_row(row: Mapping[str, Any], formats: Sequence[RowFormat]) -> RowFormat:
    """The first format of which a row has values: a file may mix formats, each in columns of its own."""
    return next((known for known in formats if all(row.get(name) is not None for name in known.required)), formats[0])


def _canonical(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
