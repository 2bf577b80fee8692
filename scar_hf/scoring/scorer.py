"""The scorer for instruction-response pairs, which is also callable on rows and batches of `ds.map`."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from importlib.metadata import version
from threading import Event, RLock
from typing import Any, overload

import numpy as np
import torch
from datasets.fingerprint import Hasher
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from .._version import __version__
from ..modeling import ScarConfig, ScarModel
from ..progress import hidden
from ..rows.batches import add_scores, as_columns
from ..rows.pairs import PairReader, RowPairs, check_rows, pair_problem
from .cache import ChunkScores, PartlyScored, ScoreCache
from .checkpoints import checkpoint_identity, read_config, resolve_checkpoint
from .chunks import Chunk, cut_chunks, encode_chunk, score_chunk
from .encoders import default_backend, make_encoder, resolve_hardware
from .encoders.forking import lasting_threads, restart_after_fork
from .encoders.torch_encoder import one_thread_per_operation
from .loaded import LoadedRanker, loaded_ranker, release
from .precision import precision_name
from .settings import BUNDLED_RANKER, BY_NAME, ROWS, SCORES, ScorerSettings, check_names, settings_that_decide, with_settings
from .tokenization import TokenizedTexts, tokenize

logger = logging.getLogger(__name__)

SCORE_COLUMN = "scar_score"
NOT_FINITE = "the score is not a finite number"
# Chunks in flight: while one is encoded, the next is tokenised and its batches fill idle cores.
_LOOKAHEAD = 2
# A chunk, what the cache knows of it, and the scores that are being computed.
_Work = tuple[Chunk, PartlyScored, Future | None]


@with_settings
class ScarScorer:
    r"""
    Scores instruction-response pairs with a SCAR ranker. The model loads at first use, so a scorer is cheap to create, hash
    and send to workers.

    Args:
        {settings}

    Attributes:
        settings ([`~scar_hf.scoring.settings.ScorerSettings`]): the settings as given.
        device, dtype: the device and precision that these settings resolve to.
        method (`str`): the name of the method; see docs/methods.md.

    Raises:
        `TypeError`: if a setting does not exist.
        `ValueError`: if a value is out of range, or two settings contradict each other.

    Example:

    ```python
    >>> from scar_hf import ScarScorer

    >>> scorer = ScarScorer.from_pretrained("scar-ranker")
    >>> scorer.score(["What do bees eat?"], ["Bees eat nectar and pollen."]).shape
    (1,)
    ```
    """

    method = "scar"

    def __init__(self, model: str = BUNDLED_RANKER, **settings: Any) -> None:
        check_names("ScarScorer", settings)
        self.settings = ScorerSettings(model=str(model), **settings)
        self.model_name = self.settings.model
        self.device, self.dtype, self._backend = resolve_hardware(self.settings)
        given = self.settings
        self.reader = PairReader(given.columns, given.turn, given.formatting_func, given.preference)
        self._given: tuple[ScarModel, PreTrainedTokenizerBase] | None = None  # a ranker in memory
        self._loaded: LoadedRanker | None = None
        self._identity: str | None = None  # the checkpoint's identity once loaded; in a worker, the expected one
        self.start_workers()
        restart_after_fork(self)
        self._threads: int | None = None
        self._warned = False

    def start_workers(self) -> None:
        """Create the lock. A forked process needs a new one, because a thread of its parent may have held the old one."""
        self._loading = RLock()

    @classmethod
    @with_settings
    def from_pretrained(cls, model: str = BUNDLED_RANKER, **settings: Any) -> "ScarScorer":
        """
        Create a scorer and load its ranker immediately, so that a bad checkpoint raises here.

        Args:
            model (`str`, *optional*, defaults to `"scar-ranker"`): as in [`ScarScorer`].
            settings: as in [`ScarScorer`].

        Returns:
            [`ScarScorer`].

        Raises:
            `ValueError`: if the checkpoint is not a SCAR ranker, or a weight is missing, unexpected, unreadable or of the
            wrong shape.
        """
        scorer = cls(model, **settings)
        scorer._load()
        return scorer

    @classmethod
    def from_model(cls, model: ScarModel, tokenizer: PreTrainedTokenizerBase, **kwargs: Any) -> "ScarScorer":
        """Create a scorer from a ranker in memory, with its device and precision."""
        scorer = cls("a ranker in memory", device=model.device, dtype=model.dtype, backend="torch", **kwargs)
        scorer._given = model, tokenizer
        return scorer

    @property
    def in_memory(self) -> bool:
        """Whether the ranker exists only in memory, so that other processes and later runs cannot load it."""
        return self._given is not None

    @property
    def model(self) -> ScarModel:
        """The ranker; loaded at first access. It may be changed: no other scorer uses it."""
        return self._load(own=True).model

    @property
    def config(self) -> ScarConfig:
        """The ranker's configuration; the ranker is loaded at first access."""
        return self._load().model.config

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The ranker's tokenizer; loaded at first access."""
        return self._load().tokenizer

    @property
    def backend(self) -> str:
        """The backend that runs the encoder: `"torch"` or `"openvino"`."""
        if self._backend == "auto":
            if self.settings.attn_implementation is not None:
                self._backend = "torch"
            else:
                config = read_config(resolve_checkpoint(self.model_name), self.settings.revision)
                self._backend = default_backend(config, self.device, self.dtype)
        return self._backend

    @property
    def read_length(self) -> int:
        """Maximum number of tokens read per text, including special tokens."""
        if self.settings.max_length is not None:
            return self.settings.max_length
        known = self._given[0] if self._given is not None else self._loaded.model if self._loaded is not None else None
        if known is not None:
            return known.config.max_length
        return read_config(resolve_checkpoint(self.model_name), self.settings.revision).max_length

    @overload
    def score(self, instructions: str, responses: str, progress: bool = False) -> float: ...  # type: ignore[overload-overlap]

    @overload
    def score(
        self, instructions: Sequence[str | None], responses: Sequence[str | None], progress: bool = False
    ) -> np.ndarray: ...

    def score(self, instructions: Any, responses: Any, progress: bool = False) -> np.ndarray | float:
        """
        Score pairs, or one pair.

        Args:
            instructions (`Sequence[str]` or `str`): n instructions, or one; `None` raises an error.
            responses (`Sequence[str]` or `str`): their n responses, or one; `None` and empty responses raise an error.
            progress (`bool`, *optional*, defaults to `False`): whether to show a progress bar.

        Returns:
            `np.ndarray` of shape `(n,)`, float32, in input order; a `float` for one pair. Higher is better; scores are
            unbounded.

        Raises:
            `ValueError`: if the lengths differ, a text is missing or not a string, a response is empty, or a score is not
            finite.
        """
        one = isinstance(instructions, str), isinstance(responses, str)
        if any(one):
            if not all(one):
                raise ValueError("Pass one instruction and one response, or lists of both.")
            return float(self.score([instructions], [responses], progress)[0])
        instructions, responses = list(instructions), list(responses)
        if len(instructions) != len(responses):
            raise ValueError(
                f"`instructions` and `responses` must have the same length, got {len(instructions)} and {len(responses)}."
            )
        pairs = zip(instructions, responses, strict=True)
        rows = [RowPairs((pair,), pair_problem(*pair)) for pair in pairs]
        check_rows(rows)
        with tqdm(total=len(rows), desc="Scoring", unit="row", disable=hidden(progress)) as bar:
            results = [result.scores for _, result in self.score_chunks(cut_chunks(rows), bar=bar)]
        scores = np.concatenate(results) if results else np.empty(0, dtype=np.float32)
        wrong = np.flatnonzero(~np.isfinite(scores))
        if len(wrong):
            raise ValueError(
                f"{len(wrong)} of {len(scores)} scores are not finite, the first at row {wrong[0]}: {self._weights_advice()}"
            )
        return scores

    def __call__(self, batch: Any) -> Any:
        """
        Score a row, or a batch of rows: what `ds.map(scorer)` and `ds.map(scorer, batched=True)` call. Adds the column
        `scar_score`, float32, null where a row cannot be scored. With `batched=True` it is many times faster.
        """
        columns, is_batch = as_columns(batch, self.reader)
        rows = self.reader.read(columns)
        if self.settings.strict:
            check_rows(rows)
        results = [result.scores for _, result in self.score_chunks(cut_chunks(rows))]
        scores = np.concatenate(results) if results else np.empty(0, dtype=np.float32)
        problems = [row.problem or NOT_FINITE for row, score in zip(rows, scores, strict=True) if not np.isfinite(score)]
        if problems and not self._warned:
            self._warned = True
            reasons = "; ".join(sorted(set(problems)))
            logger.warning("%d of %d rows have no score: %s. Later ones are not reported.", len(problems), len(rows), reasons)
        return add_scores(batch, SCORE_COLUMN, scores, is_batch)

    def score_chunks(
        self, chunks: Iterable[Chunk], cache: ScoreCache | None = None, bar: tqdm | None = None
    ) -> Iterator[tuple[Chunk, ChunkScores]]:
        """
        Score a stream of chunks, with a few in memory at a time.

        Args:
            chunks (`Iterable[Chunk]`): from [`~scar_hf.scoring.chunks.cut_chunks`].
            cache ([`ScoreCache`], *optional*): the score cache.
            bar (`tqdm`, *optional*): a progress bar that counts rows.

        Returns:
            `Iterator` of the chunks in input order, each with its [`~scar_hf.scoring.cache.ChunkScores`].

        Raises:
            `ValueError`: if no score of a chunk is finite, which means that the weights are bad.
        """
        waiting: deque[_Work] = deque()
        in_work: set[bytes] = set()
        stop = Event()
        self._threads = torch.get_num_threads()
        executor = lasting_threads(_LOOKAHEAD, "scar-chunk")
        with one_thread_per_operation():
            try:
                for chunk in chunks:
                    part = PartlyScored.of(chunk.digests, chunk.scorable, cache, in_work)
                    if bar is not None:
                        bar.update(len(chunk.rows) - len(part.missing))
                    computed = chunk.of(part.missing)
                    in_work.update(computed.digests)
                    future = executor.submit(self._score_chunk, computed, stop, bar) if computed.rows else None
                    waiting.append((chunk, part, future))
                    if len(waiting) > _LOOKAHEAD:
                        yield self._finished(waiting.popleft(), cache, in_work, stop)
                while waiting:
                    yield self._finished(waiting.popleft(), cache, in_work, stop)
            finally:
                stop.set()  # after an error or interrupt, cancel the running work
                wait([future for *_, future in waiting if future is not None and not future.cancel()])

    def encode_rows(self, rows: Iterable[RowPairs], bar: tqdm | None = None) -> np.ndarray:
        """
        Encode rows without scoring them. `scorer.model.rank` scores the vectors, and
        [`~scar_hf.selecting.diversity.content_space`] compares those of the texts.

        Args:
            rows (`Iterable[RowPairs]`): n rows, read one by one.
            bar (`tqdm`, *optional*): a progress bar that counts rows.

        Returns:
            `np.ndarray` of shape `(n, 3, H)`, float32: text vectors of instruction and response, and the maximum over the
            response's tokens, averaged over a row's pairs; NaN for rows without pairs.
        """
        hidden_size, pooling = self.config.hidden_size, self.config.pooling
        with one_thread_per_operation():
            parts = [encode_chunk(chunk, self._encoder, self._tokens_of, pooling, bar) for chunk in cut_chunks(rows)]
        return np.concatenate(parts) if parts else np.empty((0, 3, hidden_size), dtype=np.float32)

    def cache(self, folder: str | None = None) -> ScoreCache:
        """Return the [`~scar_hf.scoring.cache.ScoreCache`] for this scorer."""
        settings = self.identity() | {name: version(name) for name in ("torch", "transformers", "tokenizers")}
        # Settings for reading rows affect only the texts, which are part of the cache key themselves.
        for name in settings_that_decide(ROWS):
            settings.pop(name)
        return ScoreCache(settings, folder)

    def identity(self) -> dict[str, Any]:
        """
        Return everything that this scorer's scores depend on: version, weights, precision, lengths, and how rows are read.
        Device and batch size are not included.

        Returns:
            `dict[str, Any]`: the identity for fingerprints and manifests.

        Raises:
            `TypeError`: if the ranker exists only in memory.
        """
        if self.in_memory:
            raise TypeError(
                "A scorer created from a model in memory cannot be sent to other processes. Save the ranker and load it from "
                "its folder."
            )
        own = {
            "scar_hf": __version__,
            # The loaded weights count, even if the folder has changed since.
            "weights": self._identity or checkpoint_identity(resolve_checkpoint(self.model_name), self.settings.revision),
            "conversion": self._conversion(),
        }
        return own | {name: self._meaning(name) for name in settings_that_decide(SCORES, ROWS)}

    def describe(self) -> dict[str, Any]:
        """Return [`ScarScorer.identity`] with the ranker's name and revision for manifests; without it for one in memory."""
        identity = {} if self.in_memory else self.identity()
        return identity | {"model": self.model_name, "revision": self.settings.revision, "max_length": self.read_length}

    def _meaning(self, name: str) -> Any:
        """Resolve a setting for this ranker and machine."""
        if name == "formatting_func":
            func = self.settings.formatting_func
            return None if func is None else Hasher.hash(func)
        meant = {"backend": self.backend, "dtype": self._precision, "max_length": self.read_length}
        return (meant | {"columns": self.reader.columns}).get(name, getattr(self.settings, name))

    def _score_chunk(self, chunk: Chunk, stop: Event, bar: tqdm | None = None) -> ChunkScores:
        loaded = self._load()
        return score_chunk(chunk, loaded.model, loaded.encoder, self._tokens_of, stop, bar)

    def _finished(self, work: _Work, cache: ScoreCache | None, in_work: set[bytes], stop: Event) -> tuple[Chunk, ChunkScores]:
        chunk, part, future = work
        computed = future.result() if future is not None else None
        result = part.complete(computed, lambda places: self._score_chunk(chunk.of(places), stop), cache)
        if computed is not None and np.isnan(result.scores).all():
            raise ValueError(f"No score of {len(chunk.rows)} rows is finite: {self._weights_advice()}")
        in_work.difference_update(chunk.digests[i] for i in part.missing)
        return chunk, result

    def _tokens_of(self, texts: list[str]) -> TokenizedTexts:
        loaded = self._load()
        with loaded.tokenizing:
            return tokenize(loaded.tokenizer, texts, self.read_length, self.settings.truncation, loaded.words)

    def _load(self, own: bool = False) -> LoadedRanker:
        """Return the ranker; loaded at first use. With `own`, it is this scorer's alone."""
        with self._loading:
            # The scorer's limit; this thread itself is limited to one.
            threads = self._threads or torch.get_num_threads()
            if self._loaded is None and self._given is not None:
                encoder = make_encoder(*self._given, self.settings, "", self.backend, self._precision, threads)
                self._loaded = LoadedRanker(*self._given, encoder)
            elif self._loaded is None or (own and self._loaded.is_shared):
                hardware = (self.backend, self.device, self.dtype, threads)
                self._loaded = loaded_ranker(self.settings, *hardware, self._identity, own)
                self._identity = self._loaded.identity
            if own:
                release(self._loaded)
            return self._loaded

    @property
    def _encoder(self) -> Any:
        return self._load().encoder

    @property
    def _precision(self) -> str:
        return precision_name(self.dtype)

    def _conversion(self) -> str | None:
        """Return the key of the converted model, or `None` if PyTorch runs the original."""
        if self.backend == "torch":
            return None
        if self._loaded is not None:
            return self._encoder.key
        from .encoders.openvino_conversion import conversion_key

        return conversion_key(resolve_checkpoint(self.model_name), self.settings.revision, self._precision)

    def _weights_advice(self) -> str:
        return (
            f"the ranker {self.model_name!r} has bad weights, or needs more precision than {self.dtype}. Try dtype='float32'."
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle only what scores depend on: pickles stay small and fingerprints stable."""
        given = {name: getattr(self.settings, name) for name in ("model", "revision", "formatting_func")}
        return self.identity() | given

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**{name: value for name, value in state.items() if name in BY_NAME})  # type: ignore[misc]
        self._identity = state["weights"]
