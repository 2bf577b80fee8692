"""The bundled ranker does on the shipped example, which it was not trained on, what a ranker is for."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scar_hf import ScarRanking, scar_rank
from scar_hf.files import read_dataset
from scar_hf.scoring.checkpoints import resolve_checkpoint
from scar_hf.training.negatives import HELD_OUT_REFUSALS

EXAMPLE = Path(__file__).parent.parent / "examples" / "mixed_styles" / "mixed_styles.jsonl"


@pytest.fixture(scope="module")
def ranking(scorer) -> ScarRanking:
    """60 rows of each kind, scored."""
    ds = read_dataset(EXAMPLE)
    kinds = np.array([source.split()[-1] for source in ds["source"][:]])
    rows = np.sort(np.concatenate([np.flatnonzero(kinds == kind)[:60] for kind in ("human", "direct", "referenced")]))
    return scar_rank(ds.select(rows), model=scorer, progress=False)


def scores_of(ranking, kind):
    return ranking.scores[[source.endswith(kind) for source in ranking.dataset["source"][:]]]


def wins(above, below):
    """How often a score of the one set is above a score of the other."""
    return float((above[:, None] > below[None, :]).mean())


def test_model_answers_rank_above_human_ones(ranking):
    assert wins(scores_of(ranking, "direct"), scores_of(ranking, "human")) > 0.75
    kept = ranking.top(0.2)["source"][:]
    assert sum(source.endswith("human") for source in kept) < 0.25 * len(kept)  # a third of what came in


def test_length_is_not_the_reason(ranking):
    words = np.array([len(text.split()) for text in ranking.dataset["response"][:]])
    sources = ranking.dataset["source"][:]
    llm, human = (np.flatnonzero([s.endswith(kind) for s in sources]) for kind in ("direct", "human"))
    pairs = [(a, b) for a in llm for b in human if min(words[a], words[b]) >= 0.75 * max(words[a], words[b])]
    assert np.mean([ranking.scores[a] > ranking.scores[b] for a, b in pairs]) > 0.65


def test_refusals_and_empty_phrases_rank_at_the_bottom(ranking, scorer):
    """Texts that training never showed, each against every third answer of the example."""
    instructions, answers = ranking.dataset["instruction"][::3], ranking.scores[::3]
    losses = {}
    for refusal in HELD_OUT_REFUSALS:
        scores = scorer.score(instructions, [refusal] * len(instructions))
        losses[refusal] = float((scores < answers).mean())
    assert np.mean(list(losses.values())) > 0.97 and min(losses.values()) > 0.9, losses


def test_the_score_depends_on_the_instruction(ranking, scorer):
    """Each answer is taken away from its instruction and given to the next of similar length."""
    instructions, responses = ranking.dataset["instruction"][:], ranking.dataset["response"][:]
    order = np.argsort([len(text) for text in responses])
    other = np.empty(len(order), dtype=int)
    other[order] = np.roll(order, 1)
    scores = scorer.score(instructions, [responses[i] for i in other])
    assert (ranking.scores > scores).mean() > 0.9


def test_calibration_and_provenance(ranking, scorer):
    config = scorer.model.config
    quantiles = np.array(config.calibration["quantiles"])
    assert len(quantiles) == 1001
    assert (np.diff(quantiles) >= 0).all()
    # The example is of the reference set's kind: most of its scores lie within the middle 98 %.
    assert np.mean((ranking.scores > quantiles[10]) & (ranking.scores < quantiles[990])) > 0.9
    assert {"stackoverflow_chatgpt", "scar_open_pairs", "dolly_qwen", "l2r_rewrites"} <= set(config.training["sources"])
    assert scorer.model.dtype == torch.float32


def test_the_card_says_what_must_be_said():
    card = (Path(resolve_checkpoint("scar-ranker")) / "README.md").read_text(encoding="utf-8")
    for expected in ("license: apache-2.0", "all-MiniLM-L6-v2", "CC BY-SA", "none stated", "English", "512", "make ranker"):
        assert expected in card
