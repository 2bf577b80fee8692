"""Rows of any supervised fine-tuning format -> (instruction, response)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from .chat_templates import turns_of_text

# Column pairs that name an instruction and a response, each with the columns that may extend the instruction.
_PLAIN_COLUMNS = (
    ("instruction", "output", ("input",)),
    ("instruction", "response", ("context", "input")),
    ("prompt", "completion", ()),
    ("prompt", "response", ()),
    ("question", "answer", ()),
)
_CHAT_COLUMNS = ("messages", "conversations")
_TEXT_COLUMN = "text"
_TURNS = ("first", "last", "all")
# What the roles of all formats are called here, and by chat templates.
CHAT_ROLES = {
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
    "question + answer, messages (role/content), conversations (from/value), or text with the marks of a chat template"
)
Turns = list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class RowPairs:
    """
    What is scored of one row.

    Args:
        pairs (`tuple` of `(instruction, response)`): one pair, or one for each assistant turn with `turn="all"`.
        problem (`str`, *optional*): why the row cannot be scored.
    """

    pairs: tuple[tuple[Any, Any], ...]
    problem: str | None = None

    @property
    def instruction(self) -> str:
        """The instruction, of several the first, as text to show."""
        return str(self.pairs[0][0] or "") if self.pairs else ""

    @property
    def response(self) -> str:
        """The response, several joined, as text to show and to measure."""
        return "\n\n".join(str(response or "") for _, response in self.pairs)

    def digest(self) -> bytes:
        """16 bytes that tell what is scored from anything else that could be."""
        hasher = blake2b(digest_size=16)
        if self.problem is not None:
            hasher.update(b"?")
        for text in () if self.problem is not None else (text for pair in self.pairs for text in pair):
            data = text.encode("utf-8", "surrogatepass")
            hasher.update(len(data).to_bytes(8, "little") + data)
        return hasher.digest()


class RowError(ValueError):
    """A row that cannot be read as a conversation; the message is the reason."""


class PairReader:
    """
    Reads instructions and responses from rows.

    Args:
        columns (`dict` or `tuple`, *optional*):
            `{"instruction": NAME, "response": NAME}`, or the two names in that order. Without it the format is known by
            the names of the columns.
        turn (`str`, *optional*, defaults to `"first"`):
            Which assistant turn of a conversation is the response: `"first"`, `"last"`, or `"all"`, where each turn is a
            pair and the row's score their mean. The instruction is what the user said last before it; system prompts
            and tool turns are left out.
        formatting_func (`Callable`, *optional*):
            For other formats: takes a row and returns `(instruction, response)`, a list of messages, a rendered text, or
            a row of a known format.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | Sequence[str] | None = None,
        turn: str = "first",
        formatting_func: Callable[[dict[str, Any]], Any] | None = None,
    ):
        if turn not in _TURNS:
            raise ValueError(f"`turn` must be 'first', 'last' or 'all', got {turn!r}.")
        if columns is not None and formatting_func is not None:
            raise ValueError("Pass `columns` or `formatting_func`, not both: either says where instruction and response are.")
        self.turn = turn
        self.columns = None if columns is None else _column_names(columns)
        self.formatting_func = formatting_func

    def needed(self, names: Sequence[str]) -> list[str] | None:
        """
        Say which columns are read, so that no others need to be loaded.

        Args:
            names (`Sequence[str]`): columns that the data has.

        Returns:
            `list[str]`; `None` for all, as a `formatting_func` may read any.

        Raises:
            `ValueError`: if the columns fit no format.
        """
        if self.formatting_func is not None:
            return None
        if self.columns is not None:
            missing = [name for name in self.columns if name not in names]
            if missing:
                raise ValueError(f"`columns` names {missing}, but the data has the columns {list(names)}.")
            return list(self.columns)
        formats = _formats(names)
        if formats:
            return list(dict.fromkeys(name for columns in formats for name in columns))
        tokens = (
            " These rows are tokens already: select before tokenising, or pass "
            'formatting_func=lambda row: {"text": tokenizer.decode(row["input_ids"])}.'
            if "input_ids" in names
            else ""
        )
        raise ValueError(
            f"No instruction and response found in the columns {list(names)}.{tokens} Formats known by their columns: "
            f'{_FORMATS}. For others name the two columns: columns={{"instruction": ..., "response": ...}}, or --columns '
            "INSTRUCTION,RESPONSE on the command line; or pass a `formatting_func`."
        )

    def read(self, batch: Mapping[str, Sequence[Any]]) -> list[RowPairs]:
        """
        Read a batch of rows, as `ds.map(..., batched=True)` and `ds[:n]` give it.

        Args:
            batch (`Mapping[str, Sequence]`): columns by name, n values each.

        Returns:
            `list[RowPairs]`: n rows; what cannot be scored comes with the reason.

        Raises:
            `ValueError`: if the columns fit no format.
        """
        needed = self.needed(list(batch))
        names = list(batch) if needed is None else needed
        formats = [] if needed is None else [tuple(self.columns)] if self.columns is not None else _formats(names)
        values = zip(*(batch[name] for name in names), strict=True)
        return [self._read_row(_own_columns(dict(zip(names, row, strict=True)), formats)) for row in values]

    def _read_row(self, row: dict[str, Any]) -> RowPairs:
        try:
            pairs = self._formatted(row) if self.formatting_func is not None else self._known(row)
        except RowError as error:
            return RowPairs((), str(error))
        problems = [pair_problem(*pair) for pair in pairs]
        if self.turn == "all" and None in problems:
            return RowPairs(tuple(pair for pair, problem in zip(pairs, problems, strict=True) if problem is None))
        return RowPairs(tuple(pairs), next((problem for problem in problems if problem is not None), None))

    def _known(self, row: dict[str, Any]) -> list[tuple[Any, Any]]:
        """Read a row that holds just the columns of one format, in its order."""
        values = list(row.values())
        if len(values) > 1:
            return self._read_plain(values[0], values[1], values[2:])
        return self._read_text(values[0]) if _TEXT_COLUMN in row else self._chosen([], _turns(values[0]))

    def _formatted(self, row: dict[str, Any]) -> list[tuple[Any, Any]]:
        assert self.formatting_func is not None
        result = self.formatting_func(row)
        if isinstance(result, str):
            return self._read_text(result)
        if isinstance(result, Mapping):
            PairReader().needed(list(result))
            return self._known(_own_columns(dict(result), _formats(list(result))))
        if isinstance(result, (list, tuple)):
            if _is_chat(result):
                return self._chosen([], _turns(result))
            if len(result) == 2:
                return self._read_plain(result[0], result[1], ())
        raise RowError(
            f"`formatting_func` returned {type(result).__name__}, not (instruction, response), a list of messages, a rendered "
            "text or a row of a known format"
        )

    def _read_plain(self, instruction: Any, response: Any, extensions: Sequence[Any]) -> list[tuple[Any, Any]]:
        if _is_chat(instruction) or _is_chat(response):
            before = _turns(instruction) if _is_chat(instruction) else [("user", instruction)]
            after = _turns(response) if _is_chat(response) else [("assistant", response)]
            return self._chosen(before, after)
        for more in extensions:
            instruction = _extend(instruction, more)
        return [(instruction, response)]

    def _read_text(self, text: Any) -> list[tuple[Any, Any]]:
        if not isinstance(text, str):
            return [(text, text)]
        turns = turns_of_text(text)
        if turns is None:
            raise RowError("the text has no marks of a user's and an assistant's turn")
        return self._chosen([], list(turns))

    def _chosen(self, before: Turns, turns: Turns) -> list[tuple[str | None, str | None]]:
        """The pairs of the assistant turns asked for, among those after `before`."""
        every = [*before, *turns]
        spoken = [i for i in range(len(before), len(every)) if every[i][0] == "assistant" and every[i][1]]
        if not spoken:
            return [(_asked(every), None)]
        positions = {"first": spoken[:1], "last": spoken[-1:], "all": spoken}[self.turn]
        return [(_asked(every[:i]), every[i][1]) for i in positions]


def pair_problem(instruction: Any, response: Any) -> str | None:
    """Say why a pair cannot be scored; `None` if it can. An empty instruction is allowed, an empty response is not."""
    for name, text in (("instruction", instruction), ("response", response)):
        if text is None:
            return f"the {name} is missing"
        if not isinstance(text, str):
            return f"the {name} is of type {type(text).__name__}, not a string"
    return None if response.strip() else "the response is empty"


def check_rows(rows: Sequence[RowPairs], start: int = 0) -> None:
    """Raise a `ValueError` that names the rows that cannot be scored, the first being number `start`."""
    bad = [(start + i, row.problem) for i, row in enumerate(rows) if row.problem is not None]
    if bad:
        shown = "; ".join(f"row {i}: {problem}" for i, problem in bad[:5])
        raise ValueError(
            f"{len(bad)} of {len(rows)} rows cannot be scored ({shown}{'; ...' if len(bad) > 5 else ''}). Remove or mend "
            "them; scar_rank, scar_select and the command line leave such rows out and count them unless told to be strict."
        )


def _formats(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The columns of each format that these names fit, the first to be tried first."""
    formats: list[tuple[str, ...]] = [(name,) for name in _CHAT_COLUMNS if name in names]
    for instruction, response, extensions in _PLAIN_COLUMNS:
        if instruction in names and response in names:
            formats.append((instruction, response, *(name for name in extensions if name in names)))
    return [*formats, (_TEXT_COLUMN,)] if _TEXT_COLUMN in names else formats


def _own_columns(row: dict[str, Any], formats: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """A row in the first format of which it has values: a file may mix formats, each in columns of its own."""
    if not formats:
        return row
    own = next((names for names in formats if all(row[name] is not None for name in names[:2])), formats[0])
    return {name: row[name] for name in own}


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


def _turns(messages: Any) -> Turns:
    """Normalise role/content and from/value messages to (role, text)."""
    if messages is None:
        return []
    if isinstance(messages, Mapping):  # how datasets gives a sequence of structs that an old version wrote
        lengths = {len(values) if isinstance(values, (list, tuple)) else None for values in messages.values()}
        if None in lengths or len(lengths) != 1:
            raise RowError("a conversation must be a list of messages, not an object")
        keys = list(messages)
        messages = [dict(zip(keys, values, strict=True)) for values in zip(*messages.values(), strict=True)]
    if not _is_chat(messages):
        raise RowError(f"a conversation must be a list of messages, not {type(messages).__name__}")
    turns: Turns = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise RowError(f"a message must have a role and a content, not be of type {type(message).__name__}")
        role = message.get("role") or message.get("from")
        content = message["content"] if "content" in message else message.get("value")
        if not isinstance(role, str) or role not in CHAT_ROLES:
            raise RowError(f"unknown role {role!r}; known roles: {', '.join(CHAT_ROLES)}")
        turns.append((CHAT_ROLES[role], _text_of(content)))
    return turns


def _text_of(content: Any) -> str | None:
    """Text of a message: a string, nothing (a tool call), or a list of text parts."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise RowError(f"a message's content must be text or a list of text parts, not of type {type(content).__name__}")
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    kinds = sorted({str(part.get("type")) if isinstance(part, Mapping) else type(part).__name__ for part in parts})
    if kinds not in ([], ["text"]):
        raise RowError(f"a message has content of type {', '.join(kinds)}; a SCAR ranker reads text only")
    texts = [part.get("text") or "" for part in parts]
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise RowError(f"a text part of a message holds a value of type {type(wrong).__name__}, not a string")
    return "\n".join(texts)


def _asked(turns: Turns) -> str | None:
    """What the user said last: the text of the last run of user turns."""
    said: list[str] = []
    for role, text in reversed(turns):
        if role == "user" and isinstance(text, str) and text:
            said.append(text)
        elif said:
            break
    return "\n\n".join(reversed(said)) if said else None


def _extend(instruction: Any, more: Any) -> Any:
    """Append an alpaca input or a Dolly context to its instruction."""
    if isinstance(instruction, str) and isinstance(more, str) and more.strip():
        return f"{instruction}\n\n{more}"
    return instruction
