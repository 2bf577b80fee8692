"""
Measure near-duplicate detection: recall and precision on rows with planted copies, and time per row as rows grow tenfold.
Compare it with the deduplication of the research code scar-tool. Rows are random mixtures of sentences of `--data`.
"""

import argparse
import json
import random
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scar_hf.curation import NearDuplicates
from scar_hf.files import read_dataset
from scar_hf.rows.pairs import PairReader, RowPairs

NGRAM = 3
# One row in this many has a near-copy (twin).
_TWIN_EVERY = 10
_LOWEST, _HIGHEST = 0.4, 0.95
_BIN = 0.05
_WORD = re.compile(r"\w+")
# Runs in scar-tool's Python: its unmodified function on texts from stdin. Without NLTK's data, sentences are not split first.
_SCAR_TOOL = """
import contextlib, json, os, sys, time
from functools import partial
from nltk import word_tokenize
from style_ranker import dedup
texts, ngram, threshold = json.load(sys.stdin)
note = ""
try:
    word_tokenize("One sentence.")
except LookupError:
    dedup.word_tokenize, note = partial(word_tokenize, preserve_line=True), "NLTK's sentence data is missing and left out"
began = time.process_time()
with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
    clusters = dedup.lsh_near_deduplication(texts, 256, 64, ngram, threshold)
seconds = time.process_time() - began
print(json.dumps({"seconds": seconds, "clusters": [sorted(map(int, cluster)) for cluster in clusters], "note": note}))
"""


@dataclass
class Planted:
    """
    Rows that include planted twins.

    Args:
        rows (`list[RowPairs]`): the rows in random order.
        pairs (`list[tuple[int, int, float]]`): the row numbers of each original and its twin, and their Jaccard similarity.
    """

    rows: list[RowPairs]
    pairs: list[tuple[int, int, float]]


def ngrams(row: RowPairs) -> set[tuple[str, ...]]:
    """Return the word n-grams of a row, without using the hashes under test."""
    words = _WORD.findall(f"{row.instruction}\n{row.response}".lower())
    return {tuple(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}


def jaccard(left: RowPairs, right: RowPairs) -> float:
    """Return the number of shared n-grams of two rows, divided by the number of all their n-grams."""
    a, b = ngrams(left), ngrams(right)
    return len(a & b) / len(a | b)


def read_sentences(path: str) -> tuple[list[str], list[str]]:
    """Return the first lines of the instructions, and the sentences of the responses that have at least four words."""
    ds = read_dataset(path)
    reader, instructions, sentences = PairReader(), [], []
    for start in range(0, len(ds), 1000):
        for row in reader.read(ds[start : start + 1000]):
            if row.problem is None:
                instructions.append(row.instruction.split("\n", 1)[0])
                parts = re.split(r"(?<=[.!?])\s+|\n+", row.response)
                sentences.extend(part for part in parts if len(part.split()) >= 4)
    if len(instructions) < 100 or len(sentences) < 100:
        raise SystemExit(f"--data {path} has {len(sentences)} sentences in {len(instructions)} rows: too few to mix rows from.")
    return instructions, sentences


def plant(count: int, instructions: Sequence[str], sentences: Sequence[str], seed: int) -> Planted:
    """Make rows of random sentences; one in ten has a twin, at a similarity from 0.4 to 0.95."""
    rng = random.Random(seed)
    vocabulary = [word for sentence in rng.choices(sentences, k=2000) for word in sentence.split()]
    rows, twins = [], []
    while len(rows) < count:
        response = " ".join(rng.choices(sentences, k=rng.randint(2, 9)))
        rows.append(RowPairs(((rng.choice(instructions), response),)))
        if len(rows) % _TWIN_EVERY == 0 and len(rows) < count:
            twin = edited(rows[-1], rng.uniform(_LOWEST, _HIGHEST), vocabulary, rng)
            twins.append((len(rows) - 1, len(rows), jaccard(rows[-1], twin)))
            rows.append(twin)
    order = list(range(len(rows)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    return Planted([rows[i] for i in order], [(place[a], place[b], value) for a, b, value in twins])


def edited(row: RowPairs, target: float, vocabulary: Sequence[str], rng: random.Random) -> RowPairs:
    """Replace words of a row one by one until its similarity to the original is at most `target`."""
    instruction, response = row.instruction.split(), row.response.split()
    places = list(range(len(instruction) + len(response)))
    rng.shuffle(places)
    twin = row
    for place in places:
        words, i = (instruction, place) if place < len(instruction) else (response, place - len(instruction))
        words[i] = rng.choice(vocabulary)
        twin = RowPairs(((" ".join(instruction), " ".join(response)),))
        if jaccard(row, twin) <= target:
            break
    return twin


def measure(planted: Planted, threshold: float, seed: int) -> dict[str, Any]:
    """Find the near-duplicates of the rows, and compare them with the planted copies."""
    began, cpu = time.perf_counter(), time.process_time()
    finder = NearDuplicates(threshold, ngram=NGRAM, seed=seed)
    finder.add(planted.rows)
    dropped = finder.dropped()
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
    labels = finder.groups()
    members: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(row)
    # Dropping a row is correct if its similarity to any other row of its group reaches the threshold.
    right = sum(
        any(jaccard(planted.rows[row], planted.rows[other]) >= threshold for other in members[int(labels[row])] if other != row)
        for row in dropped
    )
    found = [(value, labels[a] == labels[b]) for a, b, value in planted.pairs]
    above = [same for value, same in found if value >= threshold]
    just = [same for value, same in found if threshold <= value < threshold + _BIN]
    return {
        "rows": len(planted.rows),
        "threshold": threshold,
        "seconds": seconds,
        "cpu_microseconds_per_row": cpu / len(planted.rows) * 1e6,
        "pairs": len(above),
        "recall": _share(above),
        "recall_just_above": _share(just),
        "dropped": len(dropped),
        "precision": right / len(dropped) if dropped else None,
    }


def run_scar_tool(python: str, planted: Planted, threshold: float, timeout: float) -> dict[str, Any]:
    """Run scar-tool on the rows in its own Python. Raise a `RuntimeError` with the end of its output if it fails."""
    texts = [f"{row.instruction}\n{row.response}" for row in planted.rows]
    try:
        done = subprocess.run(
            [python, "-c", _SCAR_TOOL],
            input=json.dumps([texts, NGRAM, threshold]),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no answer within {timeout:g} seconds (--timeout)") from error
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    answer = json.loads(done.stdout.splitlines()[-1])
    cluster_of = {row: number for number, cluster in enumerate(answer["clusters"]) for row in cluster}
    same = [a in cluster_of and cluster_of[a] == cluster_of.get(b) for a, b, value in planted.pairs if value >= threshold]
    return answer | {"microseconds_per_row": answer["seconds"] / len(texts) * 1e6, "recall": _share(same)}


def _share(values: Sequence[Any]) -> float | None:
    return statistics.fmean(map(bool, values)) if values else None


def _shown(value: float | None, spec: str = ".2%") -> str:
    return "n/a" if value is None else format(value, spec)


def print_quality(results: Sequence[dict[str, Any]], console: Console) -> None:
    """Print one line for each size and threshold."""
    table = Table("rows", "threshold", "twins above", "recall", "just above", "dropped", "precision", "µs/row", "growth")
    first = {result["threshold"]: result["cpu_microseconds_per_row"] for result in reversed(results)}
    for result in results:
        microseconds = result["cpu_microseconds_per_row"]
        table.add_row(
            f"{result['rows']:,}",
            f"{result['threshold']:g}",
            f"{result['pairs']:,}",
            _shown(result["recall"]),
            _shown(result["recall_just_above"]),
            f"{result['dropped']:,}",
            _shown(result["precision"]),
            f"{microseconds:.0f}",
            f"{microseconds / first[result['threshold']]:.2f}",
        )
    console.print(table)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="an instruction set that scar-hf reads, for its sentences")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="(default: 10000 100000)")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8], help="(default: 0.5 to 0.8)")
    parser.add_argument("--repeats", type=int, default=2, help="times that each is measured, the fastest counts (default: 2)")
    parser.add_argument("--scar-tool-python", help="Python of an environment with scar-tool 0.35; left out without it")
    parser.add_argument("--scar-tool-rows", type=int, nargs="+", default=[500, 1000, 2000], help="(default: 500 1000 2000)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that scar-tool may take (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="of the rows and the hashes (default: 0)")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    args = parser.parse_args()
    if min([*args.rows, *args.scar_tool_rows]) < 100:
        parser.error("--rows and --scar-tool-rows must be at least 100.")
    if args.repeats < 1:
        parser.error("--repeats must be at least 1.")
    return args


def main() -> None:
    """Run the comparison."""
    args = parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    instructions, sentences = read_sentences(args.data)
    # Warm up, so that loading and compiling are not counted.
    measure(plant(1000, instructions, sentences, args.seed), 0.8, args.seed)
    sets = [plant(count, instructions, sentences, args.seed) for count in args.rows]
    # Alternate sizes, so that all see a similar machine load, and use the fastest of several runs.
    results = [
        min(
            (measure(planted, threshold, args.seed) for _ in range(args.repeats)),
            key=lambda one: one["cpu_microseconds_per_row"],
        )
        for threshold in args.thresholds
        for planted in sets
    ]
    print_quality(results, console)
    console.print(
        f"peak memory, the texts themselves included: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB"
    )
    compared: list[dict[str, Any]] = []
    for count in args.scar_tool_rows if args.scar_tool_python else ():
        planted = plant(count, instructions, sentences, args.seed)
        own = measure(planted, 0.5, args.seed)
        try:
            tool = run_scar_tool(args.scar_tool_python, planted, 0.5, args.timeout)
        except (RuntimeError, OSError) as error:
            console.print(f"scar-tool, {count:,} rows: {error}", markup=False)
            break
        compared.append({"rows": count, "scar_tool": tool, "scar_hf": own})
        console.print(
            f"{count:,} rows, threshold 0.5: scar-tool {tool['microseconds_per_row']:,.0f} µs/row, recall "
            f"{_shown(tool['recall'])}; scar-hf {own['cpu_microseconds_per_row']:,.0f} µs/row, recall {_shown(own['recall'])}"
            + (f" ({tool['note']})" if tool["note"] else ""),
            markup=False,
            highlight=False,
        )
    if args.json:
        args.json.write_text(json.dumps({"near_duplicates": results, "scar_tool": compared}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
