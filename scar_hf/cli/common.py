"""Options and steps that the commands share."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..methods.options import MethodOptions
from ..options import add_options
from ..scoring.settings import ScorerSettings
from ..selecting.criteria import OPTIONS, Criteria
from .terminal import UsageError, usage

_FORMATS = ".jsonl(.gz, .zst), .json, .csv, .parquet, a folder of such files"


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by all commands that score."""
    parser.add_argument("data", metavar="DATA", help=f"{_FORMATS}, an Arrow folder, or a Hub dataset id")
    parser.add_argument("--split", help="split of a Hub dataset (default: train) or of a saved DatasetDict")
    add_options(parser, fields(ScorerSettings))
    parser.add_argument("--no-cache", action="store_true", help="do not cache scores; an interrupted run then starts over")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray uses several machines or GPUs (default: local)"
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="address of a running Ray cluster, or auto; by default, start Ray on this machine",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by all commands that write rows."""
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=f"{_FORMATS}, or a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument("--overwrite-scores", action="store_true", help="replace an existing column scar_score")
    parser.add_argument("--explain", action="store_true", help="add the columns scar_rank, scar_decision and scar_reason")
    parser.add_argument(
        "--safe-csv",
        action="store_true",
        help="in CSV, write an apostrophe before texts that a spreadsheet would run as formulas",
    )
    parser.add_argument("--push-to-hub", metavar="REPO", help="also upload the rows as a dataset to this repository")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors: no summary, notices or bars")


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `-k` and one option for each criterion."""
    group = parser.add_argument_group(
        "criteria", "which rows to keep; --languages and --drop-near-duplicates require the extra [curation]"
    )
    group.add_argument("-k", type=number, metavar="K", help="share in (0, 1], such as 0.1 or 1.0, or count >= 1, such as 500")
    add_options(group, OPTIONS)


def criteria_of(args: argparse.Namespace) -> Criteria:
    """Convert the arguments to criteria."""
    if args.k is None and args.threshold is None:
        raise UsageError("Pass -k (a share or count of rows to keep) or --threshold (the lowest score to keep).")
    with usage():
        return Criteria.from_options(args.k, vars(args))


def number(text: str) -> float:
    """Parse a whole number as a count, anything else as a share: 1 is one row, 1.0 is all rows."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of methods other than SCAR."""
    group = parser.add_argument_group("method", "how to rank rows; see docs/methods.md")
    add_options(group, fields(MethodOptions))


def add_comparison_arguments(parser: argparse.ArgumentParser, k: list[float], methods: list[str], more: str = "") -> None:
    """Add `-k` and `--methods`, with these defaults, for commands that compare the selections of several methods."""
    listed = " ".join(f"{share:g}" for share in k), " ".join(methods)
    parser.add_argument(
        "-k", type=number, nargs="+", default=k, metavar="K", help=f"shares or counts to keep (default: {listed[0]})"
    )
    text = f"as for scar-hf select --method{more} (default: {listed[1]})"
    parser.add_argument("--methods", nargs="+", default=methods, metavar="METHOD", help=text)


def load_scorer(args: argparse.Namespace, **method: Any) -> Any:
    """Load the ranker first, so that errors in it or in the options appear before the data is read."""
    from ..methods import method_scorer
    from ..scoring.scorer import ScarScorer

    with usage():
        settings = ScorerSettings.from_options(args).as_dict()
        if not method and getattr(args, "method", "scar") != "scar":
            method = {found.name: getattr(args, found.name) for found in fields(MethodOptions)}
        if method:
            if getattr(args, "engine", "local") != "local":
                raise ValueError(f"The method {method['method']!r} runs in this process only: leave out --engine.")
            return method_scorer(**method, **settings)
        ScarScorer(**settings)  # loads nothing, but rejects settings that contradict each other
    return ScarScorer.from_pretrained(**settings)


def engine_of(args: argparse.Namespace) -> Any:
    """Return the function that scores the shards, in this process or on Ray."""
    from functools import partial

    from ..runs import score_shards

    if args.ray_address and args.engine != "ray":
        raise UsageError("--ray-address requires --engine ray.")
    if args.engine == "local":
        return score_shards
    from ..distributed import score_shards_on_ray

    return partial(score_shards_on_ray, address=args.ray_address)


def run_and_write(args: argparse.Namespace, **settings: Any) -> Any:
    """Score, select and write according to the arguments."""
    from ..files import check_output
    from ..manifest.sidecars import find_manifest
    from ..runs import select_files

    check_output(args.output, args.overwrite or find_manifest(args.output) is not None)
    result = select_files(
        args.data,
        args.output,
        load_scorer(args),
        explain=args.explain,
        safe_csv=args.safe_csv,
        split=args.split,
        overwrite=args.overwrite,
        overwrite_scores=args.overwrite_scores,
        cache=not args.no_cache,
        engine=engine_of(args),
        **settings,
    )
    if result.found and not args.quiet:
        print(f"{args.output} is already the complete output of this command; nothing was written.")
    if args.push_to_hub:
        _upload(args, every_row=settings.get("all_rows", False))
        if not args.quiet:
            print(f"Uploaded {result.kept:,} rows to {args.push_to_hub}.")
    return result


def _upload(args: argparse.Namespace, every_row: bool) -> None:
    """Upload a selection with manifest, card and images, or scored rows alone."""
    if every_row:
        from ..files import read_dataset

        read_dataset(Path(args.output)).push_to_hub(args.push_to_hub, private=args.private or None)
        return
    from ..hub_cards import push, selection_contents

    def build(repo_id: str, card: str | None, folder: Path) -> Any:
        return selection_contents(args.output, folder, repo_id=repo_id, **({} if card is None else {"card": card}))

    push(build, args.push_to_hub, "dataset", private=args.private or None)
