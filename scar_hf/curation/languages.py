"""Detect the language of rows, and drop rows in other languages."""

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from ..rows.pairs import RowPairs
from .row_step import RowStep
from .texts import batches_of, count_unspaced, text_of, words_of

# Not prose: code in fences or backticks, formulas, addresses, tags.
_MARKED = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]{1,300}\$|\\\[.*?\\\]|\\\(.*?\\\)"
    r"|\\begin\{(\w+\*?)\}.*?\\end\{\1\}|\\\w+|https?://\S+|\S+@\S+|</?\w[^<>\n]{0,300}>",
    re.DOTALL,
)
# Signs of a line of code that sentences do not have.
_CODE_LINE = re.compile(
    r"[;{}]\s*$|^\s*(?:[#@}$>]|//|/\*|--|def |class |import |from \w+ import|return\b|elif |else:|SELECT |INSERT |CREATE )"
    r"|[=!<>+]=|->|=>|::|&&|\|\||\w\(\w*\)|\w\[\w*\]|\w\.\w+\(|^\s*\w+\s*=\s*\S|\w_\w"
)
_READ = 2000
# A character of an unspaced script counts as this many letters.
_UNSPACED_WEIGHT = 3
# A line whose items between commas have at least this many words on average is prose; otherwise it is a list, perhaps of names.
_WORDS_IN_ITEM = 2
# Labels of the library that count as English.
_ALIASES = {"pcm": "en"}


class Languages(RowStep):
    """
    Finds rows in other languages than those wanted, by the library py3langid, which has its model within. Code, formulas,
    addresses and lists of names are taken away first. What remains must have enough letters and the library be sure
    enough; else the language is undetermined, and the row stays. The response says what language a row is in; where it is
    undetermined, instruction and response together.

    Args:
        languages (`Sequence[str]`): ISO 639-1 codes of the languages to keep, such as `["en", "de"]`.
        confidence (`float`, *optional*, defaults to 0.8): minimum confidence of the library, in (0, 1].
        letters (`int`, *optional*, defaults to 20):
            How many letters of prose are needed; one of Chinese, Japanese, Thai and the like counts as three.

    Raises:
        `ImportError`: without `pip install "scar-hf[curation]"`.
        `ValueError`: if a setting is out of range, or a language is not one that the library knows.

    Example:

    ```python
    >>> from datasets import Dataset
    >>> from scar_hf.curation import Languages, curate

    >>> responses = ["Bees eat nectar and pollen from many flowers.", "Bienen fressen Nektar und Pollen von vielen Blumen."]
    >>> ds = Dataset.from_dict({"instruction": [""] * 2, "response": responses})
    >>> curate(ds, [Languages(["en"])]).dropped
    {1: 'language: de (...)'}
    ```
    """

    def __init__(self, languages: Sequence[str], *, confidence: float = 0.8, letters: int = 20) -> None:
        if isinstance(languages, str) or not languages:
            raise ValueError(f'`languages` must be a list of language codes such as ["en"], got {languages!r}.')
        if not 0 < confidence <= 1 or letters < 1:
            raise ValueError(f"`confidence` must be in (0, 1] and `letters` at least 1, got {confidence} and {letters}.")
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise ImportError('Telling languages needs the library py3langid: pip install "scar-hf[curation]".') from error
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        known = set(self._identifier.labels) - set(_ALIASES)
        unknown = [language for language in languages if language not in known]
        if unknown:
            raise ValueError(f"Unknown languages {unknown}. Known: {', '.join(sorted(known))}.")
        self.languages, self.confidence, self.letters = list(languages), confidence, letters
        super().__init__()

    def settings(self) -> dict[str, Any]:
        """The settings that determine the result, for a manifest."""
        return {
            "step": "languages",
            "languages": self.languages,
            "confidence": self.confidence,
            "letters": self.letters,
            "py3langid": version("py3langid"),
        }

    def identify(self, *texts: str) -> tuple[str, float] | None:
        """
        Tell the language of the first text that it can be told of.

        Args:
            texts (`str`): of each, the first 2,000 characters of prose are read.

        Returns:
            `(language, confidence)`: an ISO 639-1 code (639-3 where there is none) and a number in [0, 1]; `None` if it is
            undetermined.

        Example:

        ```python
        >>> from scar_hf.curation import Languages

        >>> Languages(["en"]).identify("Die Hauptstadt von Frankreich ist Paris, und sie liegt an der Seine.")[0]
        'de'
        ```
        """
        for text in texts:
            prose = prose_of(text)[:_READ]
            letters = sum(map(str.isalpha, prose)) + (_UNSPACED_WEIGHT - 1) * count_unspaced(prose)
            if letters >= self.letters:
                language, confidence = self._identifier.classify(prose)
                if confidence >= self.confidence:
                    return _ALIASES.get(language, language), float(confidence)
        return None

    def add(self, rows: Iterable[RowPairs]) -> None:
        """Add rows (`Iterable[RowPairs]`); numbering continues, and rows without a readable pair are numbered but ignored."""
        for batch in batches_of(rows):
            for number, row in enumerate(batch, self._count):
                found = self.identify(text_of(row, "response"), text_of(row))
                if found is not None and found[0] not in self.languages:
                    self._dropped[number] = f"language: {found[0]} ({found[1]:.2f})"
            self._count += len(batch)


def prose_of(text: str) -> str:
    """
    Take away what says nothing about a text's language: code, formulas, addresses, tags, and lines that are lists. Where most
    of the lines that are left are code outside of fences, the others are its comments, and none is prose.
    """
    lines = [line for line in _MARKED.sub(" ", text).splitlines() if line.strip()]
    plain = [line for line in lines if not _CODE_LINE.search(line)]
    return "\n".join(filter(_is_prose, plain)) if 2 * len(plain) >= len(lines) else ""


def _is_prose(line: str) -> bool:
    return len(words_of(line)) > _WORDS_IN_ITEM * (1 + sum(line.count(mark) for mark in ",;、，؛،"))
