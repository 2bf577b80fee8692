"""
Measure cost and effect of `diversity`: time, scores and near-duplicates kept, compared with selection by score and at random.

    python benchmarks/diversity.py --rows 100000                          # synthetic vectors: how selection scales
    python benchmarks/diversity.py --data FILE.jsonl --rows 5000          # real rows with planted twins
"""

import argparse
import json
import random
import re
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from rich.console import Console
from rich.table import Table

from scar_hf import ScarScorer, scar_rank
from scar_hf.files import read_dataset
from scar_hf.rows.pairs import PairReader
from scar_hf.rows.source import rows_of
from scar_hf.selecting.criteria import count_of
from scar_hf.selecting.diversity import choose, content_space

# One row in this many has a near-copy (twin), in which this share of the words is replaced.
_TWIN_EVERY, _REPLACED = 10, 0.15
# Number of topics of the synthetic set, with very unequal sizes.
_TOPICS, _WIDTH = 3000, 384
_NEAR = 0.6
_WORD = re.compile(r"\w+")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="any data that scar-hf reads; without it vectors and scores are made up")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("-k", type=float, default=0.1, help="share that is kept")
    parser.add_argument("--diversity", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0])
    parser.add_argument("--model", default="scar-ranker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args()
    if args.data:
        scores, vectors, twins, words = real(args.data, args.rows, args.model, args.seed)
    else:
        scores, vectors, twins = made_up(args.rows, args.seed)
        words = None
    n, count = len(scores), count_of(args.k, len(scores))
    space = content_space(vectors)
    found = [
        {"selection": "at random"}
        | quality(np.sort(np.random.default_rng(args.seed).permutation(n)[:count]), scores, space, twins, words)
    ]
    for diversity in args.diversity:
        began = time.perf_counter()
        labels = np.zeros(n, dtype=np.int64)
        kept = choose(scores, np.array([count]), labels, diversity, lambda rows: vectors[rows])
        seconds = time.perf_counter() - began
        found.append({"selection": f"diversity {diversity:g}", "seconds": seconds} | quality(kept, scores, space, twins, words))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    show(found, f"{count:,} of {n:,} rows, one in {_TWIN_EVERY} with a twin; peak {peak:.1f} GiB")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def made_up(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make scores, vectors and the number of each row's twin (-1: none), with rows around topics and twins close together."""
    rng = np.random.default_rng(seed)
    twins = planted(rows, rng)
    centres = rng.normal(size=(_TOPICS, 2, _WIDTH)).astype(np.float32)
    topics = np.minimum(rng.pareto(0.7, rows) * 10, _TOPICS - 1).astype(np.int64)
    vectors = centres[topics] + rng.normal(size=(rows, 2, _WIDTH)).astype(np.float32)
    scores = (rng.normal(size=_TOPICS)[topics] + 2 * rng.normal(size=rows)).astype(np.float32)
    copies = np.flatnonzero(twins >= 0)[1::2]
    vectors[copies] = vectors[twins[copies]] + 0.5 * rng.normal(size=(len(copies), 2, _WIDTH)).astype(np.float32)
    scores[copies] = scores[twins[copies]] + 0.3 * rng.normal(size=len(copies)).astype(np.float32)
    return scores, vectors, twins


def planted(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Return the number of each row's twin, -1 for none; the later of two twins is the copy."""
    twins = np.full(rows, -1)
    pairs = np.arange(rows // _TWIN_EVERY * _TWIN_EVERY).reshape(-1, _TWIN_EVERY)[:, :2]
    twins[pairs[:, 0]], twins[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return twins


def real(data: str, rows: int, model: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[set[str]]]:
    """Return scores, vectors and twins of real rows, and the words of each row."""
    rng = random.Random(seed)
    ds, reader = read_dataset(data), PairReader()
    found = [row for row in rows_of(ds, reader) if row.problem is None]
    rng.shuffle(found)
    pairs = [(row.instruction, row.response) for row in found[:rows]]
    twins = planted(len(pairs), np.random.default_rng(seed))
    vocabulary = [word for pair in pairs for text in pair for word in text.split()]
    for copy in np.flatnonzero(twins >= 0)[1::2].tolist():
        pairs[copy] = tuple(replaced(text, vocabulary, rng) for text in pairs[twins[copy]])
    plain = Dataset.from_dict({"instruction": [x for x, _ in pairs], "response": [y for _, y in pairs]})
    scorer = ScarScorer.from_pretrained(model)
    began = time.perf_counter()
    scores = scar_rank(plain, model=scorer, progress=False, cache=False).scores
    scored = time.perf_counter()
    vectors = scorer.encode_rows(rows_of(plain, reader))[:, :2]
    print(f"{len(pairs):,} rows: scored in {scored - began:.0f} s, encoded in {time.perf_counter() - scored:.0f} s")
    return scores, vectors, twins, [set(_WORD.findall(f"{x} {y}".lower())) for x, y in pairs]


def replaced(text: str, vocabulary: list[str], rng: random.Random) -> str:
    """Replace some words of a text."""
    return " ".join(rng.choice(vocabulary) if rng.random() < _REPLACED else word for word in text.split()) or text


def quality(
    kept: np.ndarray, scores: np.ndarray, space: np.ndarray, twins: np.ndarray, words: list[set[str]] | None
) -> dict[str, Any]:
    """Describe a selection: its scores, the similarity of its rows, and the number kept together with their twins."""
    near = nearest(space[kept])
    found = {
        "mean score": float(scores[kept].mean()),
        "lowest score": float(scores[kept].min()),
        "mean cosine to the nearest": float(near.mean()),
        "near-duplicates": float((near > _NEAR).mean()),
        "planted copies": float((np.isin(twins[kept], kept) & (twins[kept] >= 0)).mean()),
    }
    if words is not None:
        found["half of the words shared"] = float(np.mean(shared([words[i] for i in kept.tolist()])))
    return found


def nearest(space: np.ndarray, block: int = 4096) -> np.ndarray:
    """Return the cosine of each row to its nearest neighbour."""
    best = np.empty(len(space), dtype=np.float32)
    for start in range(0, len(space), block):
        cosines = space[start : start + block] @ space.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -1
        best[start : start + block] = cosines.max(axis=1)
    return best


def shared(words: list[set[str]]) -> list[bool]:
    """Return whether each row shares half of its words (Jaccard) with another row, without using vectors."""
    result = [False] * len(words)
    for i, a in enumerate(words):
        for j in range(i):
            b = words[j]
            if 2 * min(len(a), len(b)) >= max(len(a), len(b)) and 2 * len(a & b) >= len(a | b):
                result[i] = result[j] = True
    return result


def show(found: list[dict[str, Any]], title: str) -> None:
    names = list(dict.fromkeys(name for row in found for name in row))
    table = Table(*names, title=title)
    for row in found:
        table.add_row(*(value(name, row.get(name)) for name in names))
    Console(width=160).print(table)


def value(name: str, found: Any) -> str:
    if found is None or isinstance(found, str):
        return found or ""
    if name == "seconds":
        return f"{found:.1f}"
    return f"{found:.2f}" if "score" in name or "cosine" in name else f"{100 * found:.1f} %"


if __name__ == "__main__":
    raise SystemExit(main())
