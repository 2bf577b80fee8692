"""`scar-hf score`: add the column scar_score."""

import argparse

from .common import add_method_arguments, add_output_arguments, add_scoring_arguments, number, run_and_write
from .terminal import UsageError

HELP = "write all rows with their scores in a column scar_score"
EXAMPLE = "scar-hf score data.jsonl -o scored.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_scoring_arguments(parser)
    add_method_arguments(parser)
    add_output_arguments(parser)
    parser.add_argument("-k", type=number, metavar="K", help="with --explain: the share or count that a selection would keep")


def run(args: argparse.Namespace) -> int:
    """Score and write."""
    if args.k is not None and not args.explain:
        raise UsageError("-k requires --explain.")
    result = run_and_write(args, k=args.k, all_rows=True)
    without = f", {len(result.scored.skipped):,} of them without a score" if result.scored.skipped else ""
    if not args.quiet:
        print(f"Scored {result.rows:,} rows{without}. Wrote {result.output}.")
    return 0
