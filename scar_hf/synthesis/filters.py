"""Filter model responses, and give a reason for each one that is left out."""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from ..curation.refusals import refusal_reason
from ..curation.texts import count_unspaced, words_of
from .backends import Completion

_MENTION = re.compile(
    r"\b(?:the|your|that|this) (?:above|original|given|provided|previous|preceding|aforementioned|human|reference|source) "
    r"(?:answer|response|text|passage|reply|notes?|version|content|explanation|description)\b"
    r"|\b(?:answer|response|text|passage|reply|notes) (?:above|given above|provided|below)\b"
    r"|\baccording to the (?:answer|response|text|passage|notes)\b"
    r"|\b(?:here(?:'s| is| are)|this is|below is) (?:the|a|an|your|my)?\s*(?:\w+ )?(?:rewritten|rewrite|rephrased|"
    r"rephrasing|reworded|revised|paraphrased?|new answer|new version|rewording)"
    r"|\b(?:rewritten|rephrased|reworded|paraphrased|revised) (?:answer|response|version|text)\b"
    r"|\b(?:new|better|rewritten) answer (?:to|is|would|could)\b"
    r"|\bthis (?:paraphrase|rewrite|rewording|rewritten|reworded|paraphrased)\b"
    r"|\b(?:mentioned|stated|given|listed) in the (?:answer|text|notes)\b"
    r"|\bin (?:my|your) own words\b|\bthe notes (?:say|state|mention|do not|don't)\b",
    re.IGNORECASE,
)
# The opening tag may be in the prompt. A closing tag within a sentence, as in "</think> ends it", is only a mention.
_THOUGHTS = re.compile(r"\s*<think>.*?</think>|(?:(?!<think>).)*?</think>(?=[^\S\n]*(?:\n|\Z)|[^\s.,:;!?'\")\]])", re.DOTALL)
_THOUGHT_TAGS = re.compile(r"</?think>")
_CODE = re.compile(r"^[ \t]*```.*?^[ \t]*```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_MARKS = re.compile(r"<\|[a-z_]{2,20}\|>|\[/?INST\]|</?s>(?:\s|$)|^(?:assistant|user|human)\s*:", re.IGNORECASE | re.MULTILINE)
# A last line that announces missing content: a list marker, a heading, a line that ends in a colon.
_DANGLING = re.compile(r"(?:(?:(?:^|\n)\s*(?:\d+[.)]|[-*+]|#{1,6}[^\n]*)|(?:^|\n|(?<=[.!?]) )[^\n.!?]*:)\s*)+$")
_GRAM = 5  # words
_MOST_COPIED = 0.7  # share of a rewrite's word 5-grams that also occur in the human response
_LEAST_DISTINCT = 0.7  # share of distinct word 4-grams
_LEAST_LETTERS = 20
_LEAST_STEMS, _LEAST_KEPT = 8, 0.25  # minimum number of longer words in a human response, and share that a rewrite must keep

Language = Callable[[str], str | None]


def clean(text: str) -> str:
    """Remove leading thoughts of a reasoning model, with or without their opening tag, and whitespace at both ends."""
    thoughts = _THOUGHTS.match(_mask_code(text))
    return text[thoughts.end() if thoughts else 0 :].strip()


def problem_of(  # noqa: C901 - a flat list of checks
    kind: str, completion: Completion, instruction: str, human: str, prompt: str = "", language: Language | None = None
) -> str | None:
    """
    Return the reason for leaving out a response.

    Args:
        kind (`str`): `"direct"` or `"referenced"`.
        completion ([`Completion`]): the model's response.
        instruction, human (`str`): the row's instruction and human response.
        prompt (`str`, *optional*): the prompt sent to the model, including the instruction or human response.
        language (`Callable`, *optional*): detects the language of a text; see [`language_finder`].

    Returns:
        `str`: `"empty"`, `"cut off"`, `"chat marks"`, `"repeats itself"`, `"copies the instruction"`, `"copies the prompt"`,
        `"copies the reference"`, `"mentions the reference"`, `"drops the reference"`, `"another language"`, or a kind of
        refusal from [`~scar_hf.curation.refusals.refusal_reason`], such as `"refusal"`; `None` if the response passes.

    Example:

    ```python
    >>> problem_of("direct", Completion("I'm sorry, but I can't help with that."), "What is moss?", "A plant.")
    'refusal'
    ```
    """
    text = clean(completion.text)
    if not text:
        return "empty"
    prose = _mask_code(text)
    if completion.finish_reason == "length" or prose.rfind("<think>") > prose.rfind("</think>"):
        return "cut off"
    if completion.finish_reason == "content_filter":
        return "refusal"
    if (refusal := refusal_reason(text)) is not None:
        return refusal
    if any(marks.search(prose) and not marks.search(human) for marks in (_MARKS, _THOUGHT_TAGS)):
        return "chat marks"
    if repeats_itself(text):
        return "repeats itself"
    # Compare whole texts only: a good answer to a question about a passage uses words of the passage.
    if len(_words(text)) > 3 and _words(text) == _words(instruction):
        return "copies the instruction"
    if _copies_prompt(text, prompt, instruction, human):
        return "copies the prompt"
    if copies(text, human):
        return "copies the reference"
    if kind == "referenced":
        mention = _MENTION.search(text)
        if mention and mention[0].lower() not in f"{instruction}\n{human}".lower():
            return "mentions the reference"
        if drops(text, human):
            return "drops the reference"
    if language is not None:
        expected, found = language(human) or language(instruction), language(text)
        if expected and found and expected != found:
            return "another language"
    return None


def finished(text: str) -> str:
    """
    Trim a text that was cut off to its last complete sentence or line, and remove unfinished code.

    Args:
        text (`str`): a text that may end in mid-sentence.

    Returns:
        `str`: the trimmed text; empty if it has no complete sentence.
    """
    if text.count("```") % 2:
        text = text[: text.rindex("```")].rstrip()
        return _DANGLING.sub("", text)
    ends = [match.end() for match in re.finditer(r"[.!?][\"')*]*(?=\s)|```(?=\s|$)|\n", text)]
    return _DANGLING.sub("", text[: ends[-1]].rstrip()).rstrip() if ends else ""


def repeats_itself(text: str) -> bool:
    """Return whether fewer than 70 % of a text's word 4-grams are distinct, or one line is repeated many times."""
    words = text.lower().split()
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    if len(grams) > 8 and len(set(grams)) / len(grams) < _LEAST_DISTINCT:
        return True
    lines = Counter(line.strip() for line in text.splitlines() if len(line.strip()) > 15)
    return bool(lines) and max(lines.values()) >= 5


def copies(text: str, source: str) -> bool:
    """Return whether a text equals another one, or shares at least 70 % of its word 5-grams with it."""
    words, known = _words(text), _words(source)
    if len(words) < _GRAM:
        return words == known
    grams = _grams(words)
    return len(grams & _grams(known)) >= _MOST_COPIED * len(grams)


def drops(text: str, source: str) -> bool:
    """
    Return whether a text keeps less than a quarter of the longer words and numbers of another one, and so of its content.
    A source in a script without spaces between words, such as Chinese, is not judged.
    """
    if 2 * count_unspaced(source) > len(words_of(source)):
        return False
    said = _stems(source)
    return len(said) >= _LEAST_STEMS and len(said & _stems(text)) < _LEAST_KEPT * len(said)


@functools.cache
def language_finder() -> Language:
    """
    Return a language detector: py3langid if it is installed, otherwise [`script_of`].

    Returns:
        `Callable[[str], str | None]`: maps a text to its language, or to `None` if it is undetermined.
    """
    try:
        from ..curation import Languages

        identify = Languages(["en"]).identify
    except ImportError:
        return script_of

    def language(text: str) -> str | None:
        found = identify(text)
        return None if found is None else found[0]

    return language


def script_of(text: str) -> str | None:
    """Return the predominant script of a text, such as `"LATIN"` or `"CJK"`; `None` if it is mixed or has few letters."""
    scripts = Counter(unicodedata.name(letter, "").split(" ")[0] for letter in text[:4000] if letter.isalpha())
    if not scripts or sum(scripts.values()) < _LEAST_LETTERS:
        return None
    script, count = scripts.most_common(1)[0]
    return script if count > 0.6 * sum(scripts.values()) else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _stems(text: str) -> set[str]:
    """Return numbers and the prefixes of longer words."""
    return {word[:5] for word in words_of(text) if word.isdigit() or 4 <= len(word) <= 20}


def _mask_code(text: str) -> str:
    """Overwrite code blocks and spans, in which tags and roles are content, with as many underscores."""
    return _CODE.sub(lambda code: "_" * len(code[0]), text)


def _copies_prompt(text: str, prompt: str, instruction: str, human: str) -> bool:
    grams = _grams(_words(text))
    own = _grams(_words(prompt)) - _grams(_words(instruction)) - _grams(_words(human))
    return bool(grams) and len(grams & own) >= 0.5 * len(grams)


def _grams(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)}
