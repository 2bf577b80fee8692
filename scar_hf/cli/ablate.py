"""`scar-hf ablate`: test whether the selection helps."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..options import add_options
from ..scoring.settings import BY_NAME, OPTIONS, ROWS, settings_that_decide
from .common import add_comparison_arguments

HELP = "fine-tune a language model on what each method keeps, and measure on held-out instructions whether it helped"
EXAMPLE = "scar-hf ablate data.jsonl --model HuggingFaceTB/SmolLM2-135M-Instruct -k 0.1 -o grid"

_READING = tuple(name for name in settings_that_decide(ROWS) if name in OPTIONS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    from ..ablation.settings import BUDGETS, AblationSettings

    parser.add_argument("data", metavar="DATA", help="rows of any format that scar-hf select reads")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="results and page; the same command continues; seeds, shares and methods may be added",
    )
    parser.add_argument("--split", help="split of a dataset on the Hub (by default train) or of a saved DatasetDict")
    parser.add_argument("--model", required=True, metavar="LM", help="Hub id or folder of the model that is fine-tuned")
    add_comparison_arguments(parser, [0.1], ["scar", "random", "longest", "everything"], ", and everything")
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS), help="(default: both)")
    add_options(parser, fields(AblationSettings))
    add_options(parser.add_argument_group("rows", "how rows are read"), [BY_NAME[name] for name in _READING])
    parser.add_argument("--evaluation", metavar="TRIPLES", help="held-out instructions with direct and human answers")
    parser.add_argument("--group-by", metavar="COLUMN", help="without --evaluation: column that tells kinds of answers apart")
    parser.add_argument("--lm", metavar="LM", help="for perplexity and ifd (default: the model that is fine-tuned)")
    parser.add_argument("--ranker", metavar="RANKER", help="for scar (default: the bundled ranker)")
    parser.add_argument("--most-cells", type=int, metavar="N", help="stop after N more trainings")
    parser.add_argument("--judge-url", metavar="URL", help="an OpenAI-compatible endpoint that compares answers in pairs")
    parser.add_argument("--judge-model", metavar="NAME", help="the judge's name there")


def run(args: argparse.Namespace) -> int:
    """Run the missing cells of the grid, write the page and print the findings."""
    from ..ablation import AblationSettings, ablate
    from ..files import read_dataset
    from ..synthesis.judge_from_files import read_triples

    if (args.judge_url is None) != (args.judge_model is None):
        raise ValueError("--judge-url and --judge-model belong together: pass both.")
    settings = AblationSettings(
        **{found.name: getattr(args, found.name) for found in fields(AblationSettings)},
    )
    rank: dict[str, Any] = {name: getattr(args, name) for name in _READING if getattr(args, name) != BY_NAME[name].default}
    if args.ranker is not None:
        rank["model"] = args.ranker
    result = ablate(
        read_dataset(args.data, args.split),
        settings,
        args.output,
        evaluation=None if args.evaluation is None else read_triples(args.evaluation),
        group_by=args.group_by,
        lm=args.lm,
        judge=_judge(args),
        most_cells=args.most_cells,
        **rank,
    )
    print(result)
    if result.numbers["missing"]:
        print(f"{result.numbers['missing']} cells are missing: the same command goes on.")
    print(f"Wrote {Path(args.output) / 'ablation.html'}.")
    return 0


def _judge(args: argparse.Namespace) -> Any:
    if args.judge_url is None:
        return None
    from ..ablation.judging import PairwiseJudge
    from ..synthesis.endpoint import EndpointBackend

    return PairwiseJudge(EndpointBackend(args.judge_model, args.judge_url))
