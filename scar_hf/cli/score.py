"""`scar-hf score`: add the column scar_score."""

import argparse

from .common import add_scoring_arguments, rank_from

HELP = "score every row and write all of them with a column scar_score"
EXAMPLE = "scar-hf score data.jsonl -o scored.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_scoring_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Score and write."""
    from ..files import write_dataset

    ranking = rank_from(args)
    path = write_dataset(ranking.dataset, args.output, args.overwrite)
    without = f", {len(ranking.skipped):,} of them without a score" if ranking.skipped else ""
    print(f"Scored {len(ranking):,} rows{without}. Wrote {path}.")
    return 0
