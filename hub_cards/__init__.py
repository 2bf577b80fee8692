"""Model and dataset cards, and uploads to the Hub."""

from .contents import push_model, ranker_contents, ranking_contents, selection_contents
from .push import PushReport, push
from .ranker_card import ranker_card
from .selection_card import amend_model_card, selection_card

__all__ = [
    "PushReport",
    "amend_model_card",
    "push",
    "push_model",
    "ranker_card",
    "ranker_contents",
    "ranking_contents",
    "selection_card",
    "selection_contents",
]
