"""A ranker in memory -> the Hub, with its card."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contents import ranker_contents
from .push import PushReport, push

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..modeling import ScarModel


def push_model(
    model: "ScarModel",
    repo_id: str,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    commit_message: str | None = None,
    card: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> PushReport:
    """
    Upload a ranker as a model in one commit: weights, config with the code that loads it anywhere, card and calibration plot.
    [`ScarModel.push_to_hub`] is this where scar-hf is installed.

    Args:
        model ([`ScarModel`]): the ranker.
        repo_id (`str`): where to, like `"me/my-ranker"`.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*): goes with it; a ranker cannot be used without one.
        commit_message (`str`, *optional*): of the commit.
        card (`Mapping`, *optional*): what the card says, as for [`~scar_hf.hub_cards.ranker_card`], such as `license`.
        kwargs: as for [`~scar_hf.hub_cards.push`]: `private`, `revision`, `token`, `dry_run`, `overwrite`.

    Returns:
        [`PushReport`].

    Raises:
        `ValueError`, `OSError`: as [`~scar_hf.hub_cards.push`].

    Example:

    ```python
    >>> model.push_to_hub("me/my-ranker", tokenizer=tokenizer, private=True)
    ```
    """

    def build(repo_id: str, found: str | None, folder: Path) -> Mapping[str, Path]:
        saved, made = folder / "model", folder / "made"
        model.save_pretrained(saved)
        if tokenizer is not None:
            tokenizer.save_pretrained(saved)
        return ranker_contents(saved, made, **{"repo_id": repo_id, "card": found, **(card or {})})

    return push(build, repo_id, "model", message=commit_message, **kwargs)
