"""Scores texts without the rest of scar-hf: the function behind `ScarModel.score`, and the pipeline."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

# Two special tokens and two of the text.
_SHORTEST = 4


def score_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[str],
    responses: Sequence[str],
    batch_size: int = 32,
    max_length: int | None = None,
) -> torch.Tensor:
    """
    Score n pairs of texts in batches of similar length.

    Args:
        model ([`ScarModel`]): the ranker, on any device. Its training mode is restored afterwards.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the ranker's tokenizer.
        instructions, responses (`Sequence[str]`): the texts; an instruction may be empty, a response may not.
        batch_size (`int`, *optional*, defaults to 32): pairs per batch.
        max_length (`int`, *optional*, defaults to the config's): maximum number of tokens per text.

    Returns:
        `torch.FloatTensor` of shape `(n,)`: float32 on the CPU, in input order.

    Raises:
        `ValueError`: if the lengths differ, a pair cannot be scored, or a setting is out of range.
    """
    instructions, responses = list(instructions), list(responses)
    if len(instructions) != len(responses):
        raise ValueError(
            f"`instructions` and `responses` must have the same length, got {len(instructions)} and {len(responses)}."
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    max_length = _checked_length(model, max_length)
    for row, (instruction, response) in enumerate(zip(instructions, responses, strict=True)):
        _check_pair(instruction, response, f"row {row}")
    scores = torch.empty(len(responses))
    if not responses:
        return scores
    x, y = _token_ids(tokenizer, instructions, max_length), _token_ids(tokenizer, responses, max_length)
    order = sorted(range(len(responses)), key=lambda row: len(x[row]) + len(y[row]))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                inputs = _padded([x[row] for row in rows], "instruction") | _padded([y[row] for row in rows], "response")
                output = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
                scores[rows] = output.scores.float().cpu()
    finally:
        model.train(was_training)
    return scores


class _Rows(Dataset):
    """Wraps a `datasets.Dataset` as a PyTorch dataset, which the base class supports."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]


class ScarRankingPipeline(Pipeline):
    r"""
    The pipeline `scar-ranking`: scores instruction-response pairs, higher is better.

    Takes `{"instruction": str, "response": str}`, or a list, generator or dataset of these, and returns `{"score": float}`
    for each. `max_length` (`int`, *optional*, defaults to the config's) is the maximum number of tokens per text.

    Example:

    ```python
    >>> from transformers import pipeline

    >>> ranker = pipeline("scar-ranking", model="scar-ranker")  # and trust_remote_code=True without scar-hf
    >>> ranker({"instruction": "What do bees eat?", "response": "Bees eat nectar and pollen."})["score"] > 0
    True
    ```
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Score a pair, or each of a list, generator, dataset or stream of pairs."""
        if hasattr(inputs, "column_names"):
            inputs = _Rows(inputs) if hasattr(inputs, "__len__") else (row for row in inputs)
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, max_length: int | None = None, **kwargs: Any) -> tuple[dict, dict, dict]:
        if kwargs:
            raise ValueError(f"The pipeline scar-ranking takes `max_length` and `batch_size`, got {sorted(kwargs)}.")
        return {} if max_length is None else {"max_length": max_length}, {}, {}

    def preprocess(self, inputs: dict[str, str], max_length: int | None = None) -> dict[str, torch.Tensor]:
        """Tokenise a pair."""
        if not isinstance(inputs, dict) or not {"instruction", "response"} <= set(inputs):
            got = sorted(inputs) if isinstance(inputs, dict) else type(inputs).__name__
            raise ValueError(f'Expected {{"instruction": ..., "response": ...}} or a list of these, got {got}.')
        _check_pair(inputs["instruction"], inputs["response"], "the pair")
        max_length = _checked_length(self.model, max_length)
        batches = {name: _token_ids(self.tokenizer, [inputs[name]], max_length) for name in ("instruction", "response")}
        return _padded(batches["instruction"], "instruction") | _padded(batches["response"], "response")

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"scores": self.model(**model_inputs).scores}

    def postprocess(self, model_outputs: dict[str, torch.Tensor]) -> dict[str, float]:
        """Return the score as a number."""
        return {"score": model_outputs["scores"].item()}


def _checked_length(model: PreTrainedModel, max_length: int | None) -> int:
    """Return the maximum number of tokens, by default the config's."""
    if max_length is None:
        return model.config.max_length
    limit = getattr(model.config.encoder_config, "max_position_embeddings", None) or max_length
    if not _SHORTEST <= max_length <= limit:
        raise ValueError(f"`max_length` must be from {_SHORTEST} to {limit}, the encoder's maximum; got {max_length}.")
    return max_length


def _check_pair(instruction: Any, response: Any, where: str) -> None:
    for name, text in (("instruction", instruction), ("response", response)):
        if not isinstance(text, str):
            raise ValueError(f"The {name} of {where} must be a string, got {type(text).__name__}. Remove such rows.")
    if not response.strip():
        raise ValueError(f"The response of {where} is empty: there is no style to score. Remove such rows.")


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int) -> list[list[int]]:
    # Surrogate pairs are combined, and lone surrogates, which cannot be encoded, become U+FFFD.
    texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    return tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]


def _padded(token_ids: list[list[int]], name: str) -> dict[str, torch.Tensor]:
    """Pad token ids and build their mask, as the model's arguments with this prefix."""
    rows = [torch.tensor(ids) for ids in token_ids]
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {f"{name}_input_ids": pad_sequence(rows, batch_first=True), f"{name}_attention_mask": mask}


__all__ = ["ScarRankingPipeline", "score_pairs"]
