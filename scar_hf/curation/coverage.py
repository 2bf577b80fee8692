"""Count rows in languages that a ranker was not trained on, while they are scored."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Self

from tqdm.auto import tqdm

from ..rows.pairs import RowPairs
from ..rows.source import RowSource
from ..scoring.checkpoints import ranker_languages, resolve_checkpoint
from ..scoring.datasets import ScoredRows, score_each
from ..scoring.scorer import ScarScorer
from .languages import Languages
from .texts import text_of

logger = logging.getLogger(__name__)
# At most this many rows are examined, evenly spread over the data.
_SAMPLE = 2000
# Languages that are not written in Latin script. If a ranker knows one of them, the script of a row tells nothing.
_NON_LATIN_CODES = (
    "am ar as be bg bn dz el fa gu he hi hy ja ka kk km kn ko ky lo mk ml mn mr my ne or pa ps ru si sr ta te tg th ug uk ur zh"
)
_NON_LATIN = frozenset(_NON_LATIN_CODES.split())
_LATIN, _LETTER = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"), re.compile(r"[^\W\d_]")
# Minimum number of letters to judge the script of a text by, and the number of characters read.
_LETTERS, _READ = 20, 2000


class LanguageCoverage:
    """
    Watches rows as they are scored, examines a sample of them, and counts those in other languages. [`Languages`] detects
    the language if its library is installed; otherwise only the script is checked, which does not tell German from English.

    Args:
        languages (`Sequence[str]`):
            ISO 639-1 codes of the languages that the ranker was trained on; if empty, nothing is counted.
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
        """The coverage of a scorer ([`ScarScorer`]), by the card of its ranker."""
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
        """Return the language of a row if it is another one."""
        if self._identifier is not None:
            found = self._identifier.identify(text_of(row, "response"), text_of(row))
            return found[0] if found is not None and found[0] not in self.languages else None
        letters = _LETTER.findall(text_of(row)[:_READ]) if self._latin else []
        latin = sum(map(bool, map(_LATIN.match, letters)))
        return "in another script" if len(letters) >= _LETTERS and 2 * latin < len(letters) else None


def report_languages(scorer: ScarScorer, rows: Iterable[RowPairs]) -> None:
    """
    Log how many of the first rows are in languages that the ranker was not trained on, where rows are scored elsewhere.

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
        `list[ScoredRows]`: one for each shard, row numbers counted over all of them.
    """
    kept = scorer.cache() if cache and not scorer.in_memory else None
    if any(shard.numbers is not None for shard in source.shards):  # languages were counted before some rows were picked
        return score_each(scorer, source, kept, bar)
    coverage = LanguageCoverage.of(scorer)
    source.watchers.append(coverage)
    parts = score_each(scorer, source, kept, bar)
    coverage.report()
    return parts
