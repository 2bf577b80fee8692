"""Measure the peak memory of selecting from a Parquet folder, by number of rows."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer, BertConfig

from scar_hf import ScarConfig, ScarModel
from scar_hf.files import Shard, columns_of, open_shards
from scar_hf.rows.pairs import PairReader
from scar_hf.rows.source import rows_of_shard
from scar_hf.scoring.checkpoints import resolve_checkpoint
from scar_hf.selecting.audit import audit_in_words

_SHARD_ROWS = 50_000


def main() -> int:
    """Write the folders, select from each in a separate process, and print time and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, nargs="+", help="real texts, which are repeated with variations")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 1_000_000], help="(default: %(default)s)")
    parser.add_argument(
        "--real-rows", type=int, default=2_000, help="rows that the bundled ranker scores (default: %(default)s)"
    )
    parser.add_argument("-k", default="0.1", help="(default: %(default)s)")
    parser.add_argument("--prefilter", help="share of the rows that the bundled ranker scores, as for scar-hf select")
    args = parser.parse_args()

    rows_of_data = (row for data in args.data for shard in open_shards(data) for row in rows_of_shard(shard, _reader(shard)))
    texts = [row.pairs[0] for row in rows_of_data if not row.problem]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small = _small_ranker(folder / "small-ranker")
        print(f"{len(texts):,} texts of {', '.join(args.data)}")
        print(f"{'ranker':>16} {'rows':>10} {'GB':>6} {'seconds':>8} {'rows/s':>8} {'peak MB':>8}")
        for ranker, rows in [("scar-ranker", args.real_rows), *((str(small), rows) for rows in args.rows)]:
            data = _write(folder / f"data-{rows}-{Path(ranker).name}", texts, rows)
            size = sum(file.stat().st_size for file in data.iterdir()) / 1e9
            output = folder / f"out-{rows}-{data.name}"
            command = ["select", str(data), "-k", args.k, "-o", str(output), "--quiet", "--model", ranker]
            command += ["--prefilter", args.prefilter] if args.prefilter and ranker == "scar-ranker" else []
            seconds, peak = _measure(command, folder / "cache")
            print(
                f"{Path(ranker).name:>16} {rows:>10,} {size:>6.2f} {seconds:>8.1f} {rows / seconds:>8.0f} {peak:>8.0f}",
                flush=True,
            )
            account = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["selection"].get("prefilter")
            if account is not None:
                print(audit_in_words(account), flush=True)
    return 0


def _reader(shard: Shard) -> PairReader:
    """Return a reader for a shard; if there is a column of human responses, it reads those."""
    names = next((list(columns_of(batch)) for batch in shard.batches()), [])
    return PairReader(("instruction", "human") if "human" in names else None)


def _write(folder: Path, texts: list[tuple[str, str]], rows: int) -> Path:
    """Write distinct rows, so that no score is cached and no text is encoded twice."""
    folder.mkdir()
    for shard, start in enumerate(range(0, rows, _SHARD_ROWS)):
        table = [_variation(texts, i) for i in range(start, min(rows, start + _SHARD_ROWS))]
        pq.write_table(pa.Table.from_pylist(table), folder / f"part-{shard:04}.parquet", row_group_size=5000)
    return folder


def _variation(texts: list[tuple[str, str]], i: int) -> dict:
    """Return a text with a number in the instruction, and a few words of the response left out."""
    instruction, response = texts[i % len(texts)]
    repeat = i // len(texts)
    words = response.split(" ")
    left_out = {(repeat * step) % len(words) for step in (7, 13, 29)} if repeat and len(words) > 8 else set()
    kept = (word for place, word in enumerate(words) if place not in left_out)
    return {"id": i, "instruction": f"{instruction} ({repeat})", "response": " ".join(kept)}


def _small_ranker(folder: Path) -> Path:
    """Save a ranker with random weights that reads 32 tokens; only the encoder differs from a real ranker's work."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint("scar-ranker"))
    encoder = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    ScarModel(ScarConfig(encoder_config=encoder, max_length=32)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _measure(arguments: list[str], cache: Path) -> tuple[float, float]:
    """Return the seconds and peak resident megabytes of a command in a separate process."""
    code = (
        "import json, resource, sys\nfrom scar_hf.cli import main\nstatus = main(sys.argv[1:])\n"
        "print(json.dumps([status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))"
    )
    env = {**os.environ, "SCAR_HF_CACHE": str(cache)}
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=env, stderr=subprocess.DEVNULL
    )
    seconds = time.monotonic() - start
    status, peak = json.loads(run.stdout.splitlines()[-1])
    if status:
        raise SystemExit(f"scar-hf {' '.join(arguments)} failed with status {status}.")
    return seconds, peak


if __name__ == "__main__":
    sys.exit(main())
