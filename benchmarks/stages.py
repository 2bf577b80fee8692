"""
Measure the processor time per row of each stage of `scar-hf select`: tokenizing, encoding, heads, cache, and the rest.
Processor time counts all threads and depends less on other load than elapsed time. See README.md next to this file.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from scar_hf import ScarScorer
from scar_hf.cli import main as scar_hf
from scar_hf.files import open_shards, read_dataset, write_dataset
from scar_hf.rows.pairs import PairReader, RowPairs
from scar_hf.rows.source import RowSource
from scar_hf.scoring.cache import ChunkScores
from scar_hf.scoring.checkpoints import load_ranker, resolve_checkpoint
from scar_hf.scoring.tokenization import WordPieces, tokenize

STAGES = ("tokenize", "encode", "heads", "cache", "rest")


def main() -> None:
    """Measure each file, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="instruction sets that scar-hf reads")
    parser.add_argument("--rows", type=int, default=1000, help="rows of each, evenly spread (default: 1000)")
    parser.add_argument("--model", default="scar-ranker")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the measurements to this file")
    args = parser.parse_args()
    result: dict[str, Any] = {"model": args.model, "dtype": args.dtype, "threads": torch.get_num_threads(), "data": {}}
    print(f"| milliseconds of processor time per row | {' | '.join(STAGES)} | together |\n|---|{'---:|' * (len(STAGES) + 1)}")
    for path in args.data:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["SCAR_HF_CACHE"] = str(Path(folder) / "cache")
            found = measure(sample(path, args.rows, Path(folder)), args.model, args.dtype)
        result["data"][path.name] = found
        print(f"| {path.name} | {' | '.join(f'{found[stage]:.3f}' for stage in (*STAGES, 'together'))} |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def sample(path: Path, rows: int, folder: Path) -> Path:
    """Write some of the rows to a new file."""
    ds = read_dataset(path)
    ds = ds.select(range(0, len(ds), max(1, len(ds) // rows))).select(range(min(rows, len(ds))))
    write_dataset(ds, folder / "sample.jsonl")
    return folder / "sample.jsonl"


def measure(path: Path, model: str, dtype: str) -> dict[str, float]:
    """Return milliseconds per row of each stage; `rest` is the time of a whole run beyond the other stages."""
    rows = list(RowSource(list(open_shards(path)), PairReader()).rows())
    scorer = ScarScorer.from_pretrained(model, dtype=dtype, device="cpu")
    scorer.score(["a"] * 8, [f"warm up {i}" for i in range(8)])
    texts = [text for row in rows for pair in row.pairs for text in pair]
    words = WordPieces(scorer.tokenizer) if WordPieces.fits(scorer.tokenizer) else None
    found = {"tokenize": seconds(lambda: tokenize(scorer.tokenizer, texts, scorer.read_length, words=words))}
    encoded = scorer.encode_rows(rows)
    found["encode"] = seconds(lambda: scorer.encode_rows(rows)) - found["tokenize"]
    ranker, vectors = load_ranker(resolve_checkpoint(model)), torch.from_numpy(encoded).unbind(dim=1)
    with torch.inference_mode():
        ranker.rank(*(part[:8] for part in vectors))
        found["heads"] = seconds(lambda: ranker.rank(*vectors))
    found["cache"] = seconds(lambda: through_cache(scorer, rows))
    command = ["select", str(path), "-k", "0.1", "-o", str(path.with_name("out.jsonl")), "--quiet", "--model", model]
    together = seconds(lambda: scar_hf([*command, "--dtype", dtype, "--overwrite"]))
    found |= {"rest": together - sum(found.values()), "together": together}
    return {name: round(1000 * value / len(rows), 4) for name, value in found.items()}


def through_cache(scorer: ScarScorer, rows: Sequence[RowPairs]) -> None:
    """Look up all rows, store them, and look them up again."""
    cache, digests = scorer.cache(str(Path(os.environ["SCAR_HF_CACHE"]) / "other")), [row.digest() for row in rows]
    cache.get(digests)
    cache.put(digests, ChunkScores.empty(len(rows)))
    cache.get(digests)


def seconds(work: Callable[[], Any]) -> float:
    """Return the processor time of some work, in seconds."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
