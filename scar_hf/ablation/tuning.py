"""Fine-tune one cell: LoRA adapters on a causal language model, with TRL's trainer and the selection's callback."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging as transformers_logging

from ..rows.pairs import PairReader
from ..rows.source import rows_of
from ..scoring.precision import as_dtype, default_device
from ..selection import Selection
from ..style.causal_lm import load_causal_lm
from .settings import AblationSettings


def load(settings: AblationSettings) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the base model of every cell and its tokenizer; a tokenizer without a padding token gets one."""
    device = settings.device or default_device()
    dtype = as_dtype(settings.dtype, device)
    with _quiet():
        model, tokenizer = load_causal_lm(settings.model, dtype, device, settings.revision, settings.trust_remote_code)
    if hasattr(model.config, "quantization_config"):  # weights of a GGUF file, already dequantised
        raise ValueError(
            f"The weights of {settings.model!r} are quantized and cannot be fine-tuned: write them as safetensors first, as "
            "examples/unpack_gguf.py does."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def fine_tune(
    settings: AblationSettings,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    selection: Selection,
    budget: str,
    seed: int,
    reader: PairReader,
) -> tuple[Any, dict[str, Any]]:
    """
    Fine-tune on the rows of a selection.

    Args:
        settings ([`AblationSettings`]): settings of the grid.
        model, tokenizer: from [`load`]; adapters are added to the model.
        selection ([`~scar_hf.selection.Selection`]): the rows to train on.
        budget (`str`): `"steps"`: the same number of optimiser steps for every set; `"epochs"`: the same number of epochs.
        seed (`int`): seed of the adapters, the order of the rows and dropout.
        reader ([`~scar_hf.rows.pairs.PairReader`]): how rows are read.

    Returns:
        `tuple`: the model with its adapters, and a record of the training: steps, epochs, training loss and seconds.

    Raises:
        `ImportError`: if trl or peft is not installed.
    """
    try:
        from peft import LoraConfig
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise ImportError('Fine-tuning needs trl and peft: pip install "scar-hf[trl]"') from error
    from ..trainer_callbacks import ScarSelectionCallback

    set_seed(seed)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        config = SFTConfig(
            output_dir=folder,
            max_steps=settings.steps if budget == "steps" else -1,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            max_length=settings.max_length,
            # Batch rows of similar length, for less padding; the same for every set.
            train_sampling_strategy="group_by_length",
            bf16=False,  # the weights already have their precision
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            use_cpu=model.device.type == "cpu",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        trainer = SFTTrainer(
            model,
            config,
            train_dataset=training_rows(selection.dataset, tokenizer, reader),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=settings.lora_r, lora_alpha=2 * settings.lora_r, target_modules="all-linear"),
        )
        trainer.remove_callback(_printer())
        trainer.add_callback(ScarSelectionCallback(trainer, selection))
        result = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tail = losses[-max(1, len(losses) // 5) :]
    done = {
        "steps": trainer.state.global_step,
        "epochs": round(float(trainer.state.epoch or 0), 3),
        "training_loss": round(sum(tail) / len(tail), 5),
        "seconds": round(float(result.metrics["train_runtime"]), 1),
    }
    return trainer.model.eval(), done


def training_rows(ds: Dataset, tokenizer: PreTrainedTokenizerBase, reader: PairReader) -> Dataset:
    """
    Return one training row with prompt and completion for each scored turn: messages if the tokenizer has a chat template,
    otherwise texts separated by an empty line.
    """
    pairs = [pair for row in rows_of(ds, reader) if row.problem is None for pair in row.pairs]
    if tokenizer.chat_template is None:
        columns: Mapping[str, Any] = {"prompt": [f"{x}\n\n" for x, _ in pairs], "completion": [y for _, y in pairs]}
    else:
        columns = {
            "prompt": [[{"role": "user", "content": x}] for x, _ in pairs],
            "completion": [[{"role": "assistant", "content": y}] for _, y in pairs],
        }
    return Dataset.from_dict(dict(columns))


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars and messages of loading and tokenising, which would repeat for every cell."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    shown = not are_progress_bars_disabled()
    trl = logging.getLogger("trl")
    before = trl.level
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    disable_progress_bars()
    trl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        trl.setLevel(before)
        if bars:
            transformers_logging.enable_progress_bar()
        if shown:
            enable_progress_bars()
