"""`scar-hf export`: write a ranker to a folder that `AutoModel` can load."""

import argparse

HELP = "write a bundled ranker to a folder that AutoModel.from_pretrained can load"
EXAMPLE = "scar-hf export scar-ranker -o scar-ranker"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("model", metavar="RANKER", help="name of a bundled ranker (scar-ranker, scar-ranker-fast), or a folder")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="output folder; by default named after the ranker")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")


def run(args: argparse.Namespace) -> int:
    """Check the ranker and copy it, with the code that loads it without scar-hf."""
    import shutil
    from pathlib import Path

    from ..modeling import ScarConfig
    from ..scoring.checkpoints import check_ranker_folder, load_ranker, load_tokenizer, resolve_checkpoint
    from ..scoring.probing import add_probe, check_probe

    source = Path(resolve_checkpoint(args.model))
    if not source.is_dir():
        raise ValueError(f"No ranker {args.model!r}: expected 'scar-ranker', 'scar-ranker-fast' or a folder with a ranker.")
    output = check_ranker_folder(args.output or Path(args.model).name, args.overwrite)
    if output.resolve() == source.resolve():
        raise ValueError(f"The output must not be the ranker's own folder, got {output}.")
    check_probe(load_ranker(str(source)), load_tokenizer(str(source)), args.model)
    shutil.copytree(source, output, dirs_exist_ok=args.overwrite)
    add_probe(output)
    ScarConfig.from_pretrained(output).save_pretrained(output)
    print(
        f'Wrote {output}. Load it with AutoModel.from_pretrained("{output}") after `import scar_hf`, or with '
        "trust_remote_code=True if scar-hf is not installed."
    )
    return 0
