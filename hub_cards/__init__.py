"""Model and dataset cards: what a reader on the Hub is told of a selection."""

from .model_section import amend_model_card, model_section
from .sections import amend_card

__all__ = ["amend_card", "amend_model_card", "model_section"]
