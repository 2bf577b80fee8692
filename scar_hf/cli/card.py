"""`scar-hf card`: write or update the card of a selection, a ranker, or a model fine-tuned on a selection."""

import argparse
from pathlib import Path
from typing import Any

from .terminal import UsageError

HELP = "write or update the card of a selection, a ranker or a fine-tuned model"
EXAMPLE = "scar-hf card selected/ --license cc-by-sa-3.0 --language en --group-by source"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "source", metavar="SOURCE", help="output of scar-hf select, a ranker, or the folder of a fine-tuned model"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="card to write; by default README.md in the folder SOURCE")
    parser.add_argument("--manifest", metavar="FILE", help="if SOURCE is a fine-tuned model: manifest of its selection")
    add_card_arguments(parser)


def add_card_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for card contents that cannot be derived."""
    parser.add_argument(
        "--license", metavar="ID", help="Hub id or name of the license; by default the one on the card of the source"
    )
    parser.add_argument("--language", action="append", metavar="CODE", help="ISO 639 code; repeatable")
    group = parser.add_argument_group("selections")
    group.add_argument("--data", metavar="DATA", help="source data of the selection, if it is not where the manifest says")
    group.add_argument("--group-by", metavar="COLUMN", help="column by which to count rows, e.g. source")
    group.add_argument("--style", action="store_true", help="measure style consistency before and after the selection")
    group.add_argument("--lm", metavar="MODEL", help="language model for surprisal; requires --style")
    group.add_argument(
        "--trust-remote-code", action="store_true", help="allow the --lm model to run its own code (default: no)"
    )
    group = parser.add_argument_group("rankers")
    group.add_argument("--licences", metavar="FILE", help="YAML file that maps sources of training data to licences")


def is_ranker(source: str) -> bool:
    """Return whether a source is a ranker rather than a selection."""
    from ..scoring.settings import BUNDLED_RANKERS

    return source in BUNDLED_RANKERS or (Path(source) / "config.json").is_file()


def ranker_options(args: argparse.Namespace) -> dict[str, Any]:
    """Convert the arguments to options of a ranker's card."""
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
    """Convert the arguments to options of a selection's card; count and measure the rows if the data is available."""
    from ..hub_cards.contents import count_groups, selection_manifest

    _, manifest = selection_manifest(args.source)
    data = args.data or (manifest["data"] if Path(manifest["data"]).exists() else None)
    options: dict[str, Any] = {"license": args.license, "language": args.language}
    if args.group_by:
        options["counts"] = count_groups(args.group_by, args.source, data)
    if args.lm and not args.style:
        raise UsageError("--lm requires --style.")
    if args.style:
        if data is None:
            raise ValueError(f"--style needs the source data, but {manifest['data']} does not exist. Pass --data.")
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
    """Write the card, with its images next to it."""
    from tempfile import TemporaryDirectory

    from ..hub_cards import amend_model_card, ranker_contents, selection_contents
    from ..hub_cards.contents import CARD, IMAGES, selection_manifest
    from ..scoring.checkpoints import resolve_checkpoint

    source = Path(resolve_checkpoint(args.source))
    if args.output is None and not source.is_dir():
        raise ValueError(f"{source} is not a folder. Pass the card to write with -o.")
    output = Path(args.output or source / CARD)
    if args.manifest:
        amend_model_card(output, selection_manifest(args.manifest)[1])
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
