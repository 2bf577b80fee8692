"""The steps of `scar-hf sft`: load, select, fine-tune, save."""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDatasetDict, load_dataset, load_from_disk
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, get_dataset, get_peft_config
from trl import get_quantization_config as quantization_of

from ..files import INPUT_FORMATS, INPUT_SUFFIXES, is_arrow_folder, read_dataset, suffix_of
from .arguments import ScarArguments
from .sft_trainer import ScarSFTTrainer

# Builders of `datasets` that load the files of a mixture, by suffix.
_JSON = (".json", ".json.gz", ".jsonl", ".jsonl.gz", ".jsonl.zst")
_BUILDERS = {".parquet": "parquet", ".csv": "csv", **dict.fromkeys(_JSON, "json")}


def fine_tune(
    script: ScriptArguments, training: SFTConfig, model: ModelConfig, mixture: DatasetMixtureConfig, scar: ScarArguments
) -> ScarSFTTrainer:
    """
    Fine-tune a language model on the best of its training split.

    Args:
        script ([`~trl.ScriptArguments`]): one dataset and its splits.
        training ([`~trl.SFTConfig`]): the arguments of the trainer.
        model ([`~trl.ModelConfig`]): the model, and its adapters if any.
        mixture ([`~trl.DatasetMixtureConfig`]): several datasets from a YAML file.
        scar ([`ScarArguments`]): the selection.

    Returns:
        [`ScarSFTTrainer`]: the trainer after training; the model is saved to `training.output_dir`, and pushed if requested.

    Raises:
        `ValueError`: if no data is given, or it has no such split.
    """
    loading: dict[str, Any] = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        "trust_remote_code": training.trust_remote_code,
    }
    given: Any = training.model_init_kwargs  # a string only before SFTConfig parses it
    training.model_init_kwargs = loading | (given or {})
    data = _load(script, mixture)
    evaluation = _split(data, script.dataset_test_split) if training.eval_strategy != "no" else None
    trainer = ScarSFTTrainer(
        model.model_name_or_path,
        training,
        train_dataset=_split(data, script.dataset_train_split),
        eval_dataset=evaluation,
        quantization_config=quantization_of(model),
        peft_config=get_peft_config(model),
        scar_args=scar,
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)
    if training.push_to_hub:
        trainer.push_to_hub(dataset_name=script.dataset_name)
    return trainer


def _load(script: ScriptArguments, mixture: DatasetMixtureConfig) -> DatasetDict | IterableDatasetDict:
    if mixture.datasets:
        for part in mixture.datasets:
            if part.data_files is None and suffix_of(part.path) in _BUILDERS:
                _check_file(part.path)
                part.path, part.data_files = _BUILDERS[suffix_of(part.path)], part.path
        return get_dataset(mixture)
    name = script.dataset_name
    if not name:
        raise ValueError("No data: pass --dataset_name, or list `datasets` in the YAML file that --config names.")
    path = Path(name)
    if suffix_of(path) in INPUT_SUFFIXES and not path.is_dir():
        _check_file(path)
        data = DatasetDict({script.dataset_train_split: read_dataset(path)})
    elif is_arrow_folder(path) or (path / "dataset_dict.json").is_file():
        found = load_from_disk(name)
        data = DatasetDict({script.dataset_train_split: found}) if isinstance(found, Dataset) else found
    else:
        return load_dataset(name, name=script.dataset_config, streaming=script.dataset_streaming)
    if not script.dataset_streaming:
        return data
    return IterableDatasetDict({split: ds.to_iterable_dataset() for split, ds in data.items()})


def _check_file(path: str | Path) -> None:
    """Treat names that look like files as files, without asking the Hub."""
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist. Expected {INPUT_FORMATS}.")


def _split(data: DatasetDict | IterableDatasetDict, name: str) -> Any:
    if name not in data:
        raise ValueError(
            f"The data has the splits {list(data)}, not {name!r}: pass --dataset_train_split or --dataset_test_split."
        )
    return data[name]
