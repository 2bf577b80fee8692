"""Pairs -> scores: the scorer that `ds.map` takes."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets.fingerprint import Hasher
from tqdm.auto import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ._version import __version__
from .chunk_scoring import embed_chunk, score_chunk
from .encoders import TorchEncoder, default_backend, prefer_cpu_attention
from .encoders.torch_encoder import one_thread_per_operation
from .loading import (
    BUNDLED_RANKER,
    as_dtype,
    checkpoint_identity,
    default_device,
    load_ranker,
    read_config,
    resolve_checkpoint,
)
from .modeling import ScarModel
from .pairs import PairReader, RowPairs, check_rows, pair_problem
from .planning import Chunk, cut_chunks
from .score_cache import ChunkScores, ScoreCache
from .tokenization import TokenizedTexts, tokenize

logger = logging.getLogger(__name__)

SCORE_COLUMN = "scar_score"
NOT_FINITE = "the score is not a finite number"
_BACKENDS = ("auto", "torch", "openvino")
# Chunks in flight: while one is computed, the next is tokenised, and its batches fill the cores that the first leaves idle.
_LOOKAHEAD = 2


class ScarScorer:
    r"""
    Scores instruction-response pairs with a SCAR ranker. The model loads at the first use, so that a scorer is cheap to
    make, to hash and to send to workers.

    Args:
        model (`str`, *optional*, defaults to `"scar-ranker"`):
            The bundled ranker by its name, a folder, or a Hub id.
        device (`str` or `torch.device`, *optional*):
            Where to score; by default a GPU if there is one, else the CPU.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"auto"`):
            Precision of the encoder: `"float32"`, `"bfloat16"`, `"float16"`, or `"auto"` for bfloat16 where the device
            computes in it natively and float32 elsewhere; or `"int8"` with OpenVINO, which is `"auto"` for
            `backend="openvino"`. The heads are always float32.
        max_length (`int`, *optional*):
            Tokens of an instruction, and of a response, that are read; by default what the ranker was trained with.
        truncation (`bool`, *optional*, defaults to `True`):
            Whether to read only the first `max_length` tokens of longer texts. With `False` they are read to their end, in
            windows of `max_length` tokens: the maximum over tokens is that of all windows, the first-token vector the first's.
        columns (`dict` or `tuple`, *optional*):
            `{"instruction": NAME, "response": NAME}`, or the two names, for rows of no known format.
        turn (`str`, *optional*, defaults to `"first"`):
            Which assistant turn of a conversation is scored: `"first"`, `"last"`, or `"all"`, the mean over them.
        formatting_func (`Callable`, *optional*):
            Takes a row of any other format and returns `(instruction, response)`; see [`~scar_hf.pairs.PairReader`].
        strict (`bool`, *optional*, defaults to `False`):
            Whether a row that cannot be scored is an error. By default it gets no score, and is counted.
        backend (`str`, *optional*, defaults to `"auto"`):
            What runs the encoder: `"torch"`, `"openvino"` on a CPU (`pip install "scar-hf[cpu]"`), or `"auto"`: OpenVINO
            where it is installed and faster, which is in bfloat16 on CPUs that have it, else PyTorch.
        tokens_per_batch (`int`, *optional*):
            Tokens, padding included, that pass through the encoder at once. Changes the speed, not the scores.
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub id.
        attn_implementation (`str`, *optional*):
            Attention of the encoder, as for `AutoModel.from_pretrained`.

    Example:

    ```python
    >>> from scar_hf import ScarScorer

    >>> scorer = ScarScorer.from_pretrained("scar-ranker")
    >>> scorer.score(["What do bees eat?"], ["Bees eat nectar and pollen."]).shape
    (1,)
    ```
    """

    def __init__(
        self,
        model: str = BUNDLED_RANKER,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int | None = None,
        truncation: bool = True,
        columns: Mapping[str, str] | Sequence[str] | None = None,
        turn: str = "first",
        formatting_func: Callable[[dict[str, Any]], Any] | None = None,
        strict: bool = False,
        backend: str = "auto",
        tokens_per_batch: int | None = None,
        revision: str | None = None,
        attn_implementation: str | None = None,
    ):
        if tokens_per_batch is not None and tokens_per_batch < 1:
            raise ValueError(f"`tokens_per_batch` must be at least 1, got {tokens_per_batch}.")
        if max_length is not None and max_length < 4:
            raise ValueError(f"`max_length` must be at least 4 tokens, got {max_length}.")
        if not isinstance(truncation, bool):
            raise ValueError(f"`truncation` must be True or False, got {truncation!r}.")
        if backend not in _BACKENDS:
            raise ValueError(f"`backend` must be one of {_BACKENDS}, got {backend!r}.")
        self.model_name = str(model)
        self.revision = revision
        if backend == "auto" and as_dtype(dtype, "cpu") == torch.int8:
            backend = "openvino"
        self.device = str(device or ("cpu" if backend == "openvino" else default_device()))
        if backend == "openvino" and torch.device(self.device).type != "cpu":
            raise ValueError(f'backend="openvino" runs on the CPU, got device={device!r}. On a GPU use backend="torch".')
        self.dtype = as_dtype("int8" if backend == "openvino" and dtype == "auto" else dtype, self.device)
        if self.dtype == torch.int8 and backend == "torch":
            raise ValueError('dtype="int8" needs backend="openvino".')
        if backend == "openvino" and self.dtype == torch.float16:
            raise ValueError('backend="openvino" computes in int8, bfloat16 or float32, got dtype="float16".')
        self._backend = backend
        self.max_length = max_length
        self.truncation = truncation
        self.strict = strict
        self.reader = PairReader(columns=columns, turn=turn, formatting_func=formatting_func)
        self.tokens_per_batch = tokens_per_batch
        self.attn_implementation = attn_implementation
        self._model: ScarModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._encoder: Any = None
        self._loading, self._tokenizing = Lock(), Lock()
        self._threads: int | None = None
        self._warned = False

    @classmethod
    def from_pretrained(cls, model: str = BUNDLED_RANKER, **kwargs) -> "ScarScorer":
        """
        Make a scorer and load its ranker at once, so that what is wrong with the checkpoint shows here.

        Args:
            model (`str`, *optional*, defaults to `"scar-ranker"`): as for [`ScarScorer`].
            kwargs: as for [`ScarScorer`].

        Returns:
            [`ScarScorer`].

        Raises:
            `ValueError`: if the checkpoint is not a SCAR ranker, or its weights are missing, extra, unreadable or of
            another shape.
        """
        scorer = cls(model, **kwargs)
        scorer._load()
        return scorer

    @classmethod
    def from_model(cls, model: ScarModel, tokenizer: PreTrainedTokenizerBase, **kwargs) -> "ScarScorer":
        """Make a scorer from a ranker in memory, on the device and in the precision that it has."""
        scorer = cls("in-memory", device=model.device, dtype=model.dtype, backend="torch", **kwargs)
        scorer._model, scorer._tokenizer = model, tokenizer
        return scorer

    @property
    def model(self) -> ScarModel:
        """The ranker, loaded if it was not yet."""
        self._load()
        assert self._model is not None
        return self._model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The ranker's tokenizer, loaded if it was not yet."""
        self._load()
        assert self._tokenizer is not None
        return self._tokenizer

    @property
    def backend(self) -> str:
        """What runs the encoder: `"torch"` or `"openvino"`."""
        if self._backend == "auto":
            if self.attn_implementation is not None:
                self._backend = "torch"
            else:
                config = read_config(resolve_checkpoint(self.model_name), self.revision)
                self._backend = default_backend(config, self.device, self.dtype)
        return self._backend

    @property
    def read_length(self) -> int:
        """Tokens of a text that are read, special tokens included."""
        if self.max_length is not None:
            return self.max_length
        if self._model is not None:
            return self._model.config.max_length
        return read_config(resolve_checkpoint(self.model_name), self.revision).max_length

    def score(self, instructions: Sequence[str | None], responses: Sequence[str | None], progress: bool = False) -> np.ndarray:
        """
        Score pairs.

        Args:
            instructions (`Sequence[str]`): n instructions; `None` is refused with the row's number.
            responses (`Sequence[str]`): their n responses; `None` and empty ones are refused likewise.
            progress (`bool`, *optional*, defaults to `False`): whether to show a bar with rows per second.

        Returns:
            `np.ndarray` of shape `(n,)`, float32, in the order of the input. Higher is better; without a bound.

        Raises:
            `ValueError`: if the lengths differ, a text is missing or not a string, a response is empty, or a score
            comes out as NaN.
        """
        instructions, responses = list(instructions), list(responses)
        if len(instructions) != len(responses):
            raise ValueError(f"Got {len(instructions)} instructions and {len(responses)} responses; they must be as many.")
        pairs = zip(instructions, responses, strict=True)
        rows = [RowPairs((pair,), pair_problem(*pair)) for pair in pairs]
        check_rows(rows)
        with tqdm(total=len(rows), desc="Scoring", unit="row", disable=not progress) as bar:
            results = [result.scores for _, result in self.score_chunks(cut_chunks(rows), bar=bar)]
        scores = np.concatenate(results) if results else np.empty(0, dtype=np.float32)
        wrong = np.flatnonzero(~np.isfinite(scores))
        if len(wrong):
            raise ValueError(
                f"{len(wrong)} of {len(scores)} scores are not finite, the first at row {wrong[0]}: {self._weights_advice()}"
            )
        return scores

    def __call__(self, batch: dict[str, list]) -> dict[str, Any]:
        """
        Score a batch of rows: what `ds.map(scorer, batched=True)` calls. Adds the column `scar_score`, null where a row
        cannot be scored.
        """
        rows = self.reader.read(batch)
        if self.strict:
            check_rows(rows)
        results = [result.scores for _, result in self.score_chunks(cut_chunks(rows))]
        scores = np.concatenate(results) if results else np.empty(0, dtype=np.float32)
        problems = [row.problem or NOT_FINITE for row, score in zip(rows, scores, strict=True) if not np.isfinite(score)]
        if problems and not self._warned:
            self._warned = True
            reasons = "; ".join(sorted(set(problems)))
            logger.warning("%d of %d rows of a batch have no score: %s.", len(problems), len(rows), reasons)
        return {SCORE_COLUMN: score_column(scores).to_pylist()}

    def score_chunks(
        self, chunks: Iterable[Chunk], cache: ScoreCache | None = None, bar: tqdm | None = None
    ) -> Iterator[tuple[Chunk, ChunkScores]]:
        """
        Score chunks of rows as they come, a few at a time in memory.

        Args:
            chunks (`Iterable[Chunk]`): from [`~scar_hf.planning.cut_chunks`].
            cache ([`ScoreCache`], *optional*): where scores are kept and found again.
            bar (`tqdm`, *optional*): a progress bar of rows.

        Returns:
            `Iterator` of the chunks in their order, each with its [`~scar_hf.score_cache.ChunkScores`].

        Raises:
            `ValueError`: if no score of a chunk is a finite number: the weights are bad.
        """
        waiting: deque[tuple[Chunk, Future | ChunkScores]] = deque()
        stop = Event()
        self._threads = torch.get_num_threads()
        with (
            one_thread_per_operation(),
            ThreadPoolExecutor(_LOOKAHEAD, "scar-chunk", initializer=torch.set_num_threads, initargs=(1,)) as executor,
        ):
            try:
                for chunk in chunks:
                    known = cache.get(chunk.digest, len(chunk.rows)) if cache is not None else None
                    if known is not None and bar is not None:
                        bar.update(len(chunk.rows))
                    waiting.append((chunk, known or executor.submit(self._score_chunk, chunk, cache, bar, stop)))
                    if len(waiting) > _LOOKAHEAD:
                        yield _finished(*waiting.popleft())
                while waiting:
                    yield _finished(*waiting.popleft())
            finally:
                stop.set()  # nobody waits for what is still running, if this is an error or an interrupt
                for _, future in waiting:
                    if isinstance(future, Future):
                        future.cancel()

    def embed_rows(self, rows: Iterable[RowPairs], bar: tqdm | None = None) -> np.ndarray:
        """
        Encode rows, without scoring them: what [`~scar_hf.diversity.content_space`] tells near-duplicates by.

        Args:
            rows (`Iterable[RowPairs]`): n rows, read one by one.
            bar (`tqdm`, *optional*): a progress bar of rows.

        Returns:
            `np.ndarray` of shape `(n, 2, H)`, float32: the first-token vectors of instruction and response; of a row with
            several pairs their mean, NaN where it has none.
        """
        hidden_size = self.model.config.hidden_size
        with one_thread_per_operation():
            parts = [embed_chunk(chunk, self._encoder, self._tokens_of, bar) for chunk in cut_chunks(rows)]
        return np.concatenate(parts) if parts else np.empty((0, 2, hidden_size), dtype=np.float32)

    def cache(self, folder: str | None = None) -> ScoreCache:
        """The [`~scar_hf.score_cache.ScoreCache`] of this scorer's scores."""
        settings = self.identity()
        # How rows are read decides what is scored, which the cache knows by its content.
        for name in ("columns", "turn", "formatting_func", "strict"):
            settings.pop(name)
        return ScoreCache(settings, folder)

    def identity(self) -> dict[str, Any]:
        """
        What tells this scorer's scores from another's: version, weights, precision, lengths, and how rows are read.
        Neither the device nor the batch size does.

        Returns:
            `dict[str, Any]`: as it stands in fingerprints and manifests.

        Raises:
            `TypeError`: if the ranker is only in memory.
        """
        if self.model_name == "in-memory":
            raise TypeError(
                "A scorer made from a model in memory cannot be sent to other processes: save the ranker, then load it by "
                "its folder."
            )
        formatting_func = self.reader.formatting_func
        return {
            "scar_hf": __version__,
            "weights": checkpoint_identity(resolve_checkpoint(self.model_name), self.revision),
            "backend": self.backend,
            "dtype": self._precision,
            "conversion": self._conversion(),
            "max_length": self.read_length,
            "truncation": self.truncation,
            "columns": self.reader.columns,
            "turn": self.reader.turn,
            "formatting_func": None if formatting_func is None else Hasher.hash(formatting_func),
            "strict": self.strict,
        }

    def settings(self) -> dict[str, Any]:
        """[`ScarScorer.identity`] with the ranker's name and revision, as manifests have it; of one in memory what is known."""
        identity = {} if self.model_name == "in-memory" else self.identity()
        return identity | {"model": self.model_name, "revision": self.revision, "max_length": self.read_length}

    def _score_chunk(self, chunk: Chunk, cache: ScoreCache | None, bar: tqdm | None, stop: Event) -> ChunkScores:
        result = score_chunk(chunk, self.model, self._encoder, self._tokens_of, stop, bar)
        if np.isnan(result.scores).all() and any(row.problem is None for row in chunk.rows):
            raise ValueError(f"No score of {len(chunk.rows)} rows is finite: {self._weights_advice()}")
        if cache is not None:
            cache.put(chunk.digest, result)
        return result

    def _tokens_of(self, texts: list[str]) -> TokenizedTexts:
        with self._tokenizing:  # a fast tokenizer may be used by one thread at a time
            return tokenize(self.tokenizer, texts, self.read_length, truncation=self.truncation)

    def _load(self) -> None:
        with self._loading:
            if self._encoder is not None:
                return
            path = resolve_checkpoint(self.model_name)
            if self._model is None:
                model = load_ranker(path, self.revision, attn_implementation=self.attn_implementation)
                if self.backend == "torch":
                    model.to(self.device).encoder.to(self.dtype)
                    prefer_cpu_attention(model)
                self._tokenizer = AutoTokenizer.from_pretrained(path, revision=self.revision)
                self._model = model
            limit = getattr(self._model.config.encoder_config, "max_position_embeddings", None)
            if self.max_length and limit and self.max_length > limit:
                raise ValueError(
                    f"`max_length` is {self.max_length}, but the encoder of {self.model_name!r} reads at most {limit} tokens."
                )
            # Not what this thread may use, which is one, but what the scorer may.
            threads = self._threads or torch.get_num_threads()
            if self.backend == "openvino":
                from .encoders.openvino_encoder import OpenVinoEncoder

                options: dict[str, Any] = {} if self.tokens_per_batch is None else {"tokens_per_batch": self.tokens_per_batch}
                self._encoder = OpenVinoEncoder(
                    path, revision=self.revision, precision=self._precision, num_threads=threads, **options
                )
            else:
                pad = getattr(self._tokenizer, "pad_token_id", None)
                self._encoder = TorchEncoder(self._model, pad or 0, self.tokens_per_batch, threads)

    @property
    def _precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _conversion(self) -> str | None:
        """What tells a converted model from another; `None` where the ranker's own is used."""
        if self.backend == "torch":
            return None
        from .encoders.openvino_encoder import conversion_key

        return conversion_key(resolve_checkpoint(self.model_name), self.revision, self._precision)

    def _weights_advice(self) -> str:
        return f"the ranker {self.model_name!r} has bad weights, or {self.dtype} is too narrow for it. Try dtype='float32'."

    def __getstate__(self) -> dict[str, Any]:
        """What tells scores apart, and nothing else: pickles stay small and fingerprints true."""
        state = self.identity() | {"model": self.model_name, "revision": self.revision}
        return state | {"formatting_func": self.reader.formatting_func}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = (
            "model",
            "revision",
            "dtype",
            "max_length",
            "truncation",
            "columns",
            "turn",
            "formatting_func",
            "strict",
            "backend",
        )
        self.__init__(**{name: state[name] for name in names})  # type: ignore[misc]


def scar_score(model: str = BUNDLED_RANKER, **kwargs) -> ScarScorer:
    """
    Make the function that `ds.map` takes to add the column `scar_score`.

    Args:
        model (`str`, *optional*, defaults to `"scar-ranker"`): as for [`ScarScorer`].
        kwargs: as for [`ScarScorer`].

    Returns:
        [`ScarScorer`].

    Example:

    ```python
    >>> ds = ds.map(scar_score(), batched=True)
    ```
    """
    return ScarScorer(model, **kwargs)


def score_column(scores: np.ndarray) -> pa.Array:
    """Scores as a column: null where there is none, as a table would read NaN as a number."""
    return pa.array(scores, type=pa.float32(), mask=~np.isfinite(scores))


def _finished(chunk: Chunk, result: Future | ChunkScores) -> tuple[Chunk, ChunkScores]:
    return chunk, result.result() if isinstance(result, Future) else result
