"""Pairs -> scores: the scorer that `ds.map` takes, with length-sorted batches under a token budget."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ._version import __version__
from .modeling import ScarConfig, ScarModel
from .pairs import PairReader

logger = logging.getLogger(__name__)

BUNDLED_RANKER = "scar-ranker"
SCORE_COLUMN = "scar_score"
_CHECKPOINTS = Path(__file__).parent / "checkpoints"
# Rows whose texts are sorted, encoded and held together: bounds the memory, whatever the size of the data.
_CHUNK_ROWS = 8192


class ScarScorer:
    r"""
    Scores instruction-response pairs with a SCAR ranker. The model loads at the first use, so that a scorer is cheap to
    make, to hash and to send to workers.

    Args:
        model (`str`, *optional*, defaults to `"scar-ranker"`):
            The bundled ranker by its name, a folder, or a Hub id.
        device (`str` or `torch.device`, *optional*):
            Where to score; by default a GPU if there is one, else the CPU.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"float32"`):
            Precision of the computation: `"float32"`, `"bfloat16"` or `"float16"`.
        max_length (`int`, *optional*):
            Tokens of an instruction, and of a response, that are read; by default what the ranker was trained with.
        columns (`dict` or `tuple`, *optional*):
            `{"instruction": NAME, "response": NAME}`, or the two names, for rows of no known format.
        turn (`str`, *optional*, defaults to `"first"`):
            Which assistant turn of a conversation is scored: `"first"` or `"last"`.
        tokens_per_batch (`int`, *optional*, defaults to 8192):
            Tokens, padding included, that pass through the encoder at once. Does not change the scores.
        revision (`str`, *optional*):
            Branch, tag or commit of a Hub id.

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
        dtype: str | torch.dtype = "float32",
        max_length: int | None = None,
        columns: Mapping[str, str] | Sequence[str] | None = None,
        turn: str = "first",
        tokens_per_batch: int = 8192,
        revision: str | None = None,
    ):
        if tokens_per_batch < 1:
            raise ValueError(f"`tokens_per_batch` must be at least 1, got {tokens_per_batch}.")
        self.model_name = str(model)
        self.revision = revision
        self.device = device
        self.dtype = _as_dtype(dtype)
        self.max_length = max_length
        self.reader = PairReader(columns=columns, turn=turn)
        self.tokens_per_batch = tokens_per_batch
        self._model: ScarModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None

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
        scorer = cls("in-memory", device=model.device, dtype=model.dtype, **kwargs)
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
        check_pairs(instructions, responses)
        scores = np.empty(len(responses), dtype=np.float32)
        with tqdm(total=len(responses), desc="Scoring", unit="row", disable=not progress) as bar:
            for start in range(0, len(responses), _CHUNK_ROWS):
                chunk = slice(start, start + _CHUNK_ROWS)
                scores[chunk] = self._score_chunk(instructions[chunk], responses[chunk], bar)
        wrong = np.flatnonzero(~np.isfinite(scores))
        if len(wrong):
            raise ValueError(
                f"{len(wrong)} of {len(scores)} scores are not finite, the first at row {wrong[0]}: the ranker "
                f"{self.model_name!r} has bad weights, or {self.dtype} is too narrow for it. Try dtype='float32'."
            )
        return scores

    def __call__(self, batch: dict[str, list]) -> dict[str, list[float]]:
        """Score a batch of rows: what `ds.map(scorer, batched=True)` calls. Adds the column `scar_score`."""
        instructions, responses = self.reader.read_batch(batch)
        return {SCORE_COLUMN: self.score(instructions, responses).tolist()}

    @torch.inference_mode()
    def _score_chunk(self, instructions: list[Any], responses: list[Any], bar: tqdm) -> np.ndarray:
        """Encode each distinct text once, longest first, then score all pairs."""
        slots: dict[str, int] = {}
        x = torch.tensor([slots.setdefault(text, len(slots)) for text in instructions])
        y = torch.tensor([slots.setdefault(text, len(slots)) for text in responses])
        rows_of = np.bincount(y.numpy(), minlength=len(slots))
        model, max_length = self.model, self.max_length or self.model.config.max_length
        encoded = self.tokenizer(list(slots), truncation=True, max_length=max_length, return_attention_mask=False)
        token_ids = encoded["input_ids"]
        width = model.config.hidden_size
        firsts = torch.empty(len(slots), width, dtype=model.dtype, device=model.device)
        forms = torch.empty_like(firsts)
        for batch in batches_by_tokens([len(ids) for ids in token_ids], self.tokens_per_batch):
            padded = self.tokenizer.pad({"input_ids": [token_ids[i] for i in batch]}, return_tensors="pt").to(model.device)
            first, form = model.encode(padded["input_ids"], padded["attention_mask"])
            firsts[batch], forms[batch] = first.to(firsts.dtype), form.to(forms.dtype)
            bar.update(int(rows_of[batch].sum()))
        scores, _ = model.rank(firsts[x], firsts[y], forms[y])
        return scores.float().cpu().numpy()

    def _load(self) -> None:
        if self._model is not None:
            return
        path = resolve_checkpoint(self.model_name)
        self._model = load_ranker(path, revision=self.revision, dtype=self.dtype).to(self.device or _default_device())
        self._tokenizer = AutoTokenizer.from_pretrained(path, revision=self.revision)
        limit = getattr(self._model.config.encoder_config, "max_position_embeddings", None)
        if self.max_length and limit and self.max_length > limit:
            raise ValueError(
                f"`max_length` is {self.max_length}, but the encoder of {self.model_name!r} reads at most {limit} tokens."
            )

    def __getstate__(self) -> dict[str, Any]:
        """What tells scores apart, and nothing else: pickles stay small and fingerprints true."""
        if self.model_name == "in-memory":
            raise TypeError(
                "A scorer made from a model in memory cannot be sent to other processes: save the ranker, then load it by "
                "its folder."
            )
        return {
            "version": __version__,
            "model_name": self.model_name,
            "weights": _weights_hash(resolve_checkpoint(self.model_name)),
            "revision": self.revision,
            "dtype": str(self.dtype),
            "max_length": self.max_length,
            "columns": self.reader.columns,
            "turn": self.reader.turn,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["model_name"],
            dtype=state["dtype"],
            max_length=state["max_length"],
            columns=state["columns"],
            turn=state["turn"],
            revision=state["revision"],
        )


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


def batches_by_tokens(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """
    Plan batches of similar lengths, the longest first, each of at most `tokens_per_batch` tokens with its padding; a
    text longer than that has a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        count = max(1, tokens_per_batch // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count


def check_pairs(instructions: Sequence[Any], responses: Sequence[Any]) -> None:
    """Raise a `ValueError` that names the rows whose instruction or response cannot be scored."""
    bad = [i for i, pair in enumerate(zip(instructions, responses, strict=True)) if pair_problem(*pair)]
    if bad:
        shown = "; ".join(f"row {i}: {pair_problem(instructions[i], responses[i])}" for i in bad[:5])
        raise ValueError(
            f"{len(bad)} of {len(responses)} rows cannot be scored ({shown}{'; ...' if len(bad) > 5 else ''}). Remove "
            "them, or leave them unscored with skip_invalid=True (--skip-invalid on the command line)."
        )


def pair_problem(instruction: Any, response: Any) -> str | None:
    """Say why a pair cannot be scored; `None` if it can. An empty instruction is allowed, an empty response is not."""
    for name, text in (("instruction", instruction), ("response", response)):
        if text is None:
            return f"the {name} is missing"
        if not isinstance(text, str):
            return f"the {name} is of type {type(text).__name__}, not a string"
    return None if response.strip() else "the response is empty"


def resolve_checkpoint(model: str) -> str:
    """Return the folder of the bundled ranker for its name, any other folder or Hub id as it is."""
    return str(_CHECKPOINTS / model) if model == BUNDLED_RANKER else model


def load_ranker(path: str, revision: str | None = None, dtype: torch.dtype = torch.float32) -> ScarModel:
    """
    Load a ranker strictly, for evaluation.

    Args:
        path (`str`): a folder or Hub id.
        revision (`str`, *optional*): branch, tag or commit of a Hub id.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): precision of the weights in memory.

    Returns:
        [`ScarModel`]: in evaluation mode.

    Raises:
        `ValueError`: if it is no SCAR ranker, or a weight is missing, extra, unreadable or of another shape.
    """
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise ValueError(
            f"{path!r} is not a SCAR ranker: the folder has no config.json. `scar-hf export scar-ranker` writes one."
        )
    try:
        values, _ = ScarConfig.get_config_dict(path, revision=revision)
    except OSError as error:
        raise ValueError(
            f"No SCAR ranker found at {path!r}: it is neither a folder nor a model id that can be reached. "
            f"The bundled ranker is called {BUNDLED_RANKER!r}."
        ) from error
    if values.get("model_type") != ScarConfig.model_type:
        raise ValueError(
            f"{path!r} is a model of type {values.get('model_type')!r}, not a SCAR ranker (type {ScarConfig.model_type!r}). "
            f"Use {BUNDLED_RANKER!r}, or train a ranker from this encoder with `scar-hf train --encoder {path}`."
        )
    try:
        model, info = ScarModel.from_pretrained(path, revision=revision, dtype=dtype, output_loading_info=True)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(
            f"The weights of {path!r} cannot be loaded (damaged, cut off, or of another shape): {error}"
        ) from error
    wrong = {
        name: sorted(map(str, info[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(name)
    }
    if wrong:
        listed = "; ".join(f"{len(keys)} {name.replace('_', ' ')}: {', '.join(keys[:4])}" for name, keys in wrong.items())
        raise ValueError(
            f"The checkpoint {path!r} does not fit its config ({listed}). Scores from it would be wrong: save it again, whole."
        )
    return model.eval()


def _weights_hash(path: str) -> str | None:
    """SHA-256 of a local checkpoint's config and weights; `None` for a Hub id, which its revision identifies."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted([folder / "config.json", folder / "tokenizer.json", *folder.glob("*.safetensors")]):
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"`dtype` must be 'float32', 'bfloat16' or 'float16', got {dtype!r}.")
    return found


def _default_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
