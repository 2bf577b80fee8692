"""Options and steps that the commands share."""

import argparse
import logging
from typing import Any


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of everything that scores."""
    parser.add_argument("data", metavar="DATA", help=".jsonl, .json, .parquet or an Arrow folder")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=".jsonl, .json, .parquet, or a folder for Arrow")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--model", default="scar-ranker", help="the bundled ranker by name, a folder or a Hub id (default: %(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; by default a GPU if there is one")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="precision (default: %(default)s)"
    )
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="tokens of each text that are read; by default the ranker's"
    )
    parser.add_argument("--columns", metavar="INSTRUCTION,RESPONSE", help="the two columns, for data of no known format")
    parser.add_argument(
        "--turn", default="first", choices=("first", "last"), help="assistant turn that is scored (default: %(default)s)"
    )
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave rows without a response unscored instead of stopping"
    )
    parser.add_argument("--overwrite-scores", action="store_true", help="replace a column scar_score that the data has")


def rank_from(args: argparse.Namespace) -> Any:
    """Read the data of a command and score it, the ranker loaded first so that what is wrong with it shows at once."""
    logging.basicConfig(format="%(message)s")
    from transformers.utils import logging as transformers_logging

    from ..files import check_output, read_dataset
    from ..ranking import scar_rank
    from ..scoring import ScarScorer

    transformers_logging.disable_progress_bar()  # of loading the weights; the scoring has its own
    columns = tuple(args.columns.split(",")) if args.columns else None
    check_output(args.output, args.overwrite)
    ds = read_dataset(args.data)
    scorer = ScarScorer.from_pretrained(
        args.model, device=args.device, dtype=args.dtype, max_length=args.max_length, columns=columns, turn=args.turn
    )
    return scar_rank(ds, model=scorer, skip_invalid=args.skip_invalid, overwrite=args.overwrite_scores)
