"""Runs a recipe with sections: synthesise, judge, train, evaluate, write the card. Finished stages are skipped."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from ..files import write_shard
from ..hub_cards import ranker_card
from ..synthesis.judge_from_files import read_triples
from ..training.recipe import RecipeArguments, read_parts, train_ranker
from ..training.stages import Stage, last_checkpoint, run_stages
from ..training.trainer import ScarTrainingArguments
from . import evaluate, judge, synthesize

SECTIONS = ("synthesis", "judge", "evaluation", "card")
# Access to the models and the budget do not affect the answers.
_NO_EFFECT = ("base_url", "provider", "key_variable", "concurrency", "timeout", "max_requests", "max_total_tokens")
_PROMPTS = ("direct_prompt", "referenced_prompt", "judge_prompt")
_CARD_OPTIONS = ("license", "language", "licences")
# The settings that affect the ranker, unlike those for hardware and logging.
_TRAINING_SETTINGS = (
    "seed",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "head_learning_rate",
    "weight_decay",
    "warmup_steps",
    "lr_scheduler_type",
    "max_grad_norm",
    "response_max_length",
    "instruction_max_length",
    "lora_r",
    "lora_alpha",
    "bf16",
    "fp16",
)


def run_staged(sections: Mapping[str, Any], recipe: RecipeArguments, training: ScarTrainingArguments) -> None:
    """
    Run the stages of a recipe. All their outputs except the ranker go to the folder `OUTPUT_DIR-data`.

    Args:
        sections (`Mapping[str, Any]`):
            `synthesis` and `judge` hold options of `scar-hf synthesize` and `scar-hf judge`, with `data` in
            `recipe.data_dir`; `evaluation` holds options of `scar-hf evaluate`, by default on the recipe's test rows;
            `card` holds `license`, `language` and `licences` for [`~scar_hf.hub_cards.ranker_card`].
        recipe ([`RecipeArguments`]): data and settings of the ranker; synthesised triples are added to its `train_files`.
        training ([`ScarTrainingArguments`]): the training arguments.

    Raises:
        `ValueError`: if a section or an option is wrong, or several processes run it.
    """
    if training.world_size > 1:
        raise ValueError("A recipe with stages runs in one process. To use several, train from the triples that it created.")
    output = Path(training.output_dir)
    made = output.with_name(f"{output.name}-data")
    stages, triples = [], None
    for name, module, file in (("synthesis", synthesize, "triples.jsonl"), ("judge", judge, "rated.jsonl")):
        if name in sections:
            section = _section(sections, name)
            data = _in_folder(recipe.data_dir, str(section["data"])) if section.get("data") else triples
            if data is None:
                raise ValueError(f"The section `{name}` of the recipe needs `data`.")
            triples = made / file
            stages.append(_command_stage(name, module, section, data, triples))
    if triples is not None:
        recipe.train_files = [str(triples.resolve()), *recipe.train_files]
    stages.append(_training_stage(recipe, training))
    if "evaluation" in sections:
        stages.append(_evaluation_stage(_section(sections, "evaluation"), recipe, output))
    stages.append(_card_stage(_section(sections, "card"), output))
    made.mkdir(parents=True, exist_ok=True)
    run_stages(stages, made / "stages.json")


class _SectionParser(argparse.ArgumentParser):
    """Parses a section of a recipe as the options of a command."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"The section `{self.prog}` of the recipe: {message}.")


def _parse(name: str, module: ModuleType, section: Mapping[str, Any]) -> argparse.Namespace:
    parser = _SectionParser(prog=name, add_help=False)
    module.add_arguments(parser)
    actions = {action.dest: action for action in parser._actions}
    unknown = sorted(set(section) - set(actions))
    if unknown:
        raise ValueError(f"The section `{name}` of the recipe has unknown options: {unknown}; it takes {sorted(actions)}.")
    words, options = [], []
    for option, value in section.items():
        action = actions[option]
        values = [str(item) for item in (value if isinstance(value, list) else [value])]
        if value is None or value is False:
            continue
        if not action.option_strings:
            words += values
        elif value is True:
            options.append(action.option_strings[-1])
        else:
            options += [f"{action.option_strings[-1]}={item}" for item in values]
    return parser.parse_args([*options, "--", *words])


def _section(sections: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a section's options, whose names may be written with - or _."""
    found = sections.get(name) or {}
    if not isinstance(found, dict):
        raise ValueError(f"The section `{name}` of the recipe must map options to values, got {found!r}.")
    return {str(option).replace("-", "_"): value for option, value in found.items()}


def _in_folder(folder: str, name: str) -> Path:
    """Return a file in the data folder or, if it is not there, the path itself."""
    path = Path(folder) / name
    return path if path.exists() or not Path(name).exists() else Path(name)


def _command_stage(name: str, module: ModuleType, section: dict[str, Any], data: Path, output: Path) -> Stage:
    args = _parse(name, module, {**section, "data": str(data), "output": str(output), "overwrite": True})

    def run(began: float) -> bool:
        if module.run(args):
            # The judge failed its check: continue with the unrated triples, whatever format they have.
            write_shard(output, [read_triples(data)])
            return True
        return not _has_missing(json.loads(output.with_name(f"{output.name}.manifest.json").read_text(encoding="utf-8")))

    settings = {option: value for option, value in section.items() if option not in _NO_EFFECT}
    return Stage(name, settings, [data, *_files_named(args)], [output], run)


def _files_named(args: argparse.Namespace) -> list[Path]:
    """List the prompt files and the models on this machine that a command reads."""
    prompts = [getattr(args, name, None) for name in _PROMPTS]
    models = [] if args.base_url or args.provider else args.model or []
    return [Path(name) for name in (*prompts, *models) if name is not None and Path(name).exists()]


def _has_missing(counts: Any) -> bool:
    """Return whether a manifest counts responses or ratings that are still missing."""
    if not isinstance(counts, dict):
        return False
    return any((name == "missing" and bool(value)) or _has_missing(value) for name, value in counts.items())


def _training_stage(recipe: RecipeArguments, training: ScarTrainingArguments) -> Stage:
    output = Path(training.output_dir)
    given = training.resume_from_checkpoint

    def run(began: float) -> bool:
        training.resume_from_checkpoint = given or last_checkpoint(output, began)
        train_ranker(recipe, training)
        return True

    names = [*recipe.train_files, *recipe.instruction_files, *recipe.calibration_files]
    inputs = [_in_folder(recipe.data_dir, name) for name in names]
    inputs += [Path(name) for name in (*recipe.excluded_files, recipe.encoder) if Path(name).exists()]
    settings = vars(recipe) | {"training": {name: getattr(training, name) for name in _TRAINING_SETTINGS}}
    # Files that only the training stage writes.
    outputs = [output / "model.safetensors", output / "metrics.json"]
    return Stage("training", settings, inputs, outputs, run)


def _evaluation_stage(section: dict[str, Any], recipe: RecipeArguments, output: Path) -> Stage:
    names = section.pop("triples", None) or []
    files = [str(_in_folder(recipe.data_dir, name)) for name in ([names] if isinstance(names, str) else names)]
    result = output / "evaluation.json"
    models = section.pop("model", None) or []
    named = [models] if isinstance(models, str) else models
    fixed = {"model": [str(output), *named], "output": str(result)}
    args = _parse("evaluation", evaluate, {**section, **fixed, "triples": files or ["the test rows"], "overwrite": True})

    def run(began: float) -> bool:
        if files:
            evaluate.run(args)
        else:
            evaluate.evaluate_on(args, read_parts(recipe)["test"])
        return True

    inputs = [output / "model.safetensors", *map(Path, files), *(Path(name) for name in named if Path(name).exists())]
    return Stage("evaluation", section | {"model": models, "triples": files}, inputs, [result], run)


def _card_stage(section: dict[str, Any], output: Path) -> Stage:
    unknown = sorted(set(section) - set(_CARD_OPTIONS))
    if unknown:
        raise ValueError(f"The section `card` of the recipe has unknown options: {unknown}; it takes {list(_CARD_OPTIONS)}.")

    def run(began: float) -> bool:
        ranker_card(output, **section).save(output / "README.md")
        return True

    return Stage("card", section, [output / "config.json", output / "metrics.json"], [output / "README.md"], run)
