"""`scar-hf card`: write or amend the card of a selection, a ranker, or a model that was fine-tuned on a selection."""

import argparse
from pathlib import Path
from typing import Any

from .errors import UsageError

HELP = "write the card of a selection or a ranker, or amend the one that is there"
EXAMPLE = "scar-hf card selected/ --license cc-by-sa-3.0 --language en --group-by source"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "source", metavar="SOURCE", help="an output of scar-hf select, a ranker, or a fine-tuned model's folder"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the card; by default README.md in the folder SOURCE")
    parser.add_argument("--manifest", metavar="FILE", help="of the selection that SOURCE, a model, was fine-tuned on")
    add_card_arguments(parser)


def add_card_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a card says and cannot know by itself."""
    parser.add_argument("--license", metavar="ID", help="id of the Hub, or a name; by default that of the source's card")
    parser.add_argument("--language", action="append", metavar="CODE", help="ISO 639 code; repeatable")
    group = parser.add_argument_group("selections")
    group.add_argument("--data", metavar="DATA", help="what was selected from, if it is not where the manifest says")
    group.add_argument("--group-by", metavar="COLUMN", help="column whose values rows are counted by, e.g. source")
    group.add_argument("--style", action="store_true", help="measure the consistency of style before and after")
    group.add_argument("--lm", metavar="MODEL", help="language model for surprisal, with --style")
    group.add_argument(
        "--trust-remote-code", action="store_true", help="run code that the language model of --lm brings (default: never)"
    )
    group = parser.add_argument_group("rankers")
    group.add_argument("--licences", metavar="FILE", help="YAML: the licence of each source of the training data")


def is_ranker(source: str) -> bool:
    """Whether a source is a ranker, and not a selection."""
    from ..scoring.settings import BUNDLED_RANKER

    return source == BUNDLED_RANKER or (Path(source) / "config.json").is_file()


def ranker_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say of a ranker's card."""
    options: dict[str, Any] = {"license": args.license, "language": args.language}
    if args.licences:
        import yaml

        try:
            options["licences"] = yaml.safe_load(Path(args.licences).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ValueError(f"--licences {args.licences} cannot be read: {error}.") from error
        if not isinstance(options["licences"], dict):
            raise ValueError(f"--licences {args.licences} must map sources to licences.")
    return options


def selection_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments say of a selection's card; counts and style are taken from the data, where that is there."""
    from ..hub_cards.contents import count_groups, read_selection

    _, manifest = read_selection(args.source)
    data = args.data or (manifest["data"] if Path(manifest["data"]).exists() else None)
    options: dict[str, Any] = {"license": args.license, "language": args.language}
    if args.group_by:
        options["counts"] = count_groups(args.group_by, args.source, data)
    if args.lm and not args.style:
        raise UsageError("--lm is of --style: pass both.")
    if args.style:
        if data is None:
            raise ValueError(f"--style needs what was selected from, and {manifest['data']} is not there: pass --data.")
        from ..files import read_dataset
        from ..style import compare

        reading = {name: manifest["settings"].get(name) for name in ("columns", "turn") if manifest["settings"].get(name)}
        if args.language:
            reading["language"] = args.language[0]
        if args.lm:
            reading["trust_remote_code"] = args.trust_remote_code
        options["consistency"] = compare(read_dataset(data), read_dataset(args.source), lm=args.lm, **reading)
    return options


def run(args: argparse.Namespace) -> int:
    """Write the card, with its pictures beside it."""
    from tempfile import TemporaryDirectory

    from ..hub_cards import amend_model_card, ranker_contents, selection_contents
    from ..hub_cards.contents import CARD, IMAGES, read_selection
    from ..scoring.checkpoints import resolve_checkpoint

    source = Path(resolve_checkpoint(args.source))
    if args.output is None and not source.is_dir():
        raise ValueError(f"{source} is no folder: say with -o which card is meant.")
    output = Path(args.output or source / CARD)
    if args.manifest:
        amend_model_card(output, read_selection(args.manifest)[1])
    else:
        there = {"card": output} if output.is_file() else {}
        with TemporaryDirectory(prefix="scar-hf-") as name:
            if is_ranker(args.source):
                made = ranker_contents(args.source, name, **ranker_options(args), **there)
            else:
                made = selection_contents(args.source, name, data=args.data, **selection_options(args), data_files=(), **there)
            for path, file in made.items():
                if path == CARD or path.startswith(IMAGES):
                    target = output if path == CARD else output.parent / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(file.read_bytes())
    print(f"Wrote {output}.")
    return 0
