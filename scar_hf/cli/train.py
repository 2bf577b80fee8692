"""`scar-hf train`: fine-tune a ranker."""

import argparse
from pathlib import Path

HELP = "train a ranker from triples of direct, referenced and human responses"
EXAMPLE = (
    "scar-hf train --encoder sentence-transformers/all-MiniLM-L6-v2 --train_files triples.jsonl --output_dir my-ranker\n"
    "  scar-hf train --config recipes/scar-ranker.yaml --data_dir data --learning_rate 5e-5"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is known without torch; all else are fields of RecipeArguments and ScarTrainingArguments."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with any of the options; the command line wins")
    parser.add_argument("-h", "--help", action="store_true", help="show all options and exit")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Parse the recipe and train."""
    import yaml
    from transformers import HfArgumentParser

    from ..hub_cards import ranker_card
    from ..training.recipe import RecipeArguments, train_ranker
    from ..training.trainer import ScarTrainingArguments

    parser = HfArgumentParser((RecipeArguments, ScarTrainingArguments), prog="scar-hf train", description=HELP, epilog=EXAMPLE)
    if args.help:
        parser.print_help()
        return 0
    if args.config is not None:
        if not args.config.is_file():
            raise ValueError(f"The recipe {args.config} does not exist.")
        try:
            values = yaml.safe_load(args.config.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"The recipe {args.config} is not valid YAML: {error}") from error
        known = {action.dest for action in parser._actions}
        if not isinstance(values, dict) or set(values) - known:
            unknown = sorted(set(values) - known) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"The recipe {args.config} must map options to values; not understood: {unknown}.")
        for action in parser._actions:
            if action.dest in values:
                action.default, action.required = values[action.dest], False
    recipe, training = parser.parse_args_into_dataclasses(args=rest)
    train_ranker(recipe, training)
    if training.process_index == 0:
        ranker_card(training.output_dir).save(Path(training.output_dir) / "README.md")
    print(f"Saved the ranker to {training.output_dir}.")
    return 0
