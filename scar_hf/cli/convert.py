"""`scar-hf convert`: convert a scar-tool checkpoint to a native ranker."""

import argparse

HELP = "convert a scar-tool checkpoint, such as the published ones, to a scar-hf ranker"
EXAMPLE = "scar-hf convert lizhuang144/scar-gte-base -o scar-gte-base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="Hub id or folder, e.g. lizhuang144/scar-roberta-base")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="output folder")
    parser.add_argument(
        "--encoder", help="folder, Hub id or config.json of the base encoder; by default the one that the checkpoint names"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a checkpoint on the Hub")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")


def run(args: argparse.Namespace) -> int:
    """Convert and save."""
    from ..modeling.convert_scar_tool_checkpoint import convert_scar_tool_checkpoint
    from ..scoring.checkpoints import check_ranker_folder
    from ..training.saving import save_ranker

    output = check_ranker_folder(args.output, args.overwrite)
    model, tokenizer = convert_scar_tool_checkpoint(args.checkpoint, args.encoder, args.revision)
    save_ranker(model, tokenizer, output, dtype=model.dtype)
    print(f'Wrote {output}. Use it as model="{output}", or --model {output}.')
    return 0
