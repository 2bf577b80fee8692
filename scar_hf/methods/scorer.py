"""The base class of methods that score rows in place of the ranker, for use in rankings, runs, manifests and reports."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from .._version import __version__
from ..curation.languages import score_watched
from ..rows.pairs import RowPairs
from ..rows.source import RowSource
from ..scoring.cache import ChunkScores, PartlyScored, ScoreCache
from ..scoring.chunks import Chunk
from ..scoring.datasets import ScoredRows, score_each
from ..scoring.scorer import ScarScorer
from ..scoring.settings import ROWS, settings_that_decide
from ..scoring.tokenization import TokenizedTexts, tokenize
from ..selecting.cascade import score_all
from ..selecting.choice import Choice
from ..selecting.criteria import Criteria


class MethodScorer(ScarScorer):
    """
    Scores rows with another method. The ranker of its settings is only loaded to compare rows with each other: for
    `diversity` and for the map of a report.

    A method that scores each row independently implements [`MethodScorer.score_pairs`]; one that needs all rows at once
    implements [`MethodScorer.score_shards`].

    Args:
        settings: as for [`ScarScorer`].

    Attributes:
        method (`str`): the name of the method.
        is_cached (`bool`): whether its scores are worth caching on disk.
    """

    method = ""
    is_cached = False

    @property
    def read_length(self) -> int:
        """The number of tokens that are read of a text; 0 for the whole text."""
        return 0

    @property
    def in_memory(self) -> bool:
        """Whether the method uses a model that exists only in this process."""
        return False

    def score_pairs(self, rows: Sequence[RowPairs]) -> ChunkScores:
        """
        Score rows that can be scored.

        Args:
            rows (`Sequence[RowPairs]`): n rows without a problem.

        Returns:
            [`~scar_hf.scoring.cache.ChunkScores`]: n scores, higher is better.

        Raises:
            `ValueError`: if the method needs all rows at once.
        """
        raise ValueError(
            f"The method {self.method!r} needs all rows at once: use scar_rank, scar_select or scar-hf select, which pass them."
        )

    def score_chunks(
        self, chunks: Iterable[Chunk], cache: ScoreCache | None = None, bar: tqdm | None = None
    ) -> Iterator[tuple[Chunk, ChunkScores]]:
        """Score a stream of chunks, as [`ScarScorer.score_chunks`] does."""
        for chunk in chunks:
            result = score_missing(chunk, cache, lambda missing: self.score_pairs(missing.rows))
            if bar is not None:
                bar.update(len(chunk.rows))
            yield chunk, result

    def score_shards(self, source: RowSource, cache: bool, bar: tqdm) -> list[ScoredRows]:
        """
        Score the shards of a source.

        Args:
            source ([`~scar_hf.rows.source.RowSource`]): the rows.
            cache (`bool`): whether to cache scores on disk.
            bar (`tqdm`): a progress bar of rows.

        Returns:
            `list[ScoredRows]`: one for each shard, row numbers counted over all of them.
        """
        kept = self.cache() if cache and self.is_cached and not self.in_memory else None
        return score_each(self, source, kept, bar)

    def check_no_margin(self, method: str) -> None:
        """Raise a `ValueError` with `preference="margin"`, for a method whose scores cannot be subtracted."""
        if self.settings.preference == "margin":
            raise ValueError(
                f"The method {method!r} cannot score preference='margin', because the difference of two of its scores means "
                "nothing. Pass preference='chosen' or 'rejected', or another method."
            )

    def own_identity(self) -> dict[str, Any]:
        """Return the values that identify the method's scores, apart from the settings of the reader."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Return the values that identify these scores: version, method, its settings, and the settings of the reader."""
        rows = {name: self._meaning(name) for name in settings_that_decide(ROWS)}
        return {"scar_hf": __version__, "method": self.method, **self.own_identity(), **rows}

    def describe(self) -> dict[str, Any]:
        """Return [`MethodScorer.identity`] and the number of tokens read, for manifests. A method has no model or revision."""
        return self.identity() | {"max_length": self.read_length or None}

    def _meaning(self, name: str) -> Any:
        if name == "columns":
            return self.reader.columns
        return super()._meaning(name) if name == "formatting_func" else getattr(self.settings, name)

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of the method, apart from the settings."""
        return {}

    def _tokens_of(self, texts: list[str]) -> TokenizedTexts:
        """Tokenize texts for the ranker, whose encoder compares rows."""
        loaded = self._load()
        with loaded.tokenizing:
            read_length = ScarScorer.read_length.__get__(self)
            return tokenize(loaded.tokenizer, texts, read_length, self.settings.truncation, loaded.words)

    def __getstate__(self) -> dict[str, Any]:
        """Return the identity of the scores and the arguments to rebuild the scorer. A model in memory cannot be pickled."""
        if self.in_memory:
            raise TypeError(f"The method {self.method!r} uses a model in memory, which cannot be sent to other processes.")
        return {"identity": self.identity(), "arguments": self._arguments(), "settings": self.settings.as_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["arguments"], **state["settings"])  # type: ignore[misc]


def score_missing(chunk: Chunk, cache: ScoreCache | None, compute: Callable[[Chunk], ChunkScores]) -> ChunkScores:
    """
    Score a chunk, computing only the rows that are not cached.

    Args:
        chunk ([`~scar_hf.scoring.chunks.Chunk`]): n rows.
        cache ([`~scar_hf.scoring.cache.ScoreCache`], *optional*): the score cache.
        compute (`Callable`): scores a chunk.

    Returns:
        [`~scar_hf.scoring.cache.ChunkScores`]: n scores.
    """

    def compute_at(places: np.ndarray) -> ChunkScores:
        return compute(chunk.of(places))

    part = PartlyScored.of(chunk.digests, chunk.scorable, cache)
    return part.complete(compute_at(part.missing) if len(part.missing) else None, compute_at, cache)


def score_with(scorer: ScarScorer, source: RowSource, cache: bool, bar: tqdm) -> list[ScoredRows]:
    """
    Score the shards of a source in this process, with the ranker or another method.

    Args:
        scorer ([`~scar_hf.ScarScorer`]): the scorer.
        source ([`~scar_hf.rows.source.RowSource`]): the rows.
        cache (`bool`): whether to cache scores on disk.
        bar (`tqdm`): a progress bar of rows.

    Returns:
        `list[ScoredRows]`: one for each shard, row numbers counted over all of them.
    """
    if isinstance(scorer, MethodScorer):
        return scorer.score_shards(source, cache, bar)
    return score_watched(scorer, source, cache, bar)


def score_source(
    ds: Dataset, scorer: ScarScorer, cache: bool = True, progress: bool = False, criteria: Criteria | None = None
) -> ScoredRows:
    """Score a dataset with the ranker or another method, as [`~scar_hf.selecting.cascade.score_all`] does."""
    # Without a prefilter, scores do not depend on the criteria, and a ranking applies them afterwards.
    own = criteria if criteria is not None and criteria.prefilter is not None else Criteria()
    return score_all(Choice(RowSource(ds, scorer.reader), own), score_with, scorer, cache, progress)
