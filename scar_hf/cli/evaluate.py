"""`scar-hf evaluate`: compare rankers on held-out triples."""

import argparse
import json
from typing import Any

from ..options import add_options
from ..scoring.settings import BY_NAME
from .terminal import UsageError, usage

HELP = "measure and compare how well rankers order held-out responses"
EXAMPLE = "scar-hf evaluate triples.jsonl --model scar-ranker --model my-ranker -o metrics.json"
_SETTINGS = ("device", "dtype", "backend", "max_length", "tokens_per_batch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "triples",
        nargs="+",
        metavar="TRIPLES",
        help=".jsonl, .json or .parquet: instruction, any two of direct, referenced and human; optionally source and domain",
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="RANKER",
        help="name of the bundled ranker, a folder or a Hub id; repeatable: the first is the baseline for the others "
        "(default: scar-ranker)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write all results to this JSON file")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    parser.add_argument("--max-rows", type=int, metavar="N", help="evaluate at most N rows of each source, evenly spread")
    parser.add_argument(
        "--by",
        choices=("all", "source", "domain"),
        default="source",
        help="print one table for each of these (default: %(default)s)",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="bootstrap samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="bootstrap seed (default: %(default)s)")
    add_options(parser, [BY_NAME[name] for name in _SETTINGS])


def run(args: argparse.Namespace) -> int:
    """Evaluate each ranker, print the tables and write the JSON."""
    from ..training import load_triples

    return evaluate_on(args, [triple for path in args.triples for triple in load_triples(path)])


def evaluate_on(args: argparse.Namespace, triples: list[Any]) -> int:
    """Evaluate on triples in memory."""
    from .._version import __version__
    from ..files import check_output, without_local_folders
    from ..scoring.scorer import ScarScorer
    from ..training.evaluation import evaluate, spread_rows
    from .evaluation_tables import differences, print_evaluations

    models = args.model or ["scar-ranker"]
    if len(set(models)) < len(models):
        raise UsageError(f"--model must not name a ranker twice, got {models}.")
    if args.output:
        if not args.output.endswith(".json"):
            raise UsageError(f"The output must be a .json file, got {args.output}.")
        output = check_output(args.output, args.overwrite)
    if args.max_rows is not None:
        with usage():
            triples = spread_rows(triples, args.max_rows)
    settings: dict[str, Any] = {name: getattr(args, name) for name in _SETTINGS}
    # Load all rankers first, so that a wrong name fails before minutes of scoring.
    scorers = {model: ScarScorer.from_pretrained(model, **settings) for model in models}
    evaluations = {
        model: evaluate(scorer, triples, progress=True, samples=args.samples, seed=args.seed)
        for model, scorer in scorers.items()
    }
    print_evaluations(evaluations, args.by, args.markdown)
    if args.output:
        published = dict(zip(without_local_folders(dict.fromkeys(evaluations)), evaluations.values(), strict=True))
        result = {
            "scar_hf": __version__,
            "triples": without_local_folders(args.triples),
            "rows": len(triples),
            "max_rows": args.max_rows,
            "samples": args.samples,
            "seed": args.seed,
            "rankers": {model: found.to_dict() for model, found in published.items()},
            "differences": differences(published),
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"Wrote {output}.")
    return 0
