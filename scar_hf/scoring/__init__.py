"""Scores instruction-response pairs with a ranker."""
