"""`scar-hf judge`: rate the responses of triples."""

import argparse
from typing import Any

from .synthesize import add_backend_arguments, add_sampling_arguments, backends_of, sampling_of
from .terminal import UsageError, usage

HELP = "rate the responses of triples for helpfulness and correctness from 0 to 9, with a language model or from columns"
EXAMPLE = "scar-hf judge triples.jsonl -o rated.jsonl --base-url http://127.0.0.1:8000/v1 --model Qwen/Qwen3-32B --check"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("data", metavar="TRIPLES", help="rows with instruction, direct, referenced and human")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="rated rows: .jsonl(.gz, .zst) or a folder; rerun the command to continue an interrupted run",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output that this command did not write")
    add_backend_arguments(parser, required=False)
    add_sampling_arguments(parser, temperature=0.0, max_tokens=200)
    group = parser.add_argument_group("ratings")
    group.add_argument("--judge-prompt", metavar="FILE", help="prompt file with {instruction} and {response}")
    group.add_argument(
        "--ratings-from",
        action="append",
        default=[],
        metavar="MEMBER=COLUMN[,COLUMN]",
        help="take a member's rating from columns, e.g. human=helpfulness,correctness; repeatable",
    )
    group.add_argument(
        "--ratings-scale", default="0,9", metavar="LOW,HIGH", help="range of those columns (default: %(default)s)"
    )
    group.add_argument(
        "--check",
        type=int,
        nargs="?",
        const=50,
        metavar="N",
        help="first test on N answers (default: %(const)s) whether the judge is consistent and recognises bad answers; if not, "
        "rate nothing and exit with status 1",
    )


def run(args: argparse.Namespace) -> int:
    """Optionally check the judge, then rate, write, and report unreadable ratings."""
    from ..synthesis import HumanRatings, Usage, judge_files
    from ..synthesis.judging import JUDGE_PLACEHOLDERS
    from ..synthesis.prompts import load_prompt

    if args.model and len(args.model) > 1:
        raise UsageError(f"Pass --model once: a single model judges. Got {', '.join(args.model)}.")
    if args.check is not None and not args.model:
        raise UsageError("--check requires --model.")
    if not args.model and not args.ratings_from:
        raise UsageError("No judge: name a model (--model), or columns with ratings (--ratings-from).")
    with usage():
        human = HumanRatings(dict(map(_columns, args.ratings_from)), *_scale(args.ratings_scale))
    result, check = judge_files(
        args.data,
        args.output,
        backends_of(args)[0] if args.model else None,
        load_prompt("judge", args.judge_prompt, JUDGE_PLACEHOLDERS) if args.model else None,
        sampling=sampling_of(args),
        usage=Usage(args.max_requests, args.max_total_tokens),
        human=human,
        check=args.check,
        overwrite=args.overwrite,
    )
    if check is not None:
        print(check.table())
    if result is None or (check is not None and check.problem):
        print(f"This judge is useless: {check.problem if check else ''}. Nothing was rated; let the filters alone decide.")
        return 1
    print(_summary(result))
    print(f"Wrote {len(result.rated):,} rated rows to {args.output}; {len(result.unrated):,} have fewer than two ratings.")
    return 0


def _summary(result: Any) -> str:
    lines = []
    for member, counts in result.counts.items():
        others = "".join(f", {what} {n:,}" for what, n in counts.items() if what != "rated")
        lines.append(f"{member}: rated {counts.get('rated', 0):,}{others}")
    lines.append(f"this run: {result.usage.requests:,} requests, {result.usage.tokens:,} tokens")
    lines += [f"{n:,} requests failed: {error}" for error, n in result.usage.failed.items()]
    if result.usage.exhausted:
        lines.append("The budget is used up. Rerun the command with a larger budget to continue.")
    return "\n".join(lines)


def _columns(text: str) -> tuple[str, list[str]]:
    member, _, names = text.partition("=")
    if not member or not names:
        raise UsageError(f"--ratings-from takes MEMBER=COLUMN[,COLUMN], such as human=helpfulness,correctness; got {text!r}.")
    return member, names.split(",")


def _scale(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise UsageError(f"--ratings-scale takes two numbers such as 1,5; got {text!r}.") from error
    return low, high
