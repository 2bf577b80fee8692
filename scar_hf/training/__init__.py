"""Triples -> a ranker: data, augmentation, trainer and evaluation. The losses are in the model."""

from .evaluation import evaluate_ranker
from .trainer import ScarTrainer, ScarTrainingArguments
from .triples import Triple, TripleDataset, load_triples, split_by_prompt

__all__ = [
    "ScarTrainer",
    "ScarTrainingArguments",
    "Triple",
    "TripleDataset",
    "evaluate_ranker",
    "load_triples",
    "split_by_prompt",
]
