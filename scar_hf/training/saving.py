"""Save a trained ranker to a folder that users can load."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..modeling import ScarConfig, ScarModel
from ..scoring.probing import make_probe
from ..scoring.scorer import ScarScorer

_QUANTILES = 1001


def calibration(scorer: ScarScorer, instructions: Sequence[str], responses: Sequence[str], data: str) -> dict:
    """
    Compute the distribution of a ranker's scores over a reference set, for `ScarConfig.calibration`.

    Args:
        scorer ([`ScarScorer`]): the ranker.
        instructions, responses (`Sequence[str]`): the reference set.
        data (`str`): description of the reference set.

    Returns:
        `dict`: 1,001 `quantiles` from share 0 to share 1, `num_rows` and `data`.
    """
    scores = scorer.score(instructions, responses, progress=True)
    quantiles = np.quantile(scores, np.linspace(0, 1, _QUANTILES))
    return {"quantiles": [round(float(q), 5) for q in quantiles], "num_rows": len(scores), "data": data}


def save_ranker(
    model: ScarModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, dtype: torch.dtype = torch.float16
) -> None:
    """
    Save a ranker with its tokenizer. The weights are stored in `dtype`, but the config requests float32, so that the ranker
    runs in single precision by default. The config also holds a probe that detects damaged weights.

    Args:
        model ([`ScarModel`]): the ranker; not modified.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        folder (`str` or `Path`): output folder; created if it does not exist.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float16`): precision of the stored weights.
    """
    stored = deepcopy(model).to(dtype)
    stored.config.probe = None
    stored.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = ScarConfig.from_pretrained(folder)
    config.dtype = config.encoder_config.dtype = torch.float32
    config.encoder_config._name_or_path = ""  # a path on the training machine is of no use to others
    config.probe = make_probe(stored.float(), tokenizer)
    config.save_pretrained(folder)
