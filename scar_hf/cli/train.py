"""`scar-hf train`: fine-tune a ranker."""

import argparse
from pathlib import Path
from typing import Any

HELP = "train a ranker from triples of direct, referenced and human responses"
EXAMPLE = (
    "scar-hf train --encoder sentence-transformers/all-MiniLM-L6-v2 --train_files triples.jsonl --output_dir my-ranker\n"
    "  scar-hf train --config recipes/scar-ranker.yaml --data_dir data --learning_rate 5e-5\n"
    "  scar-hf train --config recipes/own-ranker.yaml --data_dir data --output_dir my-ranker"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options known without torch; all others are fields of RecipeArguments and ScarTrainingArguments."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file with options, which the command line overrides; sections: synthesis, judge, evaluation, card",
    )
    parser.add_argument("-h", "--help", action="store_true", help="show all options and exit")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Parse the recipe and train."""
    from transformers import HfArgumentParser

    from ..hub_cards import ranker_card
    from ..training.recipe import RecipeArguments, train_ranker
    from ..training.trainer import ScarTrainingArguments
    from .staged_training import SECTIONS, run_staged

    parser = HfArgumentParser((RecipeArguments, ScarTrainingArguments), prog="scar-hf train", description=HELP, epilog=EXAMPLE)
    if args.help:
        parser.print_help()
        return 0
    sections: dict[str, Any] = {}
    if args.config is not None:
        values = _read_recipe(args.config)
        known = {action.dest for action in parser._actions}
        sections = {name: values.pop(name) for name in SECTIONS if name in values}
        if set(values) - known:
            unknown = sorted(set(values) - known)
            raise ValueError(f"The recipe {args.config} has unknown options: {unknown}.")
        for action in parser._actions:
            if action.dest in values or (action.dest == "train_files" and sections.keys() & {"synthesis", "judge"}):
                action.default, action.required = values.get(action.dest, []), False
    recipe, training = parser.parse_args_into_dataclasses(args=rest)
    if sections:
        run_staged(sections, recipe, training)
    else:
        train_ranker(recipe, training)
        if training.process_index == 0:
            ranker_card(training.output_dir).save(Path(training.output_dir) / "README.md")
    print(f"Saved the ranker to {training.output_dir}.")
    return 0


def _read_recipe(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise ValueError(f"The recipe {path} does not exist.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"The recipe {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"The recipe {path} must map options to values, got {type(values).__name__}.")
    return values
