"""Detect the language of rows, to drop rows in other languages or count those that a ranker was not trained on."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import islice
from typing import Any, Self

from tqdm.auto import tqdm

from ..rows.pairs import RowPairs
from ..rows.source import RowSource
from ..scoring.checkpoints import ranker_languages, resolve_checkpoint
from ..scoring.datasets import ScoredRows, score_each
from ..scoring.scorer import ScarScorer
from .row_step import RowStep
from .texts import batches_of, count_unspaced, words_of

logger = logging.getLogger(__name__)
# Not prose: code in fences or backticks, formulas, addresses, tags. An opening mark without its end is searched only up to
# the next one, and addresses are of ASCII characters, so that matching takes linear time.
_MARKED = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]{1,300}\$|\\\[(?:(?!\\\[).)*?\\\]"
    r"|\\\((?:(?!\\\().)*?\\\)|\\begin\{(\w+\*?)\}(?:(?!\\begin\{\1\}).)*?\\end\{\1\}|\\\w+|https?://\S+"
    r"|[!-?A-~]{1,64}@[!-~]+|</?\w[^<>\n]{0,300}>",
    re.DOTALL,
)
# Signs of a line of code that do not occur in sentences.
_CODE_LINE = re.compile(
    r"[;{}]\s*$|^\s*(?:[#@}$>]|//|/\*|--|def |class |import |from \w+ import|return\b|elif |else:|SELECT |INSERT |CREATE )"
    r"|[=!<>+]=|->|=>|::|&&|\|\||\w\(\w*\)|\w\[\w*\]|\w\.\w+\(|^\s*\w+\s*=\s*\S|\w_\w"
)
# Number of characters to read from a text.
_READ = 2000
# A character of an unspaced script counts as this many letters.
_UNSPACED_WEIGHT = 3
# A line is prose if its comma-separated items have more words than this on average; otherwise it is a list, as of names.
_WORDS_IN_ITEM = 2
# Labels of the library that are mapped to another language.
_ALIASES = {"pcm": "en"}
# At most this many rows are examined to count languages, evenly spread over the data.
_SAMPLE = 2000
# Languages not written in Latin script. If a ranker knows one of them, the script of a row is not informative.
_NON_LATIN_CODES = (
    "am ar as be bg bn dz el fa gu he hi hy ja ka kk km kn ko ky lo mk ml mn mr my ne or pa ps ru si sr ta te tg th ug uk ur zh"
)
_NON_LATIN = frozenset(_NON_LATIN_CODES.split())
_LATIN, _LETTER = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"), re.compile(r"[^\W\d_]")
# Minimum number of letters to judge the script of a text by.
_LETTERS = 20


class Languages(RowStep):
    """
    Finds rows in languages other than the given ones with the library py3langid, which bundles its model. Code, formulas,
    addresses and lists of names are removed first. If too few letters remain or the confidence is too low, the language is
    undetermined and the row is kept. The response determines the language of a row; if it is undetermined, instruction and
    response together.

    Args:
        languages (`Sequence[str]`): ISO 639-1 codes of the languages to keep, such as `["en", "de"]`.
        confidence (`float`, *optional*, defaults to 0.8): minimum confidence of the library, in (0, 1].
        letters (`int`, *optional*, defaults to 20):
            Minimum number of letters of prose; a character of Chinese, Japanese, Thai and similar scripts counts as three.

    Raises:
        `ImportError`: if py3langid is not installed: `pip install "scar-hf[curation]"`.
        `ValueError`: if a setting is out of range, or the library does not know a language.

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
            raise ImportError('Detecting languages needs the library py3langid: pip install "scar-hf[curation]".') from error
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        known = set(self._identifier.labels) - set(_ALIASES)
        unknown = [language for language in languages if language not in known]
        if unknown:
            raise ValueError(f"Unknown languages {unknown}. Known: {', '.join(sorted(known))}.")
        self.languages, self.confidence, self.letters = list(languages), confidence, letters
        super().__init__()

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the result, for a manifest (`dict`)."""
        return {
            "step": "languages",
            "languages": self.languages,
            "confidence": self.confidence,
            "letters": self.letters,
            "py3langid": version("py3langid"),
        }

    def identify(self, *texts: str) -> tuple[str, float] | None:
        """
        Detect the language of the first text whose language can be determined.

        Args:
            texts (`str`): texts, of each of which the first 2,000 characters of prose are read.

        Returns:
            `(language, confidence)`: an ISO 639-1 code (or 639-3 if there is none) and a number in [0, 1]; `None` if the
            language is undetermined.

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
        """Add rows (`Iterable[RowPairs]`); numbering continues, and rows without a readable pair count but are ignored."""
        for batch in batches_of(rows):
            for number, row in enumerate(batch, self._count):
                found = self.identify(row.text("response"), row.text())
                if found is not None and found[0] not in self.languages:
                    self._dropped[number] = f"language: {found[0]} ({found[1]:.2f})"
            self._count += len(batch)


class LanguageCoverage:
    """
    Counts rows in other languages in a sample of the rows being scored. [`Languages`] detects the language if its library is
    installed; otherwise only the script is checked, which cannot distinguish German from English.

    Args:
        languages (`Sequence[str]`):
            ISO 639-1 codes of the languages that the ranker was trained on; if empty, no rows are counted.
    """

    columns = ()

    def __init__(self, languages: Sequence[str]) -> None:
        self.languages = list(languages)
        self._seen, self._stride = 0, 1
        self._found: list[tuple[int, str | None]] = []
        self._identifier: Languages | None = None
        self._latin = bool(self.languages) and not _NON_LATIN & set(self.languages)
        if self.languages:
            # The library may be missing, or not know one of the languages.
            with suppress(ImportError, ValueError):
                self._identifier = Languages(self.languages)

    @classmethod
    def of(cls, scorer: ScarScorer) -> Self:
        """Create the coverage for a scorer ([`ScarScorer`]), with the languages from the card of its ranker."""
        if scorer.in_memory:
            return cls([])
        return cls(ranker_languages(resolve_checkpoint(scorer.model_name), scorer.settings.revision))

    def see(self, rows: Iterable[RowPairs], values: Mapping[str, list[Any]] | None = None) -> None:
        """Examine a sample of further rows."""
        for row in rows:
            if self.languages and self._seen % self._stride == 0:
                self._found.append((self._seen, None if row.problem is not None else self._other(row)))
                if len(self._found) > _SAMPLE:
                    self._stride *= 2
                    self._found = [entry for entry in self._found if entry[0] % self._stride == 0]
            self._seen += 1

    def counts(self) -> Counter[str]:
        """Count the examined rows in other languages, by language."""
        return Counter(language for _, language in self._found if language is not None)

    def report(self) -> None:
        """Log how many rows are in other languages, if there are any."""
        found = self.counts()
        if not found:
            return
        examined = f"{len(self._found):,} rows" + ("" if self._stride == 1 else f" examined, out of {self._seen:,},")
        logger.warning(
            "%s of %s are in languages that the ranker was not trained on (%s), so their scores mean little; it was trained "
            "on %s. Languages(%r) (--languages %s) drops rows in other languages.",
            f"{found.total():,}",
            examined,
            ", ".join(f"{count:,} {language}" for language, count in found.most_common(5)),
            ", ".join(self.languages),
            self.languages,
            ",".join(self.languages),
        )

    def _other(self, row: RowPairs) -> str | None:
        """Return the language of a row if the ranker was not trained on it, otherwise `None`."""
        if self._identifier is not None:
            found = self._identifier.identify(row.text("response"), row.text())
            return found[0] if found is not None and found[0] not in self.languages else None
        letters = _LETTER.findall(row.text()[:_READ]) if self._latin else []
        latin = sum(map(bool, map(_LATIN.match, letters)))
        return "in another script" if len(letters) >= _LETTERS and 2 * latin < len(letters) else None


def report_languages(scorer: ScarScorer, rows: Iterable[RowPairs]) -> None:
    """
    Log how many of the first rows are in languages that the ranker was not trained on, for rows that are scored elsewhere.

    Args:
        scorer ([`ScarScorer`]): the scorer.
        rows (`Iterable[RowPairs]`): rows, of which the first 2,000 are read.
    """
    coverage = LanguageCoverage.of(scorer)
    if coverage.languages:
        coverage.see(islice(rows, _SAMPLE))
        coverage.report()


def score_watched(scorer: ScarScorer, source: RowSource, cache: bool, bar: tqdm) -> list[ScoredRows]:
    """
    Score the shards of a source, and log how many rows are in languages that the ranker was not trained on.

    Args:
        scorer ([`ScarScorer`]): the scorer.
        source ([`~scar_hf.rows.source.RowSource`]): the rows.
        cache (`bool`): whether to cache scores on disk.
        bar (`tqdm`): a progress bar that counts rows.

    Returns:
        `list[ScoredRows]`: one per shard, with row numbers counted over all shards.
    """
    kept = scorer.cache() if cache and not scorer.in_memory else None
    if any(shard.numbers is not None for shard in source.shards):  # languages were counted before rows were picked
        return score_each(scorer, source, kept, bar)
    coverage = LanguageCoverage.of(scorer)
    source.watchers.append(coverage)
    parts = score_each(scorer, source, kept, bar)
    coverage.report()
    return parts


def prose_of(text: str) -> str:
    """
    Remove code, formulas, addresses, tags, and lines that are lists, none of which show the language of a text. If most of
    the remaining lines are unfenced code, return an empty text, because the other lines are probably its comments.
    """
    lines = [line for line in _MARKED.sub(" ", text).splitlines() if line.strip()]
    plain = [line for line in lines if not _CODE_LINE.search(line)]
    return "\n".join(filter(_is_prose, plain)) if 2 * len(plain) >= len(lines) else ""


def _is_prose(line: str) -> bool:
    return len(words_of(line)) > _WORDS_IN_ITEM * (1 + sum(line.count(mark) for mark in ",;、，؛،"))
