"""`scar-hf explain`: explain why a row is kept or dropped."""

import argparse

from .common import add_choice_arguments, add_method_arguments, add_scoring_arguments, criteria_of, engine_of, load_scorer

HELP = "show how rows rank in a selection and why they are kept or dropped"
EXAMPLE = "scar-hf explain data.jsonl -k 0.1 --row 17"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_scoring_arguments(parser)
    add_method_arguments(parser)
    add_choice_arguments(parser)
    parser.add_argument(
        "--row", type=int, required=True, action="append", metavar="N", help="row number, counted from 0; repeatable"
    )


def run(args: argparse.Namespace) -> int:
    """Score, reusing cached scores of an earlier selection, and explain."""
    from ..runs import explain_rows
    from .terminal import printable

    criteria = criteria_of(args)
    explained = explain_rows(
        args.data,
        load_scorer(args),
        criteria,
        args.row,
        split=args.split,
        cache=not args.no_cache,
        engine=engine_of(args),
    )
    for row in explained:
        print(f"\nrow {row.number:,} of {printable(row.shard)}: {row.decision}\n  {printable(row.reason)}")
        for name, value, low, high in row.measures:
            place = "as" if low <= value <= high else ("less than" if value < low else "more than")
            print(f"  {name}: {value:,.2f}, {place} the middle half of the kept rows ({low:,.2f} to {high:,.2f})")
        for name, text in (("instruction: ", row.instruction), ("response:    ", row.response)):
            print(f"  {name}{printable(' '.join(text.split())[:300])}")
    return 0
