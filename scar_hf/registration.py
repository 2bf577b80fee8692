"""Makes the ranker known to the Auto classes, and lets its `push_to_hub` write a card."""

from typing import Any

from .modeling import ScarModel


def _upload(model: ScarModel, repo_id: str, **kwargs: Any) -> Any:
    from .hub_cards import push_model

    return push_model(model, repo_id, **kwargs)


# Set from outside: the files that travel with the weights know nothing of cards.
ScarModel.uploader = _upload
