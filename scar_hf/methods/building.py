"""Make scorers from method names."""

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..scoring.scorer import ScarScorer
from .combined import CombinedScorer
from .diversity import DiversityScorer
from .language_model import LM_METHODS, LanguageModelScorer
from .options import COMBINATIONS
from .simple import ColumnScorer, LongestScorer, RandomScorer

METHODS = {
    "scar": "consistency of style, by a SCAR ranker",
    "random": "a draw at random",
    "longest": "the longest responses",
    "perplexity": "the responses that surprise a language model least",
    "ifd": "instruction-following difficulty, by a language model",
    "diversity": "the same number of rows from each cluster",
}
Method = str | Mapping[str, float]

__all__ = ["COMBINATIONS", "METHODS", "Method", "method_scorer", "read_method"]


def read_method(method: Method) -> dict[str, float]:
    """
    Parse a method into names and weights.

    Args:
        method (`str` or `Mapping`):
            A name of `METHODS` or of a column, `{name: weight}`, or the same as text: `"scar=1,ifd=0.5"`.

    Returns:
        `dict[str, float]`: weights by name.

    Raises:
        `ValueError`: if it is empty, or a weight is not a number.

    Example:

    ```python
    >>> read_method("scar=1,ifd=0.5")
    {'scar': 1.0, 'ifd': 0.5}
    ```
    """
    if isinstance(method, str):
        if "=" not in method:
            parts: dict[str, Any] = {method: 1.0}
        else:
            parts = {name.strip(): weight for name, _, weight in (part.rpartition("=") for part in method.split(","))}
    else:
        parts = dict(method)
    try:
        found = {name: float(weight) for name, weight in parts.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"`method` must be a name or {{name: weight}}, got {method!r}.") from error
    if not found or not all(isinstance(name, str) and name for name in found):
        raise ValueError(f"`method` must be a name or {{name: weight}}, got {method!r}.")
    return found


def method_scorer(
    method: Method = "scar",
    *,
    lm: Any = None,
    seed: int = 0,
    combine: str = "reciprocal_rank",
    columns_of_data: Sequence[str] | None = None,
    **settings: Any,
) -> ScarScorer:
    """
    Make a scorer for a method, to pass as `model` wherever a scorer is accepted.

    Args:
        method (`str` or `Mapping`, *optional*, defaults to `"scar"`):
            `"scar"`, `"random"`, `"longest"`, `"perplexity"`, `"ifd"`, `"diversity"`, a column of numbers (higher is
            better), or several with weights, `{"scar": 1, "ifd": 0.5}`; a negative weight favours low scores.
        lm (`str`, `Path`, `PreTrainedModel` or [`~scar_hf.style.Surprisal`], *optional*): for `"perplexity"` and `"ifd"`.
        seed (`int`, *optional*, defaults to 0): seed of `"random"` and `"diversity"`.
        combine (`str`, *optional*, defaults to `"reciprocal_rank"`): how several methods are combined; see [`CombinedScorer`].
        columns_of_data (`Sequence[str]`, *optional*): columns of the data, to check column names.
        settings: as for [`~scar_hf.ScarScorer`].

    Returns:
        [`~scar_hf.ScarScorer`].

    Raises:
        `ValueError`: if there is no such method or column, or a method lacks its language model.

    Example:

    ```python
    >>> from scar_hf.methods import method_scorer

    >>> scar_select(ds, k=0.1, model=method_scorer({"scar": 1, "ifd": 0.5}, lm="HuggingFaceTB/SmolLM2-135M-Instruct"))
    ```
    """
    weights = read_method(method)

    def make(name: str) -> ScarScorer:
        if name == "scar":
            return ScarScorer(**settings)
        if name == "random":
            return RandomScorer(seed, **settings)
        if name == "longest":
            return LongestScorer(**settings)
        if name in LM_METHODS:
            return LanguageModelScorer(name, lm, **settings)
        if name == "diversity":
            return DiversityScorer(seed=seed, **settings)
        if columns_of_data is not None and name not in columns_of_data:
            near = difflib.get_close_matches(name, [*METHODS, *columns_of_data], n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"There is no method and no column {name!r}.{hint} Methods: {', '.join(METHODS)}; columns: "
                f"{json.dumps(list(columns_of_data), ensure_ascii=False)}."
            )
        return ColumnScorer(name, **settings)

    if len(weights) > 1 or min(weights.values()) < 0:
        return CombinedScorer([(make(name), weight) for name, weight in weights.items()], combine, **settings)
    return make(next(iter(weights)))
