"""Augment against shortcuts: randomly remove superficial signs of an LLM from all responses of a row."""

import random
import re
from dataclasses import dataclass

_FENCE = re.compile(r"^```[^\n]*\n?", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:-{3,}|={3,}|\*{3,})[ \t]*\n?", re.MULTILINE)
_BULLET = re.compile(r"^([ \t]*)(?:[-*+•]|\d{1,2}[.)])[ \t]+", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")
_DOCSTRING = re.compile(r'^[ \t]*[rbu]?("""|\'\'\').*?\1[ \t]*\n?', re.MULTILINE | re.DOTALL)
_BLOCK_COMMENT = re.compile(r"^[ \t]*/\*.*?\*/[ \t]*\n?", re.MULTILINE | re.DOTALL)
_LINE_COMMENT = re.compile(r"(?:^|(?<=\s))(?:#(?!include|define|!)|//)[^\n]*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")


def strip_markdown(text: str) -> str:
    """
    Remove Markdown markup, but keep the words and line breaks.

    Args:
        text (`str`): a response.

    Returns:
        `str`: the text without fences, heading and list markers, rules, emphasis and backticks; unchanged if nothing would
        be left.
    """
    plain = _FENCE.sub("", text)
    for pattern in (_RULE, _HEADING):
        plain = pattern.sub("", plain)
    plain = _BULLET.sub(r"\1", plain)
    plain = _EMPHASIS.sub(r"\2", plain)
    plain = _INLINE_CODE.sub(r"\1", plain)
    return plain.strip() or text


def strip_comments(code: str) -> str:
    """
    Remove comments and docstrings in the syntax of Python or C from code.

    Args:
        code (`str`): a program or part of one.

    Returns:
        `str`: the code with indentation kept and runs of blank lines collapsed; unchanged if nothing would be left.
    """
    plain = _DOCSTRING.sub("", code)
    plain = _BLOCK_COMMENT.sub("", plain)
    plain = _LINE_COMMENT.sub("", plain)
    plain = "\n".join(line.rstrip() for line in plain.splitlines())
    return _BLANK_LINES.sub("\n\n", plain).strip("\n") or code


def cut_to(text: str, characters: int) -> str:
    """
    Cut a text to a maximum length, at the last line break or space if it is in the second half.

    Args:
        text (`str`): a response.
        characters (`int`): maximum length, at least 1.

    Returns:
        `str`: the shortened text, never empty.
    """
    if len(text) <= characters:
        return text
    head = text[:characters]
    end = max(head.rfind(" "), head.rfind("\n"))
    return head[:end].rstrip() if end > characters // 2 else head


@dataclass(frozen=True)
class Augmentation:
    """
    Changes applied to all responses of a row, each with its own probability.

    Args:
        strip_markdown (`float`): probability of [`strip_markdown`], in prose.
        strip_comments (`float`): probability of [`strip_comments`], in the domain `code`.
        equal_length (`float`): probability that all responses are cut to about the length of the shortest.
        window (`float`): probability that all responses are cut to one random length, to train on short beginnings.
    """

    strip_markdown: float = 0.0
    strip_comments: float = 0.0
    equal_length: float = 0.0
    window: float = 0.0

    def __call__(self, texts: dict[str, str], domain: str, rng: random.Random) -> dict[str, str]:
        """Return the texts of a triple, changed at random."""
        if domain == "code":
            if rng.random() < self.strip_comments:
                texts = {member: strip_comments(text) for member, text in texts.items()}
        elif rng.random() < self.strip_markdown:
            texts = {member: strip_markdown(text) for member, text in texts.items()}
        if rng.random() < self.equal_length:
            shortest = min(len(text) for text in texts.values())
            # Lengths vary a little: otherwise a truncated ending would become the next shortcut.
            texts = {member: cut_to(text, max(40, int(shortest * rng.uniform(0.85, 1.15)))) for member, text in texts.items()}
        if rng.random() < self.window:
            length = int(80 * 2 ** rng.uniform(0, 4))
            texts = {member: cut_to(text, length) for member, text in texts.items()}
        return texts
