"""Methods that use a language model: perplexity and instruction-following difficulty."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..rows.pairs import RowPairs
from ..scoring.cache import ChunkScores, ScoreCache
from ..scoring.chunks import Chunk
from ..scoring.settings import ROWS, settings_that_decide
from ..style import Surprisal
from ..style.causal_lm import lm_identity
from ..style.surprisal import as_surprisal
from .scorer import MethodScorer, score_missing

LM_METHODS = ("perplexity", "ifd")


class LanguageModelScorer(MethodScorer):
    """
    Scores rows with a causal language model. One pass computes both methods, and both are cached on disk.

    Args:
        method (`str`):
            `"perplexity"`: the least surprising responses first; the score is -log PPL(y|x), in nats per token.
            `"ifd"`: instruction-following difficulty, PPL(y|x) / PPL(y) (arXiv 2308.12032), the highest below 1 first. At 1 or
            more, the instruction does not help: such rows get the score -PPL(y|x) / PPL(y) and rank below all others.
            With `preference="margin"`, the perplexity score of the rejected response is subtracted; IFD has no margin.
        lm (`str`, `Path`, `PreTrainedModel` or [`~scar_hf.style.Surprisal`]): the model, as for [`~scar_hf.style.Surprisal`].
        settings: as for [`~scar_hf.ScarScorer`]. With `turn="all"`, the values are averaged over a row's turns.

    Raises:
        `ValueError`: if there is no `lm`, or for IFD with `preference="margin"`.
    """

    is_cached = True

    def __init__(self, method: str, lm: str | Path | PreTrainedModel | Surprisal | None, **settings: Any) -> None:
        super().__init__(**settings)
        if lm is None:
            raise ValueError(
                f"The method {method!r} needs a causal language model: pass lm= (--lm), such as "
                "HuggingFaceTB/SmolLM2-135M-Instruct, a folder or a GGUF file."
            )
        if method == "ifd":
            self.check_no_margin(method)
        self.method = method
        self.surprisal = as_surprisal(lm) if isinstance(lm, Surprisal) else Surprisal(lm, **self._given_device())
        self._other: LanguageModelScorer | None = None

    @property
    def read_length(self) -> int:
        """The number of tokens of instruction and response that the language model reads."""
        return self.surprisal.max_length

    @property
    def in_memory(self) -> bool:
        """Whether the language model was passed as an object."""
        return self.surprisal.in_memory

    def score_pairs(self, rows: Sequence[RowPairs]) -> ChunkScores:
        """Score rows."""
        return self._scores_of(rows)[self.method]

    def score_chunks(
        self, chunks: Iterable[Chunk], cache: ScoreCache | None = None, bar: tqdm | None = None
    ) -> Iterator[tuple[Chunk, ChunkScores]]:
        """Score chunks, and cache the scores of the other method from the same pass."""
        # A margin is only defined for perplexity.
        other = self._twin().cache() if cache is not None and self.settings.preference != "margin" else None
        computed = 0

        def compute(missing: Chunk) -> ChunkScores:
            nonlocal computed
            found, computed = self._score_both(missing, bar), len(missing.rows)
            if other is not None:
                other.put(missing.digests, found[self._twin().method])
            return found[self.method]

        for chunk in chunks:
            computed = 0
            result = score_missing(chunk, cache, compute)
            if bar is not None:
                bar.update(len(chunk.rows) - computed)
            yield chunk, result

    def own_identity(self) -> dict[str, Any]:
        """Return the language model and its settings."""
        lm = self.surprisal
        read = {"lm_dtype": str(lm.dtype).removeprefix("torch."), "lm_max_length": lm.max_length}
        return {"lm": lm.name, "lm_weights": self._weights, **read, "chat_template": lm.chat_template}

    @cached_property
    def _weights(self) -> str | None:
        return None if self.in_memory else lm_identity(self.surprisal.name, self.surprisal.revision)

    def cache(self, folder: str | None = None) -> ScoreCache:
        """Return the cache of these scores; its key does not include the path of the language model."""
        identity = self.identity() | {name: version(name) for name in ("torch", "transformers", "tokenizers")}
        # Settings of the reader are left out: the cache is keyed by the texts that they produce.
        for name in ("lm", *settings_that_decide(ROWS)):
            identity.pop(name)
        return ScoreCache(identity, folder)

    def _arguments(self) -> dict[str, Any]:
        return {"method": self.method, "lm": self.surprisal}

    def _given_device(self) -> dict[str, Any]:
        return {} if self.settings.device is None else {"device": self.settings.device}

    def _twin(self) -> "LanguageModelScorer":
        """Return a scorer for the other method with the same language model."""
        if self._other is None:
            other = next(name for name in LM_METHODS if name != self.method)
            self._other = LanguageModelScorer(other, self.surprisal, **self.settings.as_dict())
        return self._other

    def _score_both(self, chunk: Chunk, bar: tqdm | None) -> dict[str, ChunkScores]:
        """Score rows without a problem with both methods, a hundred at a time to update the progress bar often."""
        n = len(chunk.rows)
        scores = {name: np.full(n, np.nan, dtype=np.float32) for name in LM_METHODS}
        truncated = np.zeros(n, dtype=bool)
        for start in range(0, n, 100):
            some = slice(start, start + 100)
            found = self._scores_of(chunk.rows[some])
            for name in LM_METHODS:
                scores[name][some] = found[name].scores
            truncated[some] = found[self.method].truncated
            if bar is not None:
                bar.update(len(chunk.rows[some]))
        return {name: ChunkScores(values, truncated) for name, values in scores.items()}

    def _scores_of(self, rows: Sequence[RowPairs]) -> dict[str, ChunkScores]:
        surprisal, ifd, truncated = self._means_of([row.pairs for row in rows])
        values = {"perplexity": -surprisal, "ifd": np.where(ifd < 1, ifd, -ifd)}
        if any(row.against for row in rows):
            rejected, _, also = self._means_of([row.against for row in rows])
            values, truncated = values | {"perplexity": rejected - surprisal}, truncated | also
        return {name: ChunkScores(found.astype(np.float32), truncated) for name, found in values.items()}

    def _means_of(self, pairs: Sequence[Sequence[tuple[Any, Any]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean surprisal and IFD of n lists of pairs, and whether a text of theirs was truncated."""
        every = [pair for some in pairs for pair in some]
        measured = self.surprisal.measure([x for x, _ in every], [y for _, y in every], log=False)
        row_of = np.repeat(np.arange(len(pairs)), [len(some) for some in pairs])
        turns = np.maximum(np.bincount(row_of, minlength=len(pairs)), 1)
        surprisal, ifd = (np.bincount(row_of, measured[name], len(pairs)) / turns for name in ("surprisal", "ifd"))
        return surprisal, ifd, np.bincount(row_of, measured["truncated"], len(pairs)) > 0
