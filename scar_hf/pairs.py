"""Rows of any supervised fine-tuning format -> (instruction, response)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Column pairs that name an instruction and a response, each with the columns that may extend the instruction.
_PLAIN_COLUMNS = (
    ("instruction", "output", ("input",)),
    ("instruction", "response", ("context", "input")),
    ("prompt", "completion", ()),
    ("prompt", "response", ()),
    ("question", "answer", ()),
)
_CHAT_COLUMNS = ("messages", "conversations")
_ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_call": "tool",
}
_FORMATS = (
    "instruction + output (+ input), instruction + response (+ context), prompt + completion, prompt + response, "
    "question + answer, messages (role/content) or conversations (from/value)"
)


class PairReader:
    """
    Reads instruction and response from batches of rows.

    Args:
        columns (`dict` or `tuple`, *optional*):
            `{"instruction": NAME, "response": NAME}`, or the two names in that order. Without it the format is known by
            the names of the columns.
        turn (`str`, *optional*, defaults to `"first"`):
            Which assistant turn of a conversation is the response: `"first"` or `"last"`. The instruction is what the
            user said right before it; system prompts and tool turns are left out.
    """

    def __init__(self, columns: Mapping[str, str] | Sequence[str] | None = None, turn: str = "first"):
        if turn not in ("first", "last"):
            raise ValueError(f"`turn` must be 'first' or 'last', got {turn!r}.")
        self.turn = turn
        self.columns = None if columns is None else _column_names(columns)

    def read_batch(self, batch: Mapping[str, Sequence[Any]]) -> tuple[list[str | None], list[str | None]]:
        """
        Read a batch of rows, as `ds.map(..., batched=True)` and `ds[:n]` give it.

        Args:
            batch (`Mapping[str, Sequence]`): columns by name, n values each.

        Returns:
            `tuple(list, list)`: n instructions and n responses; `None` where a row has none.

        Raises:
            `ValueError`: if the columns fit no format, or a conversation has an unknown role or content.
        """
        names = list(batch)
        if self.columns is not None:
            missing = [name for name in self.columns if name not in batch]
            if missing:
                raise ValueError(f"`columns` names {missing}, but the data has the columns {names}.")
            return self._read_columns(batch, self.columns[0], self.columns[1], ())
        for name in _CHAT_COLUMNS:
            if name in batch:
                pairs = [self._read_chat(row) for row in batch[name]]
                return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        for instruction, response, extensions in _PLAIN_COLUMNS:
            if instruction in batch and response in batch:
                return self._read_columns(batch, instruction, response, extensions)
        raise ValueError(
            f"No instruction and response found in the columns {names}. Formats known by their columns: {_FORMATS}. For "
            'others name the two columns: columns={"instruction": ..., "response": ...}, or --columns INSTRUCTION,RESPONSE '
            "on the command line."
        )

    def _read_columns(self, batch, instruction: str, response: str, extensions: Iterable[str]):
        instructions = [self._question(value) for value in batch[instruction]]
        responses = [self._chosen_text(value) for value in batch[response]]
        for name in extensions:
            if name in batch:
                instructions = [_extend(text, more) for text, more in zip(instructions, batch[name], strict=True)]
        return instructions, responses

    def _read_chat(self, messages: Any) -> tuple[str | None, str | None]:
        turns = _turns(messages)
        spoken = [i for i, (role, text) in enumerate(turns) if role == "assistant" and text]
        if not spoken:
            return _asked(turns), None
        position = spoken[0] if self.turn == "first" else spoken[-1]
        return _asked(turns[:position]), turns[position][1]

    def _question(self, value: Any) -> Any:
        """A plain value as it is; of a conversational prompt, what the user said last."""
        return _asked(_turns(value)) if _is_chat(value) else value

    def _chosen_text(self, value: Any) -> Any:
        """A plain value as it is; of a conversational completion, the assistant turn asked for."""
        return self._read_chat(value)[1] if _is_chat(value) else value


def _column_names(columns: Mapping[str, str] | Sequence[str]) -> tuple[str, str]:
    if isinstance(columns, Mapping):
        if set(columns) != {"instruction", "response"}:
            raise ValueError(f'`columns` must have the keys "instruction" and "response", got {sorted(columns)}.')
        return columns["instruction"], columns["response"]
    if isinstance(columns, str) or len(columns) != 2:
        raise ValueError(f"`columns` must be two column names, instruction and response, got {columns!r}.")
    return columns[0], columns[1]


def _is_chat(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and (not value or isinstance(value[0], Mapping))


def _turns(messages: Any) -> list[tuple[str, str | None]]:
    """Normalise role/content and from/value messages to (role, text)."""
    if messages is None:
        return []
    if not _is_chat(messages):
        raise ValueError(f"A conversation must be a list of messages, got {type(messages).__name__}: {str(messages)[:80]!r}.")
    turns = []
    for message in messages:
        role = message.get("role") or message.get("from")
        content = message["content"] if "content" in message else message.get("value")
        if role not in _ROLES:
            raise ValueError(
                f"Unknown role {role!r} in a message with the keys {sorted(message)}; known roles: {', '.join(_ROLES)}."
            )
        turns.append((_ROLES[role], _text_of(content)))
    return turns


def _text_of(content: Any) -> str | None:
    """Text of a message: a string, nothing (a tool call), or a list of text parts."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "\n".join(part["text"] for part in content)
    kinds = (
        sorted({str(part.get("type")) for part in content if isinstance(part, Mapping)})
        if isinstance(content, (list, tuple))
        else type(content).__name__
    )
    raise ValueError(f"A message's content must be text or a list of text parts, got {kinds}. A SCAR ranker reads text only.")


def _asked(turns: list[tuple[str, str | None]]) -> str | None:
    """What the user said last: the text of the last run of user turns."""
    said: list[str] = []
    for role, text in reversed(turns):
        if role == "user" and text:
            said.append(text)
        elif said:
            break
    return "\n\n".join(reversed(said)) if said else None


def _extend(instruction: Any, more: Any) -> Any:
    """Append an alpaca input or a Dolly context to its instruction."""
    if isinstance(instruction, str) and isinstance(more, str) and more.strip():
        return f"{instruction}\n\n{more}"
    return instruction
