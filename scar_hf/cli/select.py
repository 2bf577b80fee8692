"""`scar-hf select`: keep the best rows."""

import argparse

from .common import (
    add_choice_arguments,
    add_method_arguments,
    add_output_arguments,
    add_scoring_arguments,
    criteria_of,
    run_and_write,
)

HELP = "keep the best rows of an instruction set, with all columns and in their original order"
EXAMPLE = "scar-hf select data.jsonl -k 0.1 -o selected.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_scoring_arguments(parser)
    add_method_arguments(parser)
    add_output_arguments(parser)
    add_choice_arguments(parser)
    parser.add_argument(
        "--sft-format",
        action="store_true",
        help="write rows in a format that TRL's SFTTrainer accepts: messages, or prompt and completion",
    )
    parser.add_argument("--group-by", metavar="COLUMN", help="column by which to break down the summary, e.g. source")


def run(args: argparse.Namespace) -> int:
    """Rank, select, write and print a summary."""
    result = run_and_write(
        args,
        k=criteria_of(args),
        group_by=args.group_by,
        sft_format=args.sft_format,
        observe=not args.quiet,
    )
    if not args.quiet:
        from .summary import print_summary

        print_summary(result)
    return 0
