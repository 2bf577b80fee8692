"""Train a ranker on triples: data, augmentation, trainer and evaluation; the losses are part of the model."""

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
