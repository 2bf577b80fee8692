"""
Compare the speed of scar-hf, the research code scar-tool and a sentence-transformers CrossEncoder, with the same encoder
weights, texts and maximum length, in turns within one run. See README.md next to this file.
"""

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from measures import encoder_operations, matmul_peak, spearman
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import AutoTokenizer, logging
from weights import RANKER, matmul_parameters, ranker_config, write_weights

from scar_hf.files import read_dataset
from scar_hf.rows.pairs import PairReader

BASELINE, REFERENCE = "scar-tool", "scar-hf-fp32"
MAX_LENGTH = 512
# The default of scar-tool.
_TOOL_BATCH = 32
# By name on the command line: the name in the table, and the function in worker.py with its settings.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    BASELINE: ("scar-tool", {"system": "scar_tool"}),
    "cross-encoder": ("CrossEncoder, default", {"system": "cross_encoder"}),
    "cross-encoder-bf16": (
        "CrossEncoder, bf16, batch 128",
        {"system": "cross_encoder", "dtype": "bfloat16", "batch_size": 128},
    ),
    "scar-hf": ("scar-hf, default", {"system": "scar_hf"}),
    REFERENCE: ("scar-hf, float32", {"system": "scar_hf", "dtype": "float32"}),
    "scar-hf-torch": ("scar-hf, PyTorch", {"system": "scar_hf", "backend": "torch"}),
    "scar-hf-int8": ("scar-hf, int8", {"system": "scar_hf", "dtype": "int8"}),
    "scar-hf-fast": ("scar-hf, fast ranker", {"system": "scar_hf", "model": "scar-ranker-fast"}),
    "scar-hf-cascade": ("scar-hf, best 1 %, prefilter 0.03", {"system": "cascade", "k": 0.01, "prefilter": 0.03}),
}


@dataclass
class Worker:
    """A system in a separate process, with its measurements, one entry per round."""

    name: str
    process: subprocess.Popen
    log: Path
    timeout: float
    dtype: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    # First and last row, exclusive, of each round.
    spans: list[tuple[int, int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    computed: int = 0
    real: int = 0
    scores: dict[int, float] = field(default_factory=dict)

    @property
    def runs_all_rows(self) -> bool:
        """Whether the bundled ranker's encoder, and no other, reads every row."""
        return not SYSTEMS[self.name][1].keys() & {"model", "prefilter"}

    @property
    def is_pairwise(self) -> bool:
        """Whether the system reads instruction and response as one text."""
        return SYSTEMS[self.name][1]["system"] == "cross_encoder"

    def receive(self) -> dict[str, Any]:
        """Read one answer. Raise a `RuntimeError` with the system's own message if it failed."""
        # A hanging system must not block this run forever.
        timer = threading.Timer(self.timeout, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        timer.cancel()
        message = json.loads(line) if line else {"error": self._last_words()}
        if "error" in message:
            raise RuntimeError(message["error"])
        return message

    def _last_words(self) -> str:
        if self.process.wait() == -signal.SIGKILL:
            return f"stopped: killed, or no answer within {self.timeout:g} seconds (--timeout)"
        return f"its process ended: {self.log.read_text(encoding='utf-8', errors='replace')[-2000:]}"

    @property
    def selects(self) -> bool:
        """Whether the system selects from many rows, instead of scoring a block."""
        return "prefilter" in SYSTEMS[self.name][1]

    def score(self, start: int, stop: int) -> dict[str, Any]:
        """Score and time the rows from `start` up to, but not including, `stop`."""
        self.process.stdin.write(json.dumps({"start": start, "stop": stop}) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self.receive()

    def stop(self) -> None:
        """Close the process, and kill it if it does not exit."""
        try:
            self.process.stdin.close()  # type: ignore[union-attr]
            self.process.wait(timeout=20)
        except (subprocess.TimeoutExpired, OSError):
            self.process.kill()
            self.process.wait()


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare the scoring speed of scar-hf, scar-tool and CrossEncoder.")
    parser.add_argument("--data", required=True, help="instruction set: .jsonl, .json, .parquet or a datasets folder")
    parser.add_argument("--rows", type=int, default=256, help="pairs from the start of the data for the blocks (default: 256)")
    parser.add_argument("--rounds", type=int, default=3, help="times that every system scores a block (default: 3)")
    parser.add_argument("--block", type=int, help="pairs that are scored in a round (default: all rows, in each round)")
    parser.add_argument(
        "--pool",
        type=int,
        help="pairs from the start of the data that a system with a prefilter selects from in each round (default: the block)",
    )
    parser.add_argument("--warmup", type=int, default=32, help="pairs scored by each system before timing (default: 32)")
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM", help=", ".join(SYSTEMS)
    )
    parser.add_argument("--scar-tool-python", metavar="PATH", help="Python of the environment that has scar-tool")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: torch's)")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for a system to answer (default: 1800)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements to this file")
    args = parser.parse_args()
    args.block = args.block or args.rows
    if args.pool is not None and args.pool < args.block:
        parser.error("--pool must be at least as large as --block.")
    if min(args.rows, args.rounds, args.block, args.threads) < 1:
        parser.error("--rows, --rounds, --block and --threads must be at least 1.")
    args.block, args.warmup = min(args.block, args.rows), min(args.warmup, args.block)
    for option in ("block", "warmup"):
        if BASELINE in args.systems and getattr(args, option) % _TOOL_BATCH == 1:
            parser.error(f"scar-tool 0.35 fails on a last batch of one pair: choose another --{option} (not 32 n + 1).")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here.")
    return args


def read_pairs(path: str, count: int) -> tuple[list[str], list[str], int]:
    """Return the instructions and responses of the first `count` scorable pairs, and the number of skipped rows."""
    ds = read_dataset(path)
    reader, pairs, skipped = PairReader(), [], 0
    for start in range(0, len(ds), 1000):
        for row in reader.read(ds[start : start + 1000]):
            pairs.extend(row.pairs if row.problem is None else ())
            skipped += row.problem is not None
            if len(pairs) >= count:
                break
        if len(pairs) >= count:
            break
    if len(pairs) < count:
        raise SystemExit(f"{path} has {len(pairs)} pairs that can be scored, but --rows or --pool is {count}.")
    return [pair[0] for pair in pairs[:count]], [pair[1] for pair in pairs[:count]], skipped


def start_worker(name: str, python: str, options: dict[str, Any], folder: Path, timeout: float) -> Worker:
    """Start a system's process, without waiting for it to load."""
    log = folder / f"{name}.log"
    command = [python, str(Path(__file__).with_name("worker.py")), json.dumps(options | SYSTEMS[name][1])]
    # Everything is local, and attempts to reach the Hub would only cost time.
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    if python != sys.executable:
        # Another environment must not see this one's packages.
        env.pop("PYTHONPATH", None)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8", env=env
        )
    return Worker(name, process, log, timeout)


def start_workers(
    args: argparse.Namespace, options: dict[str, Any], folder: Path, stack: ExitStack
) -> tuple[list[Worker], list[str]]:
    """Start and warm up the requested systems one by one; add a note for each that cannot run."""
    workers, notes = [], []
    for name in args.systems:
        if name == BASELINE and not args.scar_tool_python:
            notes.append(f"{name}: left out, --scar-tool-python not given")
            continue
        python = args.scar_tool_python if name == BASELINE else sys.executable
        try:
            worker = start_worker(name, python, options, folder, args.timeout)
            stack.callback(worker.stop)
            ready = worker.receive()
            worker.dtype, worker.versions = ready["dtype"], ready["versions"]
            worker.score(0, args.warmup)
        except (RuntimeError, OSError) as error:
            notes.append(f"{name}: left out, {error}")
        else:
            workers.append(worker)
    return workers, notes


def run_rounds(workers: list[Worker], args: argparse.Namespace, console: Console) -> None:
    """Let all systems score a block per round, or select from the pool, starting each round with the next system."""
    for number in range(args.rounds):
        first = number % (args.rows // args.block) * args.block
        if args.pool:  # blocks from all parts of it
            first = number * (args.pool - args.block) // max(1, args.rounds - 1)
        turn = number % len(workers)
        for worker in workers[turn:] + workers[:turn]:
            start, stop = (0, args.pool) if args.pool and worker.selects else (first, first + args.block)
            try:
                answer = worker.score(start, stop)
            except (RuntimeError, OSError) as error:
                raise SystemExit(f"{worker.name} failed in round {number + 1}: {error}") from error
            worker.spans.append((start, stop))
            worker.seconds.append(answer["seconds"])
            worker.computed += answer.get("computed", 0)
            worker.real += answer.get("real", 0)
            worker.scores |= dict(enumerate(answer["scores"], start))
            speed = (stop - start) / answer["seconds"]
            console.print(f"round {number + 1}/{args.rounds}  {worker.name:20} {speed:8.1f} pairs/s", highlight=False)


def count_lengths(instructions: list[str], responses: list[str]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Count each pair's tokens, including special tokens, as two texts (rankers) and as one text (CrossEncoder)."""
    tokenizer = AutoTokenizer.from_pretrained(str(RANKER))
    settings = {"truncation": True, "max_length": MAX_LENGTH}
    x, y = tokenizer(instructions, **settings)["input_ids"], tokenizer(responses, **settings)["input_ids"]
    joined = tokenizer(instructions, responses, **settings)["input_ids"]
    return [(len(a), len(b)) for a, b in zip(x, y, strict=True)], [(len(ids),) for ids in joined]


def summarize(
    worker: Worker,
    workers: dict[str, Worker],
    lengths: list[tuple[int, ...]],
    peaks: dict[str, float | None],
) -> dict[str, Any]:
    """Summarize a system's measurements for its line of the table."""
    config = ranker_config().encoder_config
    shape = (matmul_parameters(config), config.hidden_size, config.num_hidden_layers)
    texts = [[n for pair in lengths[start:stop] for n in pair] for start, stop in worker.spans]
    speeds = [(stop - start) / seconds for (start, stop), seconds in zip(worker.spans, worker.seconds, strict=True)]
    tokens = [sum(block) / seconds for block, seconds in zip(texts, worker.seconds, strict=True)]
    operations = [encoder_operations(block, *shape) / seconds for block, seconds in zip(texts, worker.seconds, strict=True)]
    peak = peaks.get(worker.dtype) if worker.runs_all_rows else None
    result: dict[str, Any] = {
        "dtype": worker.dtype,
        "versions": worker.versions,
        "seconds": worker.seconds,
        "pairs_per_second": {"median": statistics.median(speeds), "min": min(speeds), "max": max(speeds)},
        "real_tokens_per_second": statistics.median(tokens),
        "real_tokens_per_pair": sum(map(sum, texts)) / sum(stop - start for start, stop in worker.spans),
        "padding_share": 1 - worker.real / worker.computed if worker.computed else None,
        "encoder_tokens": {"computed": worker.computed, "real": worker.real} if worker.computed else None,
        "share_of_peak": statistics.median(operations) / peak if peak else None,
        "ratio_to_scar_tool": None,
        "spearman_to_scar_hf_fp32": None,
        "largest_difference_to_scar_hf_fp32": None,
    }
    if BASELINE in workers:
        # By tokens, as a pool is longer than a block.
        theirs = [
            sum(sum(pair) for pair in lengths[start:stop]) / seconds
            for (start, stop), seconds in zip(workers[BASELINE].spans, workers[BASELINE].seconds, strict=True)
        ]
        result["ratio_to_scar_tool"] = statistics.median(own / their for own, their in zip(tokens, theirs, strict=True))
    has_heads = worker.name != BASELINE and not worker.is_pairwise
    if REFERENCE in workers and has_heads and not any(map(math.isnan, worker.scores.values())):
        expected = workers[REFERENCE].scores
        result["spearman_to_scar_hf_fp32"] = spearman(list(expected.values()), [worker.scores[row] for row in expected])
        result["largest_difference_to_scar_hf_fp32"] = max(abs(expected[row] - worker.scores[row]) for row in expected)
    return result


def print_table(results: dict[str, dict[str, Any]], console: Console) -> None:
    """Print one line for each system."""
    table = Table()
    table.add_column("system", no_wrap=True)
    for title in ("dtype", "pairs/s (min-max)", "real tokens/s", "padding", "of peak", "x scar-tool", "rho"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, result in results.items():
        speed = result["pairs_per_second"]
        table.add_row(
            SYSTEMS[name][0],
            result["dtype"],
            f"{speed['median']:.1f} ({speed['min']:.1f}-{speed['max']:.1f})",
            f"{result['real_tokens_per_second']:,.0f}",
            _shown(result["padding_share"], ".1%"),
            _shown(result["share_of_peak"], ".1%"),
            _shown(result["ratio_to_scar_tool"], ".2f"),
            _shown(result["spearman_to_scar_hf_fp32"], ".6f"),
        )
    console.print(table)


def _shown(value: float | None, spec: str) -> str:
    return "n/a" if value is None else format(value, spec)


def _machine(args: argparse.Namespace) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")), cpu
        )
    gpu = torch.cuda.get_device_name() if args.device.startswith("cuda") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "python": platform.python_version(), "torch": torch.__version__}


def main() -> None:
    """Run the comparison."""
    args = parse_args()
    logging.disable_progress_bar()
    log, console = Console(stderr=True), Console()
    if not console.is_terminal:
        # Do not truncate tables to 80 columns in files and pipes.
        console = Console(width=140)
    torch.set_num_threads(args.threads)
    try:
        instructions, responses, skipped = read_pairs(args.data, max(args.rows, args.pool or 0))
    except ValueError as error:
        raise SystemExit(f"--data: {error}") from error
    two_texts, joined = count_lengths(instructions, responses)
    with tempfile.TemporaryDirectory(prefix="scar-hf-benchmark-") as name, ExitStack() as stack:
        folder = Path(name)
        data = folder / "pairs.json"
        data.write_text(json.dumps({"instructions": instructions, "responses": responses}), encoding="utf-8")
        options = {"data": str(data), "device": args.device, "threads": args.threads, "max_length": MAX_LENGTH}
        workers, notes = start_workers(args, options | write_weights(folder), folder, stack)
        if not workers:
            raise SystemExit("No system can run:\n" + "\n".join(notes))
        dtypes = sorted({worker.dtype for worker in workers})
        peaks = {dtype: matmul_peak(dtype, args.device) for dtype in dtypes}
        run_rounds(workers, args, log)
        # Measure again at the end; the better value is less likely to be affected by other load.
        peaks = {dtype: value and max(value, matmul_peak(dtype, args.device) or 0) for dtype, value in peaks.items()}
    by_name = {worker.name: worker for worker in workers}
    results = {
        worker.name: summarize(worker, by_name, joined if worker.is_pairwise else two_texts, peaks) for worker in workers
    }
    print_table(results, console)
    if skipped:
        notes.append(f"{skipped} rows of the data cannot be scored and were passed over")
    for name, result in results.items():
        rows = sum(stop - start for start, stop in by_name[name].spans)
        expected = round(result["real_tokens_per_pair"] * rows)
        counted = result["encoder_tokens"] and result["encoder_tokens"]["real"]
        # scar-hf encodes equal texts once, so it may read fewer tokens; any other difference makes the comparison unfair.
        if counted and (counted > expected or (counted < expected and SYSTEMS[name][1]["system"] != "scar_hf")):
            notes.append(f"{name}: its encoder read {counted} tokens where {expected} were expected")
        if by_name[name].is_pairwise:
            notes.append(
                f"{name}: reads at most {MAX_LENGTH} tokens of a pair, {result['real_tokens_per_pair']:.0f} on average, where "
                f"a ranker reads {sum(map(sum, two_texts)) / len(two_texts):.0f}; its head is random, only its speed counts"
            )
    for dtype, value in peaks.items():
        notes.append(f"matrix-multiply peak in {dtype}: " + ("n/a" if value is None else f"{value / 1e9:,.0f} G operations/s"))
    for note in notes:
        console.print(f"- {escape(note)}", highlight=False)
    if args.json:
        settings = {name: value for name, value in vars(args).items() if name not in ("json", "scar_tool_python")}
        report = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(args),
            "settings": settings | {"data": Path(args.data).name, "max_length": MAX_LENGTH},
            "peak_operations_per_second": peaks,
            "systems": results,
            "notes": notes,
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
