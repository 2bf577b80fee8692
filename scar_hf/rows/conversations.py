"""Converts conversations of any format, messages or rendered text, to turns of role and text."""

import re
from collections.abc import Mapping
from typing import Any

# Maps the role names of all formats to the names that chat templates use.
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
# For each family of templates: the markers that start a turn, with their roles. End-of-turn markers are stripped from the text.
_FAMILIES: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        (r"<\|im_start\|>user\n", "user"),
        (r"<\|im_start\|>assistant\n", "assistant"),
        (r"<\|im_start\|>system\n", "system"),
        (r"<\|im_start\|>tool\n", "tool"),
    ),
    (
        (r"<\|start_header_id\|>user<\|end_header_id\|>", "user"),
        (r"<\|start_header_id\|>assistant<\|end_header_id\|>", "assistant"),
        (r"<\|start_header_id\|>system<\|end_header_id\|>", "system"),
        (r"<\|start_header_id\|>(?:tool|ipython)<\|end_header_id\|>", "tool"),
    ),
    ((r"<start_of_turn>user\n", "user"), (r"<start_of_turn>model\n", "assistant")),
    (
        (r"<\|user\|>", "user"),
        (r"<\|assistant\|>", "assistant"),
        (r"<\|system\|>", "system"),
        (r"<\|(?:tool|observation)\|>", "tool"),
    ),
    ((r"\[INST\]", "user"), (r"\[/INST\]", "assistant")),
    (
        (r"### (?:Instruction|Question|Human|User|Prompt|Input)(?::|$)", "user"),
        (r"### (?:Response|Answer|Assistant|Output)(?::|$)", "assistant"),
        (r"### System(?::|$)", "system"),
    ),
    ((r"(?:^|[ \n])(?:USER|Human|User): ?", "user"), (r"(?:^|[ \n])(?:ASSISTANT|Assistant): ?", "assistant")),
)
_ENDS = re.compile(r"<\|(?:im_end|eot_id|eom_id|end|endoftext|end_of_text)\|>|<end_of_turn>|<eos>|</?s>")
_SYSTEM_BLOCK = re.compile(r"<<SYS>>.*?<</SYS>>", re.DOTALL)
_PATTERNS = [
    (
        re.compile("|".join(f"(?P<t{i}>{mark})" for i, (mark, _) in enumerate(family)), re.MULTILINE),
        [role for _, role in family],
    )
    for family in _FAMILIES
]
Turns = list[tuple[str, str | None]]


class RowError(ValueError):
    """Raised for a row that cannot be read; its message is the reported reason."""


def is_chat(value: Any) -> bool:
    """Return whether a value is a list of messages, which may be empty."""
    return isinstance(value, (list, tuple)) and (not value or isinstance(value[0], Mapping))


def turns_of(messages: Any) -> Turns:
    """Normalise role/content and from/value messages to (role, text)."""
    if messages is None:
        return []
    if isinstance(messages, Mapping):  # datasets' old layout for a sequence of structs
        lengths = {len(values) if isinstance(values, (list, tuple)) else None for values in messages.values()}
        if None in lengths or len(lengths) != 1:
            raise RowError("a conversation must be a list of messages, not an object")
        keys = list(messages)
        messages = [dict(zip(keys, values, strict=True)) for values in zip(*messages.values(), strict=True)]
    if isinstance(messages, (list, tuple)) and messages and all(isinstance(text, str) for text in messages):
        # LIMA: texts of user and assistant, alternating
        return [(("user", "assistant")[i % 2], text) for i, text in enumerate(messages)]
    if not is_chat(messages):
        raise RowError(f"a conversation must be a list of messages, not {type(messages).__name__}")
    turns: Turns = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise RowError(f"a message must be an object with role and content, not {type(message).__name__}")
        role = message.get("role") or message.get("from")
        content = message.get("value") if message.get("content") is None else message["content"]
        if not isinstance(role, str) or role not in CHAT_ROLES:
            raise RowError(f"unknown role {role!r}; known roles: {', '.join(CHAT_ROLES)}")
        turns.append((CHAT_ROLES[role], _text_of(content)))
    return turns


def turns_of_text(text: str) -> list[tuple[str, str]] | None:
    """
    Split a rendered conversation into turns.

    Args:
        text (`str`):
            A text rendered by `apply_chat_template` (ChatML, Llama 2 and 3, Mistral, Gemma, Zephyr, Phi), or one with
            Alpaca, Guanaco or Vicuna headings.

    Returns:
        `list[tuple[str, str]]` of role and text, or `None` if no family's user and assistant markers both occur.
    """
    for pattern, roles in _PATTERNS:
        marks = list(pattern.finditer(text))
        found = [roles[int(str(mark.lastgroup)[1:])] for mark in marks]
        if "user" not in found or "assistant" not in found:
            continue
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        return [
            (role, _SYSTEM_BLOCK.sub("", _ENDS.sub("", text[mark.end() : end])).strip())
            for role, mark, end in zip(found, marks, ends, strict=True)
        ]
    return None


def whole_conversation(prompt: Any, response: Any) -> Turns:
    """Return the conversation up to and including a response of a preference set."""
    if is_chat(response):
        turns = turns_of(response)
    elif prompt is None and isinstance(response, str):
        turns = list(turns_of_text(response) or [])
        if not turns:
            raise RowError("there is no prompt, and the text has no user and assistant markers of a known chat template")
    else:
        turns = [("assistant", response)]
    if prompt is None or begins_with_user(turns):  # the turns are the whole conversation
        return turns
    return [*(turns_of(prompt) if is_chat(prompt) else [("user", prompt)]), *turns]


def begins_with_user(turns: Turns) -> bool:
    """Return whether turns are a whole conversation rather than a reply to a prompt."""
    return next((role for role, _ in turns if role != "system"), None) == "user"


def common_turns(chosen: Turns, rejected: Turns | None) -> int:
    """Count the turns that two conversations share before their responses differ."""
    spoken = [i for i, (role, _) in enumerate(chosen) if role == "assistant"]
    last = spoken[-1] if spoken else len(chosen)
    if rejected is None:
        return last
    pairs = zip(chosen[:last], rejected, strict=False)
    return next((i for i, (ours, other) in enumerate(pairs) if ours != other), min(last, len(rejected)))


def asked(turns: Turns) -> str | None:
    """Return the user's last message: the text of the last run of user turns."""
    said: list[str] = []
    for role, text in reversed(turns):
        if role == "user" and isinstance(text, str) and text:
            said.append(text)
        elif said:
            break
    return "\n\n".join(reversed(said)) if said else None


def extended(instruction: Any, more: Any) -> Any:
    """Append an Alpaca input or a Dolly context, if present, to an instruction."""
    if isinstance(instruction, str) and isinstance(more, str) and more.strip():
        return f"{instruction}\n\n{more}"
    return instruction


def _text_of(content: Any) -> str | None:
    """Read a message's text from a string, `None` (a tool call) or a list of text parts."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise RowError(f"a message's content must be text or a list of text parts, not {type(content).__name__}")
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    kinds = sorted({str(part.get("type")) if isinstance(part, Mapping) else type(part).__name__ for part in parts})
    if kinds not in ([], ["text"]):
        raise RowError(f"a message has content of type {', '.join(kinds)}; SCAR rankers read only text")
    texts = [part.get("text") or "" for part in parts]
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise RowError(f"a text part of a message must be a string, not {type(wrong).__name__}")
    return "\n".join(texts)
