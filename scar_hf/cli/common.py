"""Options and steps that the commands share."""

import argparse
import logging
from pathlib import Path
from typing import Any

from ..settings import ScorerSettings, add_options

_FORMATS = ".jsonl(.gz, .zst), .json, .csv, .parquet, a folder of such files"


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of everything that scores."""
    parser.add_argument("data", metavar="DATA", help=f"{_FORMATS}, an Arrow folder, or a dataset's id on the Hub")
    parser.add_argument("--split", help="split of a dataset on the Hub (by default train) or of a saved DatasetDict")
    add_options(parser)
    parser.add_argument("--no-cache", action="store_true", help="keep no scores on disk: a run cannot be resumed then")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="ray: on several machines or GPUs")
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="a running Ray cluster, e.g. auto; by default one on this machine"
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of everything that writes rows."""
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=f"{_FORMATS}, or a folder")
    parser.add_argument(
        "--arrow", action="store_true", help="write an output folder as Dataset.save_to_disk does; by default like the data"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument("--overwrite-scores", action="store_true", help="replace a column scar_score that the data has")
    parser.add_argument("--explain", action="store_true", help="add the columns scar_rank, scar_decision and scar_reason")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the rows as a dataset to this repository, too")
    parser.add_argument("--private", action="store_true", help="make the repository private")


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide, besides the score, which rows are kept."""
    group = parser.add_argument_group("curation", "leaves rows out whatever their score; of the extra [curation]")
    group.add_argument("--drop-duplicates", action="store_true", help="of equal rows keep one")
    group.add_argument(
        "--drop-near-duplicates",
        type=float,
        nargs="?",
        const=0.8,
        metavar="JACCARD",
        help="of rows at least as similar keep the best-scored (without a number: %(const)s)",
    )
    group.add_argument(
        "--evaluation", action="append", metavar="DATA", help="leave out rows that overlap with this evaluation set; repeatable"
    )
    group.add_argument("--languages", metavar="CODES", help="leave out rows surely in other languages, e.g. en or en,de")
    group.add_argument(
        "--drop-refusals",
        action="store_true",
        help="leave out responses that refuse, deflect, say nothing, or begin 'As an AI'",
    )
    choice = parser.add_argument_group("choice", "besides the score")
    choice.add_argument("--stratify-by", metavar="COLUMN", help="each value of this column keeps its share of the data")
    choice.add_argument(
        "--diversity",
        type=float,
        default=0.0,
        metavar="D",
        help="0 selects by score alone; values up to 1 favour rows that differ from those already selected (default: 0)",
    )
    group.add_argument("--curation-seed", type=int, default=0, metavar="N", help="of near-duplicates (default: %(default)s)")


def curation_of(args: argparse.Namespace) -> Any:
    """The steps that the arguments ask for, those that judge a row by itself first; `None` without any."""
    near = args.drop_near_duplicates
    if not (args.drop_duplicates or near is not None or args.evaluation or args.languages or args.drop_refusals):
        return None
    from ..curation import Contamination, Curation, ExactDuplicates, Languages, NearDuplicates, Refusals
    from ..files import open_shards
    from ..pairs import PairReader
    from ..runs import rows_of_shard

    steps: list[Any] = []
    if args.languages:
        steps.append(Languages(args.languages.split(",")))
    if args.evaluation:
        # Reasons name the set, not where it lies: they are published with the selection.
        names = [Path(path).name if Path(path).exists() else path for path in args.evaluation]
        names = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]
        shards = {name: open_shards(path) for name, path in zip(names, args.evaluation, strict=True)}
        steps.append(
            Contamination({p: (row for s in found for row in rows_of_shard(s, PairReader())) for p, found in shards.items()})
        )
    if args.drop_refusals:
        steps.append(Refusals())
    if args.drop_duplicates:
        steps.append(ExactDuplicates())
    if near is not None:
        steps.append(NearDuplicates(near, seed=args.curation_seed))
    return Curation(steps)


def number(text: str) -> float:
    """A count where the text is a whole number, else a share: 1 is one row, 1.0 is all of them."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def load_scorer(args: argparse.Namespace) -> Any:
    """Load the ranker, so that what is wrong with it or the options shows before the data is read."""
    logging.basicConfig(format="%(message)s")
    from transformers.utils import logging as transformers_logging

    from ..scoring import ScarScorer

    transformers_logging.disable_progress_bar()  # of loading the weights; the scoring has its own
    return ScarScorer.from_pretrained(**ScorerSettings.from_options(args).as_dict())


def engine_of(args: argparse.Namespace) -> Any:
    """What scores the shards: this process, or Ray."""
    from functools import partial

    from ..runs import score_shards

    if args.ray_address and args.engine != "ray":
        raise ValueError("--ray-address is of --engine ray: pass both.")
    if args.engine == "local":
        return score_shards
    from ..distributed import score_shards_on_ray

    return partial(score_shards_on_ray, address=args.ray_address)


def run_and_write(args: argparse.Namespace, **settings: Any) -> Any:
    """Score, select and write as the arguments say."""
    from ..files import check_output
    from ..runs import find_manifest, select_files

    check_output(args.output, args.overwrite or find_manifest(args.output) is not None)
    result = select_files(
        args.data,
        args.output,
        load_scorer(args),
        explain=args.explain,
        arrow=args.arrow,
        split=args.split,
        overwrite=args.overwrite,
        overwrite_scores=args.overwrite_scores,
        cache=not args.no_cache,
        engine=engine_of(args),
        **settings,
    )
    if result.found:
        print(f"{args.output} is the finished output of this command already; nothing was written.")
    if args.push_to_hub:
        _upload(args, every_row=settings.get("all_rows", False))
        print(f"Uploaded {result.kept:,} rows to {args.push_to_hub}.")
    return result


def _upload(args: argparse.Namespace, every_row: bool) -> None:
    """A selection goes with its manifest, card and pictures; rows that were only scored go as they are."""
    if every_row:
        from ..files import read_dataset

        read_dataset(Path(args.output)).push_to_hub(args.push_to_hub, private=args.private or None)
        return
    from ..hub_cards import push, selection_contents

    def build(repo_id: str, card: str | None, folder: Path) -> Any:
        return selection_contents(args.output, folder, repo_id=repo_id, **({} if card is None else {"card": card}))

    push(build, args.push_to_hub, "dataset", private=args.private or None)
