"""Measures of linguistic form: how a response is worded, regardless of its content."""

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from .diversity import lexical_diversity
from .measures import form_measures, root_of
from .readability import SyllableCounter, flesch_reading_ease
from .words import FUNCTION_WORDS, count_punctuation, count_sentences, lexical_words, number_words, readability_words

logger = logging.getLogger(__name__)
# Texts per batch: large enough for numpy to be efficient, small enough to bound memory for long texts.
_TEXTS_AT_ONCE = 1000
# The Markdown elements of a response.
LAYOUT = ("headings", "list_items", "code", "bold")
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_BOLD = re.compile(r"\*\*(?=\S)[^*\n]+?(?<=\S)\*\*|(?<!\w)__(?=\S)[^_\n]+?(?<=\S)__(?!\w)")


def count_layout(text: str) -> tuple[int, int, int, int]:
    """
    Count Markdown elements. A fenced block counts as one piece of code; its content is ignored.

    Args:
        text (`str`): a response.

    Returns:
        `tuple(int)`: numbers of headings, list items, pieces of code (fenced or inline), and bold passages.
    """
    parts = text.split("```") if "```" in text else [text]
    prose = "\n".join(parts[::2])
    return (
        len(_HEADING.findall(prose)) if "#" in prose else 0,
        len(_LIST_ITEM.findall(prose)),
        len(parts) // 2 + (len(_INLINE_CODE.findall(prose)) if "`" in prose else 0),
        len(_BOLD.findall(prose)) if "**" in prose or "__" in prose else 0,
    )


def count_words(text: str) -> int:
    """
    Count words: text between whitespace, unless it is only punctuation.

    Args:
        text (`str`): a response.

    Returns:
        `int`: the number of words, at least 0.
    """
    return len(readability_words(text))


def type_token_ratio(text: str) -> float:
    """
    Compute the type-token ratio (TTR; paper, section 2): distinct words over all words, ignoring case. It falls with length.

    Args:
        text (`str`): a response.

    Returns:
        `float`: in (0, 1]; NaN for a text without words.
    """
    words = lexical_words(text)
    return len(set(words)) / len(words) if words else float("nan")


def linguistic_form(texts: Iterable[str], language: str = "en") -> dict[str, np.ndarray]:
    """
    Measure the linguistic form of responses (paper, section 2).

    Args:
        texts (`Iterable[str]`): n responses, read a thousand at a time.
        language (`str`, *optional*, defaults to `"en"`):
            A code such as `"en"`. Measures that make no sense for the language, or need a library that is not installed,
            are left out with a logged note.

    Returns:
        `dict[str, np.ndarray]`, each float64 of shape `(n,)`: `words`; `ttr` in (0, 1]; `mattr`, TTR in windows of 50
        words; `mtld` in words; `flesch` in points; `sentence_length` in words; `punctuation` in marks per word;
        `function_words`, a share; `headings`, `list_items`, `code` and `bold` per 100 words.
        [`~scar_hf.style.MEASURES`] has their titles and units. NaN where undefined: everything but `words` for a text
        without words, and `mattr` for one with fewer than 50.

    Raises:
        `ValueError`: if a text is not a string, or `language` is not a language code.

    Example:

    ```python
    >>> from scar_hf.style import linguistic_form

    >>> linguistic_form(["The cat sat on the mat."])["ttr"]
    array([0.83333333])
    ```
    """
    if isinstance(texts, str):
        raise ValueError("`texts` must be a list of responses, got a single string: put it into a list.")
    form = FormReader(language)
    for note in form.notes:
        logger.warning("%s", note)
    stream = enumerate(texts)
    parts = list(iter(lambda: form.measure(_checked(islice(stream, _TEXTS_AT_ONCE))), None))
    if not parts:
        return {name: np.empty(0) for name in form.names}
    return {name: np.concatenate([part[name] for part in parts]) for name in form.names}


class FormReader:
    """
    Measures the linguistic form of texts in batches.

    Args:
        language (`str`, *optional*, defaults to `"en"`): a language code.

    Attributes:
        names (`tuple[str]`): names of the computed measures.
        notes (`tuple[str]`): notes on measures left out, with reasons.
    """

    def __init__(self, language: str = "en") -> None:
        self.names, self.notes = form_measures(language)
        self.language = root_of(language)
        self._syllables = SyllableCounter(self.language) if "flesch" in self.names else None

    def measure(self, texts: Iterable[str]) -> dict[str, np.ndarray] | None:
        """Measure T texts, and return arrays of shape `(T,)` by name; `None` if there are no texts."""
        batch = list(texts)
        if not batch:
            return None
        if not self.names:
            return {}
        words = [readability_words(text) for text in batch]
        count = np.array([len(row) for row in words], dtype=np.float64)
        sentences = np.array([count_sentences(text, self.language) for text in batch], dtype=np.float64)
        found = {"words": count} | self._of_words(batch)
        with np.errstate(invalid="ignore", divide="ignore"):
            if self._syllables is not None:
                syllables = np.array([self._syllables.count(row) for row in words], dtype=np.float64)
                found["flesch"] = flesch_reading_ease(count, sentences, syllables, self.language)
            found["sentence_length"] = np.where(count > 0, count / sentences, np.nan)
            found["punctuation"] = _per(np.array([count_punctuation(text) for text in batch]), count)
            layout = np.array([count_layout(text) for text in batch]).T
            found |= {name: 100 * _per(marks, count) for name, marks in zip(LAYOUT, layout, strict=True)}
        return {name: found[name] for name in self.names}

    def _of_words(self, texts: list[str]) -> dict[str, np.ndarray]:
        """Measure lexical diversity and function words, both on words split for lexical diversity."""
        ids, lengths, distinct = number_words(map(lexical_words, texts))
        found = lexical_diversity(ids, lengths)
        if "function_words" in self.names:
            is_function_word = np.array([word in FUNCTION_WORDS for word in distinct], dtype=bool)
            so_far = np.concatenate([[0], np.cumsum(is_function_word[ids])])
            ends = np.cumsum(lengths)
            with np.errstate(invalid="ignore"):
                found["function_words"] = (so_far[ends] - so_far[ends - lengths]) / lengths
        return found


def _per(marks: np.ndarray, words: np.ndarray) -> np.ndarray:
    return np.where(words > 0, marks / words, np.nan)


def _checked(texts: Iterable[tuple[int, str]]) -> Iterator[str]:
    for i, text in texts:
        if not isinstance(text, str):
            raise ValueError(f"Text {i} is of type {type(text).__name__}, not a string: remove or fix such rows.")
        yield text
