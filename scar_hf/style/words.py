"""Split texts into words, sentences and punctuation, as the published measures do, and list function words."""

import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from itertools import count

import numpy as np

# Lexical diversity: digits and dashes are removed, other ASCII punctuation separates words, as in `lexicalrichness`.
_LEXICAL = str.maketrans(dict.fromkeys(string.punctuation, " ") | dict.fromkeys(string.digits + "-–—"))
# Readability: punctuation is removed, except an apostrophe before the ending of a contraction, as in `textstat`.
_OTHER_APOSTROPHE = re.compile(r"'(?![tsd]|ve|ll|re)")
_NO_WORD = re.compile(r"[^\w\s']")
_SENTENCE = re.compile(r"\b[^.!?]+[.!?]*")
_SENTENCE_ANYWHERE = re.compile(r"\b[^.!?؟۔।॥።]+[.!?؟۔।॥።]*")
# Three whitespace-separated pieces with a letter or digit; anchored, so that matching takes linear time.
_THREE_WORDS = re.compile(r"\W*\w\S*\s\W*\w\S*\s\W*\w")

# English function words: articles, pronouns, prepositions, conjunctions, auxiliaries, particles.
_FUNCTION_WORDS = """
a an the this that these those each every either neither another other both all any some such no none few many much more most
several own same enough
i you he she it we they me him her us them my your his its our their mine yours hers ours theirs
myself yourself himself herself itself ourselves yourselves themselves oneself one
who whom whose which what whatever whichever whoever whomever
someone somebody something anyone anybody anything everyone everybody everything nobody nothing
about above across after against along alongside amid among amongst around as at before behind below beneath beside besides
between beyond by despite down during except for from in inside into like near of off on onto opposite out outside over past per
regarding round since than through throughout till to toward towards under underneath unlike until unto up upon via versus with
within without
and but or nor so yet if because although though unless while whereas whether when whenever where wherever once lest
how why however therefore thus hence moreover furthermore nevertheless nonetheless otherwise then there here
am is are was were be been being have has had having do does did doing done
will would shall should can cannot could may might must ought
not never also too just only even still already again ever rather quite very almost perhaps maybe
"""
_SUBJECTS = (
    *("i", "you", "he", "she", "it", "we", "they", "that", "this", "there", "here"),
    *("who", "what", "where", "when", "how"),
)
_BEFORE_NOT = (
    *("is", "are", "was", "were", "have", "has", "had", "do", "does", "did"),
    *("wo", "would", "should", "could", "must", "might", "need"),
)

# Words as `lexical_words` returns them: it splits contractions at an ASCII apostrophe, but not at a curly one.
FUNCTION_WORDS = frozenset(
    [
        *_FUNCTION_WORDS.split(),
        *("t", "s", "d", "m", "ll", "ve", "re", "can’t"),
        *(f"{word}n" for word in _BEFORE_NOT),
        *(f"{word}n’t" for word in _BEFORE_NOT),
        *(f"{word}’{ending}" for word in _SUBJECTS for ending in ("s", "d", "m", "ll", "ve", "re")),
    ]
)


class _PunctuationMarks(dict):
    """Caches whether a character is punctuation or a symbol in Unicode."""

    def __missing__(self, character: str) -> bool:
        self[character] = found = unicodedata.category(character)[0] in "PS"
        return found


_marks = _PunctuationMarks()


def lexical_words(text: str) -> list[str]:
    """
    Split a text into lower-case words for measures of lexical diversity.

    Args:
        text (`str`): a response.

    Returns:
        `list[str]`: pieces between whitespace and ASCII punctuation, without digits and dashes.
    """
    return text.lower().translate(_LEXICAL).split()


def readability_words(text: str) -> list[str]:
    """
    Split a text into lower-case words for readability, rates and lengths.

    Args:
        text (`str`): a response.

    Returns:
        `list[str]`: pieces between whitespace, without punctuation; a contraction keeps its apostrophe.
    """
    if "'" in text:
        text = _OTHER_APOSTROPHE.sub("", text)
    return _NO_WORD.sub("", text).lower().split()


def count_sentences(text: str, language: str = "en") -> int:
    """
    Count sentences, which end in `.`, `!` or `?`; those of one or two words do not count.

    Args:
        text (`str`): a response.
        language (`str`, *optional*, defaults to `"en"`): for other languages, marks of other scripts also end a sentence.

    Returns:
        `int`: 0 for an empty text, otherwise at least 1.
    """
    if not text:
        return 0
    pattern = _SENTENCE if language == "en" else _SENTENCE_ANYWHERE
    return max(1, sum(_THREE_WORDS.match(sentence) is not None for sentence in pattern.findall(text)))


def count_punctuation(text: str) -> int:
    """
    Count characters that Unicode classes as punctuation or symbols, including Markdown.

    Args:
        text (`str`): a response.

    Returns:
        `int`: at least 0.
    """
    return sum(text.count(character) for character in set(text) if _marks[character])


def number_words(texts: Iterable[list[str]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """
    Map words to numbers; equal words get the same number.

    Args:
        texts (`Iterable[list[str]]`): the words of T texts, W in total.

    Returns:
        `tuple`: the numbers of all words in order, int64 of shape `(W,)`; the number of words in each text, int64 of shape
        `(T,)`; and the distinct words by number.
    """
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    ids: list[int] = []
    lengths: list[int] = []
    for words in texts:
        ids.extend(map(numbers.__getitem__, words))
        lengths.append(len(words))
    return np.array(ids, dtype=np.int64), np.array(lengths, dtype=np.int64), list(numbers)
