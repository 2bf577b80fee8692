"""Triples for tests of training."""

import random


def triple_rows(n=60, sources=("web", "lab")):
    """Rows in which an LLM's answers are told from a human's by their words, not by their length."""
    rng = random.Random(0)
    rows = []
    for i in range(n):
        filler = " ".join(rng.choice(["river", "stone", "cloud", "apple"]) for _ in range(rng.randint(3, 12)))
        rows.append(
            {
                "instruction": f"Tell me about topic {i}.",
                "direct": {
                    "model-a": f"Certainly! Here is an overview: {filler}.",
                    "model-b": f"Certainly! An answer: {filler}.",
                },
                "referenced": f"Certainly, {filler} is what i think.",
                "human": f"dunno really {filler} lol",
                "source": sources[i % len(sources)],
                "domain": "open",
            }
        )
    return rows
