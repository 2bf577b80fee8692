"""Model and dataset cards, and what goes with them to the Hub."""

from .contents import ranker_contents, ranking_contents, selection_contents
from .model_push import push_model
from .model_section import amend_model_card, model_section
from .push import PushReport, push
from .ranker_card import ranker_card
from .sections import amend_card
from .selection_card import selection_card

__all__ = [
    "PushReport",
    "amend_card",
    "amend_model_card",
    "model_section",
    "push",
    "push_model",
    "ranker_card",
    "ranker_contents",
    "ranking_contents",
    "selection_card",
    "selection_contents",
]
