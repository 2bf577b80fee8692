"""What `scar-hf sft` does: load, select, fine-tune, save."""

from typing import Any

from datasets import DatasetDict, IterableDatasetDict, load_dataset
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, get_dataset, get_peft_config
from trl import get_quantization_config as quantization_of

from .arguments import ScarArguments
from .sft_trainer import ScarSFTTrainer


def fine_tune(
    script: ScriptArguments, training: SFTConfig, model: ModelConfig, mixture: DatasetMixtureConfig, scar: ScarArguments
) -> ScarSFTTrainer:
    """
    Fine-tune a language model on the best of its training split.

    Args:
        script ([`~trl.ScriptArguments`]): names one dataset and its splits.
        training ([`~trl.SFTConfig`]): of the trainer.
        model ([`~trl.ModelConfig`]): what is fine-tuned, whole or with adapters.
        mixture ([`~trl.DatasetMixtureConfig`]): several datasets, as a YAML file lists them.
        scar ([`ScarArguments`]): what is selected.

    Returns:
        [`ScarSFTTrainer`]: trained; the model is saved to `training.output_dir`, and pushed if that is asked for.

    Raises:
        `ValueError`: if no data is named, or it has no such split.
    """
    loading: dict[str, Any] = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        "trust_remote_code": training.trust_remote_code,
    }
    given: Any = training.model_init_kwargs  # a string only until SFTConfig has read it
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
        return get_dataset(mixture)
    if not script.dataset_name:
        raise ValueError("No data: pass --dataset_name, or list `datasets` in the YAML file that --config names.")
    return load_dataset(script.dataset_name, name=script.dataset_config, streaming=script.dataset_streaming)


def _split(data: DatasetDict | IterableDatasetDict, name: str) -> Any:
    if name not in data:
        raise ValueError(
            f"The data has the splits {list(data)}, not {name!r}: pass --dataset_train_split or --dataset_test_split."
        )
    return data[name]
