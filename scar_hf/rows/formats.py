"""The formats of supervised fine-tuning and preference sets, detected from their columns."""

from collections.abc import Sequence
from dataclasses import dataclass

CHAT, PLAIN, PREFERENCE, TEXT = "chat", "plain", "preference", "text"
# Instruction column, response column, and optional columns that extend the instruction.
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
# Prompt columns of preference sets. Without one, both responses are whole conversations.
_PROMPT_COLUMNS = ("prompt", "instruction", "question", "query", "problem", "input", "user")
FORMATS_IN_WORDS = (
    "instruction + output (+ input), instruction + response (+ context), prompt + completion, prompt + response, "
    "question + answer or response, query + response, problem + solution, input + output, inputs + targets, user + assistant, "
    "messages (role/content), conversations (from/value, or alternating texts), chosen + rejected (+ prompt), or text rendered "
    "by a chat template; names are case-insensitive"
)


@dataclass(frozen=True, slots=True)
class RowFormat:
    """
    A row format and the columns that it uses.

    Args:
        kind (`str`): `CHAT`, `PLAIN`, `PREFERENCE` or `TEXT`.
        columns (`tuple[str, ...]`):
            Column names as spelled in the data. For `PLAIN`: instruction, response and the columns that extend the
            instruction. For `PREFERENCE`: chosen, rejected and, if there is one, the prompt.
    """

    kind: str
    columns: tuple[str, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that must have a value in every row of this format."""
        return {PLAIN: self.columns[:2], PREFERENCE: self.columns[:1]}.get(self.kind, self.columns)


def formats_of(names: Sequence[str]) -> list[RowFormat]:
    """
    Find the formats that match column names, ignoring case.

    Args:
        names (`Sequence[str]`): the data's columns.

    Returns:
        `list[RowFormat]`: matching formats in the order in which to try them; empty if none matches.
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


def _canonical(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
