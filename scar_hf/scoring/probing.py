"""Detects damaged rankers with a probe: a pair of texts whose tokens and score are stored in the ranker's config."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..files import atomic_write
from ..modeling import ScarConfig, ScarModel

# Mixed case, digits, punctuation, accents and other scripts, on which tokenizers differ.
_INSTRUCTION = "Explain what bees eat, in 2 sentences."
_RESPONSE = (
    "Bees eat nectar & pollen; a café owner might say: “naïve question!” In Python: bees = {'food': [1.5, None]}. Wer nützt "
    "wem? 蜜蜂吃花蜜。 Пчёлы едят нектар."
)
# Tolerances. Storing the bundled ranker's weights in bfloat16 moved its score by .001.
_ABSOLUTE, _RELATIVE = 0.01, 0.02
_MEASURED = ("score", "linguistic_form", "instructional_surprisal")
# Encoders often pad their embeddings to a round number, so the tokenizer may have somewhat fewer tokens.
_LEAST_USED = 0.75


def make_probe(model: ScarModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """
    Tokenise and score the probe.

    Args:
        model ([`ScarModel`]): the ranker, on any device and in any precision.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the ranker's tokenizer.

    Returns:
        `dict`: the value for `ScarConfig.probe`.
    """
    check_sizes(model.config, tokenizer, "the ranker")
    ids = _tokenize(tokenizer, _INSTRUCTION, _RESPONSE, model.config.max_length)
    probe = {"instruction": _INSTRUCTION, "response": _RESPONSE, "instruction_ids": ids[0], "response_ids": ids[1]}
    return probe | model.measure_probe(probe)


def add_probe(folder: str | Path) -> dict[str, Any]:
    """
    Store the probe in the config of a ranker on disk, without changing anything else.

    Args:
        folder (`str` or `Path`): the ranker's folder.

    Returns:
        `dict`: the probe.

    Raises:
        `ValueError`: if the ranker is damaged, or its tokenizer is missing or belongs to another model.
    """
    from .checkpoints import load_ranker, load_tokenizer

    model, tokenizer = load_ranker(str(folder)), load_tokenizer(str(folder))
    path = Path(folder) / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values["probe"] = make_probe(model, tokenizer)
    with atomic_write(path) as out:
        out.write(f"{json.dumps(values, indent=2, sort_keys=True)}\n".encode())
    return values["probe"]


def check_sizes(config: ScarConfig, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise a `ValueError` unless the tokenizer's vocabulary roughly fills the encoder's embeddings without exceeding them."""
    embeddings = getattr(config.encoder_config, "vocab_size", None)
    if embeddings and not _LEAST_USED * embeddings <= len(tokenizer) <= embeddings:
        raise ValueError(
            f"The tokenizer of {name!r} has {len(tokenizer):,} tokens, but its encoder has {embeddings:,} embeddings: "
            "tokenizer files are missing or belong to another model. Save the ranker again, with its tokenizer."
        )


def check_probe(model: ScarModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """
    Check that a ranker's tokenizer matches and that the ranker scores its probe as it did when it was saved. Without a probe,
    only the vocabulary size is checked.

    Args:
        model ([`ScarModel`]): the loaded ranker, in float32.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the loaded tokenizer.
        name (`str`): the ranker's name, for messages.

    Raises:
        `ValueError`: if tokenizer or scores differ.
    """
    check_sizes(model.config, tokenizer, name)
    probe = model.config.probe
    if probe is None:
        return
    advice = "Its scores would be wrong: save it again."
    try:
        stored = [list(map(int, probe[key])) for key in ("instruction_ids", "response_ids")]
        texts = str(probe["instruction"]), str(probe["response"])
        expected = {key: float(probe[key]) for key in _MEASURED}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The probe in the config of {name!r} cannot be read ({error!r}). {advice}") from error
    if [list(ids) for ids in _tokenize(tokenizer, *texts, model.config.max_length)] != stored:
        raise ValueError(f"The tokenizer of {name!r} splits the probe text differently than when it was saved. {advice}")
    measured = model.measure_probe(probe)
    if not all(abs(measured[key] - expected[key]) <= _ABSOLUTE + _RELATIVE * abs(expected[key]) for key in _MEASURED):
        raise ValueError(f"The weights of {name!r} give {measured} for the probe, but gave {expected} when saved. {advice}")


def _tokenize(tokenizer: PreTrainedTokenizerBase, instruction: str, response: str, max_length: int) -> list[list[int]]:
    encoded = tokenizer([instruction, response], truncation=True, max_length=max_length, return_attention_mask=False)
    return [torch.as_tensor(ids).tolist() for ids in encoded["input_ids"]]
