"""Conversations of any format -> turns of a role and a text."""

from collections.abc import Mapping
from typing import Any

from .rendered_text import turns_of_text

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
Turns = list[tuple[str, str | None]]


class RowError(ValueError):
    """A row that cannot be read as a conversation; the message is the reason."""


def is_chat(value: Any) -> bool:
    """Whether a value is a list of messages; an empty list is one."""
    return isinstance(value, (list, tuple)) and (not value or isinstance(value[0], Mapping))


def turns_of(messages: Any) -> Turns:
    """Normalise role/content and from/value messages to (role, text)."""
    if messages is None:
        return []
    if isinstance(messages, Mapping):  # how datasets gives a sequence of structs that an old version wrote
        lengths = {len(values) if isinstance(values, (list, tuple)) else None for values in messages.values()}
        if None in lengths or len(lengths) != 1:
            raise RowError("a conversation must be a list of messages, not an object")
        keys = list(messages)
        messages = [dict(zip(keys, values, strict=True)) for values in zip(*messages.values(), strict=True)]
    if isinstance(messages, (list, tuple)) and messages and all(isinstance(text, str) for text in messages):
        # LIMA's: what the user and the assistant said, in turn
        return [(("user", "assistant")[i % 2], text) for i, text in enumerate(messages)]
    if not is_chat(messages):
        raise RowError(f"a conversation must be a list of messages, not {type(messages).__name__}")
    turns: Turns = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise RowError(f"a message must have a role and a content, not be of type {type(message).__name__}")
        role = message.get("role") or message.get("from")
        content = message.get("value") if message.get("content") is None else message["content"]
        if not isinstance(role, str) or role not in CHAT_ROLES:
            raise RowError(f"unknown role {role!r}; known roles: {', '.join(CHAT_ROLES)}")
        turns.append((CHAT_ROLES[role], _text_of(content)))
    return turns


def whole_conversation(prompt: Any, response: Any) -> Turns:
    """A response of a preference set with all that was said before it."""
    if is_chat(response):
        turns = turns_of(response)
    elif prompt is None and isinstance(response, str):
        turns = list(turns_of_text(response) or [])
        if not turns:
            raise RowError("there is no prompt, and the text has no marks of a user's and an assistant's turn")
    else:
        turns = [("assistant", response)]
    if prompt is None or begins_with_user(turns):  # the conversation from its start
        return turns
    return [*(turns_of(prompt) if is_chat(prompt) else [("user", prompt)]), *turns]


def begins_with_user(turns: Turns) -> bool:
    """Whether turns are a conversation from its start, rather than what is said to a prompt."""
    return next((role for role, _ in turns if role != "system"), None) == "user"


def common_turns(chosen: Turns, rejected: Turns | None) -> int:
    """How many turns come before the responses that differ."""
    spoken = [i for i, (role, _) in enumerate(chosen) if role == "assistant"]
    last = spoken[-1] if spoken else len(chosen)
    if rejected is None:
        return last
    pairs = zip(chosen[:last], rejected, strict=False)
    return next((i for i, (ours, other) in enumerate(pairs) if ours != other), min(last, len(rejected)))


def asked(turns: Turns) -> str | None:
    """What the user said last: the text of the last run of user turns."""
    said: list[str] = []
    for role, text in reversed(turns):
        if role == "user" and isinstance(text, str) and text:
            said.append(text)
        elif said:
            break
    return "\n\n".join(reversed(said)) if said else None


def extended(instruction: Any, more: Any) -> Any:
    """An instruction with an Alpaca input or a Dolly context after it, if there is one."""
    if isinstance(instruction, str) and isinstance(more, str) and more.strip():
        return f"{instruction}\n\n{more}"
    return instruction


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
