"""Detect responses that refuse, deflect or say nothing."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ..rows.pairs import RowPairs
from .refusal_phrases import (
    AI_DISCLAIMER,
    ASKS_BACK,
    DEFLECTION,
    DEFLECTS,
    DISCLAIMS,
    EMPTY,
    EMPTY_PHRASE,
    FOREIGN,
    LEAD,
    NARRATED,
    NEUTRAL,
    NO_ANSWER,
    PERHAPS_REFUSES,
    QUESTION,
    REFUSAL,
    REFUSES,
    SURELY_REFUSES,
    TURN,
)
from .row_step import RowStep
from .texts import batches_of

# Characters to read: refusals come at the beginning, and responses without an answer are short.
_READ = 800
# Number of sentences at the beginning in which a refusal may follow its reason.
_OPENING = 3
# Minimum number of words after "I cannot ..., but" that count as an answer.
_ANSWER_WORDS = 6
# Maximum length in characters of a refusal with reasons; a longer response is an answer with a reservation.
_LONGEST_REFUSAL = 1200
# Number of characters of a response quoted in a reason.
_SHOWN = 60
# Kind of a sentence that says nothing by itself and does not rule out an answer.
_NEITHER = "neither"
_CHARACTERS = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "\u00a0": " "})
_FENCE = re.compile(r"(?:```|~~~).*?(?:```|~~~|\Z)", re.DOTALL)
_QUOTED = re.compile(r'"[^"\n]*"')
_MARKUP = re.compile(r"^[ \t]*(?:(?:#{1,6}|>|[-*+])[ \t]+)+|(?<!\w)[*_]{1,3}(?=\S)|(?<=\S)[*_]{1,3}(?!\w)", re.MULTILINE)
_LABEL = re.compile(r"\s*(?:answer|response|assistant|output|bot|chatgpt|note)(?::|\s*\n)\s*(?=\S)")
_LETTER = re.compile(r"\s*(?:dear|to whom it may)\b|\s*subject:")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')]*\s+|\n+")
# Normalise spellings and remove adverbs that do not change the meaning.
_SPELLINGS = [
    (re.compile(pattern), words)
    for pattern, words in (
        (r"\bcan't\b|\bcan not\b|\bcant\b", "cannot"),
        (r"\bwon't\b", "will not"),
        (r"n't\b", " not"),
        (r"'m\b", " am"),
        (r"'re\b", " are"),
        (r"'d\b", " would"),
        (r"'ve\b", " have"),
        (r"'ll\b", " will"),
        (r"\b(it|that|there|here|what)'s\b", r"\1 is"),
        (r"\blet's\b", "let us"),
        (
            r"\b(?:simply|just|really|truly|very|deeply|terribly|sincerely|therefore|also|currently|personally|actually|kindly"
            r"|respectfully|directly|still|yet|sadly|regrettably|unfortunately|and will not|in good (?:conscience|faith)"
            r"|at this time|at the moment|please)\b,? ?",
            "",
        ),
        (r"\s+", " "),
    )
]


def refusal_reason(response: str) -> str | None:
    """
    Detect whether a response refuses, deflects or says nothing. It does not judge whether an answer is right.

    Args:
        response (`str`): plain text or Markdown in English; in other languages, only a few fixed openings are detected.

    Returns:
        `str`: `"refusal"`; `"deflection"` if the response asks back, refers the reader elsewhere or does not know;
        `"empty phrase"`, also for an empty text; `"AI disclaimer"` if it begins like "As an AI language model", whether or
        not an answer follows; `None` for an answer, even if it states its limits first.

    Example:

    ```python
    >>> from scar_hf.curation.refusals import refusal_reason
    >>> refusal_reason("**I'm sorry**, but I can't help with that.")
    'refusal'
    >>> refusal_reason("Sure! I hope this helps.")
    'empty phrase'
    >>> refusal_reason("Unfortunately, the model was discontinued in 2010.") is None
    True
    ```
    """
    text = _plain(response)
    if not text:
        return EMPTY_PHRASE
    for foreign, pattern in FOREIGN:
        if pattern.match(text):
            return foreign
    if _LETTER.match(text):
        return None
    said: set[str] = set()
    states_something = False
    for number, sentence in enumerate(_sentences(text)):
        kind, is_firm = _kind(sentence)
        if is_firm and not states_something and (kind == AI_DISCLAIMER or len(response) <= _LONGEST_REFUSAL):
            return kind
        if number < _OPENING and SURELY_REFUSES.search(sentence) and not NARRATED.search(sentence):
            return REFUSAL
        states_something |= kind is None
        if states_something and number >= _OPENING - 1:
            return None
        said.add(kind or _NEITHER)
    if states_something or len(response) > _READ:
        return None
    return next((kind for kind in (REFUSAL, DEFLECTION, EMPTY_PHRASE) if kind in said), None)


def count_refusals(responses: Iterable[str]) -> Counter[str]:
    """
    Count responses that refuse, deflect or say nothing.

    Args:
        responses (`Iterable[str]`): texts.

    Returns:
        `Counter[str]`: number of responses by kind, as returned by [`refusal_reason`]; empty if there are none.
    """
    return Counter(kind for kind in map(refusal_reason, responses) if kind is not None)


class Refusals(RowStep):
    """
    Finds rows with at least one response that refuses, deflects, says nothing, or begins like "As an AI language model".

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from scar_hf.curation import Refusals, curate

    >>> responses = ["A plant.", "I'm sorry, but I can't help with that."]
    >>> ds = Dataset.from_dict({"instruction": ["What is moss?"] * 2, "response": responses})
    >>> list(curate(ds, [Refusals()]).dropped)
    [1]
    ```
    """

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the result, for a manifest (`dict`)."""
        return {"step": "refusals"}

    def add(self, rows: Iterable[RowPairs]) -> None:
        """Add rows (`Iterable[RowPairs]`); numbering continues, and rows without a readable pair count but are ignored."""
        for batch in batches_of(rows):
            for number, row in enumerate(batch, self._count):
                for _, response in () if row.problem is not None else row.pairs:
                    if (kind := refusal_reason(response)) is not None:
                        self._dropped[number] = f"{kind} ('{' '.join(response[:_SHOWN].split())}')"
                        break
            self._count += len(batch)


def _kind(sentence: str) -> tuple[str | None, bool]:
    """Return the kind of a sentence (`None` if it states something), and whether it decides the kind of the response."""
    if NEUTRAL.fullmatch(sentence):
        return _NEITHER, False
    if EMPTY.fullmatch(sentence):
        return EMPTY_PHRASE, False
    rest = sentence
    while lead := LEAD.match(rest):
        rest = rest[lead.end() :]
    if not any(map(str.isalnum, rest)) or EMPTY.fullmatch(rest):
        return EMPTY_PHRASE, False
    if DISCLAIMS.match(rest):
        return AI_DISCLAIMER, True
    if NARRATED.search(rest):
        return None, False
    for pattern, kind, is_firm in ((REFUSES, REFUSAL, True), (DEFLECTS, DEFLECTION, False), (PERHAPS_REFUSES, REFUSAL, False)):
        if (found := pattern.match(rest)) and not _turns_to_answer(rest[found.end() :]):
            return kind, is_firm
    if ASKS_BACK.fullmatch(rest):
        return DEFLECTION, False
    return (_NEITHER if QUESTION.fullmatch(rest) else None), False


def _turns_to_answer(rest: str) -> bool:
    turn = TURN.search(rest)
    return turn is not None and len(turn["after"].split()) >= _ANSWER_WORDS and not NO_ANSWER.search(turn["after"])


def _plain(text: str) -> str:
    """Return the beginning of a text in lower case, without Markdown, labels, code and quotations."""
    text = text[:_READ].translate(_CHARACTERS).strip()
    if len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text = text[1:-1]
    text = _MARKUP.sub("", _FENCE.sub("\ncode\n", text)).lower()
    while label := _LABEL.match(text):
        text = text[label.end() :]
    return _QUOTED.sub('"quotation"', text).strip()


def _sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a plain text in normalised spelling, except those without a letter or digit."""
    for part in _SENTENCE_END.split(text):
        if any(map(str.isalnum, part)):
            for pattern, words in _SPELLINGS:
                part = pattern.sub(words, part)
            yield part.strip()
