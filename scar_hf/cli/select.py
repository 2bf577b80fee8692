"""`scar-hf select`: keep the best rows."""

import argparse

from .common import add_scoring_arguments, rank_from

HELP = "keep the best k of an instruction set, all columns, in their order"
EXAMPLE = "scar-hf select data.jsonl -k 0.1 -o selected.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_scoring_arguments(parser)
    parser.add_argument(
        "-k", type=_number, required=True, metavar="K", help="share in (0, 1] like 0.1 or 1.0, or a count >= 1 like 500"
    )
    parser.add_argument("--by", metavar="COLUMN", help="column to break the summary down by, e.g. source")
    parser.add_argument("--quiet", action="store_true", help="print no summary")


def run(args: argparse.Namespace) -> int:
    """Rank, select, write and show."""
    from ..files import write_dataset
    from ..ranking import count_of
    from .summary import print_summary

    count_of(args.k, 1 if isinstance(args.k, float) else 10**18)
    ranking = rank_from(args)
    if args.by and args.by not in ranking.dataset.column_names:
        raise ValueError(f"--by names the column {args.by!r}, but the data has {ranking.dataset.column_names}.")
    path = write_dataset(ranking.top(args.k), args.output, args.overwrite)
    if not args.quiet:
        print_summary(ranking, args.k, str(path), by=args.by, columns=args.columns, turn=args.turn)
    return 0


def _number(text: str) -> float:
    """A count where the text is a whole number, else a share: 1 is one row, 1.0 is all of them."""
    try:
        return int(text)
    except ValueError:
        return float(text)
