"""Measures of style."""

from .linguistic_form import count_words, type_token_ratio

__all__ = ["count_words", "type_token_ratio"]
