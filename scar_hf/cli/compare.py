"""`scar-hf compare`: compare the selections of different methods."""

import argparse
from dataclasses import fields

from ..methods.options import MethodOptions
from ..options import add_options
from .common import add_comparison_arguments, add_scoring_arguments

HELP = "compare what methods keep: overlap, spread of style, sources, lengths, speed"
EXAMPLE = "scar-hf compare data.jsonl -k 0.05 0.1 0.25 --methods scar random longest -o comparison.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_scoring_arguments(parser)
    add_comparison_arguments(parser, [0.05, 0.1, 0.25], ["scar", "random", "longest", "diversity"])
    add_options(parser, [found for found in fields(MethodOptions) if found.name in ("lm", "seed")])
    parser.add_argument("--group-by", metavar="COLUMN", help="show the share of each value of this column, e.g. source")
    parser.add_argument("--language", default="en", metavar="CODE", help="language of the responses (default: en)")
    parser.add_argument(
        "-o", "--output", default="comparison.html", metavar="PAGE", help="page to write (default: comparison.html)"
    )


def run(args: argparse.Namespace) -> int:
    """Rank by each method, compare, write the page and print the sets."""
    from ..comparison import compare_methods
    from ..files import read_dataset
    from ..scoring.settings import ScorerSettings

    if args.engine != "local":
        raise ValueError(f"scar-hf compare runs in one process, not with --engine {args.engine}. Omit --engine.")
    comparison = compare_methods(
        read_dataset(args.data, args.split),
        args.k,
        args.methods,
        group_by=args.group_by,
        lm=args.lm,
        seed=args.seed,
        language=args.language,
        cache=not args.no_cache,
        **ScorerSettings.from_options(args).as_dict(),
    )
    comparison.save(args.output)
    print(comparison)
    print(f"Wrote {args.output}.")
    return 0
