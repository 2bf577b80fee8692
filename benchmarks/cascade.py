"""
Measure the recall and the time of the cascade, and how often its bound on recall holds, by selection and share. The ranker and
the fast ranker score the texts once; audits are repeated with these scores. See README.md next to this file.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from measures import spearman

from scar_hf import ScarScorer, __version__
from scar_hf.files import Shard
from scar_hf.rows.source import RowSource
from scar_hf.scoring.datasets import ScoredRows, join
from scar_hf.selecting.cascade import score_for
from scar_hf.selecting.choice import Choice
from scar_hf.selecting.criteria import Criteria, count_of
from scar_hf.selecting.top_k import top_indices

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
from fast_ranker_texts import Text, held_out_texts, teacher_scores

SELECTIONS, SHARES, TARGETS = (0.007, 0.01, 0.05, 0.1, 0.25), (0.1, 0.2, 0.3, 0.5), (0.95, 0.98)


class Replay:
    """Replays precomputed scores instead of scoring."""

    def __init__(self, exact: np.ndarray, fast: np.ndarray):
        self.exact, self.fast = exact.astype(np.float32), fast.astype(np.float32)
        self.scorer = ScarScorer(device="cpu")
        # The texts are not read again.
        self.shard = Shard("texts", None, Dataset.from_dict({"instruction": [""] * len(exact), "response": [""] * len(exact)}))

    def run(self, criteria: Criteria) -> tuple[dict[str, Any], float]:
        """Select, and return the prefilter report of the manifest and the true recall."""
        exact = top_indices(self.exact, criteria.k)
        scored = join(score_for(Choice(RowSource([self.shard], self.scorer.reader), criteria), self.scorer, self._engine))
        assert scored.prefilter is not None
        kept = top_indices(scored.scores, count_of(criteria.k, len(self.exact)))
        return scored.prefilter.report, len(np.intersect1d(exact, kept)) / len(exact)

    def _engine(self, source: RowSource, scorer: ScarScorer) -> list[ScoredRows]:
        (shard,) = source.shards
        scores = self.exact if scorer is self.scorer else self.fast
        rows = np.arange(len(scores)) if shard.numbers is None else shard.numbers
        return [ScoredRows(scores[rows], np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=np.uint64))]


def main() -> None:
    """Score, repeat the audits, and write the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="the files that recipes/README.md lists")
    parser.add_argument("--scores", type=Path, required=True, help="file of the ranker's scores; continued if it exists")
    parser.add_argument("--audits", type=int, default=200, help="audits of each selection and share (default: 200)")
    parser.add_argument("--timed", type=int, default=400, help="texts that both rankers are timed on (default: 400)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to this file, after each set")
    args = parser.parse_args()
    logging.getLogger("scar_hf").setLevel(logging.ERROR)
    sets = held_out_texts(args.data_dir)
    rng = np.random.default_rng(0)
    size = min(map(len, sets.values()))
    sets["mixture"] = [found[i] for found in sets.values() for i in rng.permutation(len(found))[:size]]
    fast_ranker = ScarScorer("scar-ranker-fast", backend="torch", device="cpu")
    result: dict[str, Any] = {
        "scar_hf": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "data": {},
    }
    for name, texts in sets.items():
        sides = [[getattr(text, side) for text in texts] for side in ("instruction", "response")]
        exact, fast = np.array(teacher_scores(texts, args.scores, "scar-ranker", "auto")), fast_ranker.score(*sides)
        found = {"rows": len(texts), "spearman": spearman(exact, fast)}
        found |= rates(texts[:: max(1, len(texts) // args.timed)], fast_ranker)
        replay = Replay(exact, fast)
        found["shares"] = [
            measure(replay, {"prefilter": share}, k, args.audits, found) for k in SELECTIONS for share in SHARES if share >= k
        ]
        found["targets"] = [
            measure(replay, {"min_recall": target}, k, args.audits, found) for k in SELECTIONS for target in TARGETS
        ]
        result["data"][name] = found
        print_table(name, found)
        if args.json is not None:
            args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def rates(texts: Sequence[Text], fast: ScarScorer) -> dict[str, float]:
    """Return rows per second of processor time, including tokenisation, as elapsed time depends more on other load."""
    sides = [[getattr(text, side) for text in texts] for side in ("instruction", "response")]
    found = {}
    for name, scorer, repeats in (("exact", ScarScorer.from_pretrained("scar-ranker", device="cpu"), 1), ("fast", fast, 10)):
        scorer.score(*([side[0]] * 8 for side in sides))
        # Make all texts distinct, as equal texts are encoded once.
        timed = [[f"{text} {i}" for i in range(repeats) for text in side] for side in sides]
        begin = time.process_time()
        scorer.score(*timed)
        found[f"{name}_rows_per_cpu_second"] = round(repeats * len(texts) / (time.process_time() - begin), 1)
    return found


def measure(replay: Replay, options: dict[str, Any], k: float, audits: int, rate: dict[str, Any]) -> dict[str, Any]:
    """Repeat a selection with different audit seeds, and compare each audit with the true recall."""
    runs = [replay.run(Criteria(k, audit_seed=seed, **options)) for seed in range(audits)]
    n = len(replay.exact)
    recalls = np.array([recall for _, recall in runs])
    reports = {name: np.array([report[name] for report, _ in runs]) for name in runs[0][0] if name not in ("model", "weights")}
    looked = reports["rescored"] + reports["audited"]
    seconds = n / rate["fast_rows_per_cpu_second"] + looked / rate["exact_rows_per_cpu_second"]
    return {
        "k": k,
        **options,
        "rescored": round(float(reports["rescored"].mean() / n), 4),
        "audited": round(float(reports["audited"].mean() / n), 4),
        "recall": round(float(recalls.mean()), 4),
        "lowest_recall": round(float(recalls.min()), 4),
        "expected_recall": round(float(1 - reports["expected_missing"].mean()), 4),
        "recall_bound": round(float(1 - reports["missing_bound"].mean()), 4),
        "bound_holds": round(float(np.mean(recalls >= 1 - reports["missing_bound"] - 1e-9)), 4),
        "times_faster": round(float(n / rate["exact_rows_per_cpu_second"] / seconds.mean()), 2),
    }


def print_table(name: str, found: dict[str, Any]) -> None:
    """Print the measurements of a set as a Markdown table."""
    print(
        f"\n**{name}**: {found['rows']:,} rows, Spearman {found['spearman']:.3f}; rows per second of processor time: ", end=""
    )
    print(f"{found['exact_rows_per_cpu_second']:g} exact, {found['fast_rows_per_cpu_second']:g} fast\n")
    print("| k | option | rescored | audited | recall | lowest | bound | bound holds | times faster |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in [*found["shares"], *found["targets"]]:
        option = next(f"{key} {row[key]:g}" for key in ("prefilter", "min_recall") if key in row)
        cells = [f"{row[key]:.3f}" for key in ("rescored", "audited", "recall", "lowest_recall", "recall_bound", "bound_holds")]
        print(f"| {row['k']:.1%} | {option} | {' | '.join(cells)} | {row['times_faster']:.1f} |")


if __name__ == "__main__":
    main()
