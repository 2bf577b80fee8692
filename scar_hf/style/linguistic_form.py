"""Measures of linguistic form: how a response is put, whatever it says."""

import re

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def count_words(text: str) -> int:
    """
    Count words: runs of letters, digits and inner apostrophes.

    Args:
        text (`str`): a response.

    Returns:
        `int`: the number of words, at least 0.
    """
    return len(_WORD.findall(text))


def type_token_ratio(text: str) -> float:
    """
    Share of distinct words among all words, without regard to case (TTR; paper, section 2). It falls with length.

    Args:
        text (`str`): a response.

    Returns:
        `float`: in (0, 1]; NaN for a text without a word.
    """
    words = _WORD.findall(text.lower())
    return len(set(words)) / len(words) if words else float("nan")
