"""`scar-hf sft`: TRL's supervised fine-tuning on the best rows of the data."""

import argparse
from typing import Any

HELP = "fine-tune a language model on the best rows of its data; takes all options of `trl sft` plus --scar_k"
EXAMPLE = (
    "scar-hf sft --model_name_or_path Qwen/Qwen2.5-0.5B --dataset_name trl-lib/Capybara --scar_k 0.1 --output_dir out\n"
    "  accelerate launch -m scar_hf sft --config sft.yaml --scar_k 0.1"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options known without torch; all others are dataclass fields of TRL and scar-hf."""
    parser.add_argument("-h", "--help", action="store_true", help="show all options and exit")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Parse as `trl sft` does, select, and train."""
    try:
        from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser
    except ImportError as error:
        raise ImportError('scar-hf sft requires TRL: pip install "scar-hf[trl]"') from error
    from ..trainer_callbacks import ScarArguments
    from ..trainer_callbacks.fine_tuning import fine_tune

    dataclasses: tuple[Any, ...] = (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig, ScarArguments)
    parser = TrlParser(
        dataclasses,
        prog="scar-hf sft",
        description=HELP,
        epilog=EXAMPLE,
    )
    if args.help:
        parser.print_help()
        return 0
    fine_tune(*parser.parse_args_and_config(args=rest))
    return 0
