"""Every argument that SFTTrainer takes, through ScarSFTTrainer: it must arrive, and do what it does there."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict

pytest.importorskip("trl")

from peft import LoraConfig, PeftModel
from scar_hf.trainer_callbacks import ScarArguments, ScarSFTTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainingArguments
from trl import SFTConfig, SFTTrainer

PARAMETERS = {name: p for name, p in inspect.signature(SFTTrainer.__init__).parameters.items() if name != "self"}
ROWS = [{"prompt": f"Tell me about {word}.", "completion": f"Of {word} much is known. " * (i % 3 + 1)}
        for i, word in enumerate(("bees", "bread", "chess", "glass", "maps", "moss", "tides", "wool"))]  # fmt: skip


@pytest.fixture
def make(tiny_lm, tiny_ranker, sft_config) -> Callable[..., ScarSFTTrainer]:
    """A trainer on the best half of eight rows, with any arguments of SFTTrainer."""

    def make(**given: Any) -> ScarSFTTrainer:
        settings = {"model": tiny_lm, "args": sft_config(), "train_dataset": Dataset.from_list(ROWS)} | given
        trainer = ScarSFTTrainer(**settings, scar_args=ScarArguments(scar_k=0.5, scar_model=str(tiny_ranker)))
        assert len(trainer.scar_selection.dataset) == len(trainer.train_dataset) == 4
        return trainer

    return make


def causal_lm(folder: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder)


class Counting(TrainerCallback):
    """Counts steps."""

    steps = 0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.steps += 1


def check_model(make, tiny_lm, sft_config):
    model = causal_lm(tiny_lm)
    assert make(model=model).model is model
    before = model.get_input_embeddings().weight.clone()
    make(model=model).train()
    assert not torch.equal(model.get_input_embeddings().weight, before)


def check_args(make, tiny_lm, sft_config):
    config = sft_config(learning_rate=3e-4)
    assert make(args=config).args is config
    plain = TrainingArguments(config.output_dir, use_cpu=True, report_to="none", learning_rate=3e-4)
    args = make(args=plain).args
    assert isinstance(args, SFTConfig) and args.learning_rate == 3e-4


def check_data_collator(make, tiny_lm, sft_config):
    collated = []
    theirs = make().data_collator

    def collator(examples):
        collated.append(len(examples))
        return theirs(examples)

    trainer = make(data_collator=collator)
    assert trainer.data_collator is collator
    trainer.train()
    assert collated


def check_train_dataset(make, tiny_lm, sft_config):
    trainer = make(train_dataset=Dataset.from_list(ROWS[:4] + ROWS[:4]))
    assert sorted(trainer.scar_selection.dataset.column_names) == ["completion", "prompt", "scar_score"]
    assert trainer.train().global_step == 2


def check_eval_dataset(make, tiny_lm, sft_config):
    whole = Dataset.from_list(ROWS)
    assert len(make(eval_dataset=whole).eval_dataset) == len(ROWS)
    for parts in ({"a": whole, "b": whole.select(range(3))}, DatasetDict(a=whole, b=whole.select(range(3)))):
        trainer = make(eval_dataset=parts)
        assert {name: len(part) for name, part in trainer.eval_dataset.items()} == {"a": 8, "b": 3}
        assert {"eval_a_loss", "eval_b_loss"} <= set(trainer.evaluate())
    assert "eval_loss" in make(eval_dataset=whole.to_iterable_dataset()).evaluate()


def check_processing_class(make, tiny_lm, sft_config):
    tokenizer = AutoTokenizer.from_pretrained(tiny_lm)
    assert make(processing_class=tokenizer).processing_class is tokenizer


def check_compute_loss_func(make, tiny_lm, sft_config):
    called = []

    def loss(outputs, labels, num_items_in_batch=None):
        called.append(labels.shape)
        return outputs.logits.float().square().mean()

    trainer = make(compute_loss_func=loss)
    trainer.train()
    assert trainer.compute_loss_func is loss and called


def check_compute_metrics(make, tiny_lm, sft_config):
    trainer = make(compute_metrics=lambda prediction: {"rows": len(prediction.label_ids)}, eval_dataset=Dataset.from_list(ROWS))
    assert trainer.evaluate()["eval_rows"] == len(ROWS)


def check_callbacks(make, tiny_lm, sft_config):
    counting = Counting()
    make(callbacks=[counting]).train()
    assert counting.steps == 2


def check_optimizers(make, tiny_lm, sft_config):
    model = causal_lm(tiny_lm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = make(model=model, optimizers=(optimizer, schedule))
    trainer.train()
    assert getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler) is schedule
    assert trainer.optimizer.param_groups[0]["lr"] == 0.125 and "momentum" in trainer.optimizer.param_groups[0]


def check_optimizer_cls_and_kwargs(make, tiny_lm, sft_config):
    trainer = make(optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.125, "momentum": 0.5}))
    trainer.train()
    assert {group["momentum"] for group in trainer.optimizer.param_groups} == {0.5}


def check_preprocess_logits_for_metrics(make, tiny_lm, sft_config):
    trainer = make(
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
        compute_metrics=lambda prediction: {"dimensions": prediction.predictions.ndim},
        eval_dataset=Dataset.from_list(ROWS),
    )
    assert trainer.evaluate()["eval_dimensions"] == 2


def check_quantization_config(make, tiny_lm, sft_config):
    # No quantised model runs everywhere: that the setting is not lost shows in what both say of it.
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True)
    twice = sft_config(model_init_kwargs={"quantization_config": config})
    messages = []
    for trainer in (SFTTrainer, ScarSFTTrainer):
        given = {"train_dataset": Dataset.from_list(ROWS), "args": twice, "quantization_config": config}
        with pytest.raises(ValueError, match="quantization_config") as caught:
            trainer(tiny_lm, **given) if trainer is SFTTrainer else make(model=tiny_lm, **given)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def check_peft_config(make, tiny_lm, sft_config):
    trainer = make(peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    assert isinstance(trainer.model, PeftModel)
    trainer.train()


def check_formatting_func(make, tiny_lm, sft_config):
    rows = Dataset.from_list([{"ask": row["prompt"], "say": row["completion"]} for row in ROWS])
    text = "<|im_start|>user\n{ask}<|im_end|>\n<|im_start|>assistant\n{say}<|im_end|>\n"
    trainer = make(train_dataset=rows, formatting_func=lambda row: text.format(**row))
    decoded = trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])
    assert decoded.startswith("<|im_start|>user\nTell me about ")


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


@pytest.mark.parametrize("argument", PARAMETERS)
def test_every_argument_arrives(argument, make, tiny_lm, sft_config):
    assert argument in CHECKS, f"SFTTrainer takes {argument!r}: show here that ScarSFTTrainer passes it on."
    with warnings.catch_warnings():
        # TRL's own, of arguments that its next major version will no longer have.
        warnings.filterwarnings("ignore", message=r"(?s).*deprecated and will be removed in v2\.0\.0", category=FutureWarning)
        CHECKS[argument](make, tiny_lm, sft_config)


def test_no_argument_is_tested_that_is_not_there():
    assert set(CHECKS) == set(PARAMETERS)


def test_the_arguments_go_by_place_too(tiny_lm, tiny_ranker, sft_config):
    given = {"model": tiny_lm, "args": sft_config(), "train_dataset": Dataset.from_list(ROWS), "callbacks": [Counting()]}
    places = [given.get(name, parameter.default) for name, parameter in PARAMETERS.items()]
    trainer = ScarSFTTrainer(*places, scar_args=ScarArguments(scar_k=0.5, scar_model=str(tiny_ranker)))
    assert trainer.args is given["args"] and given["callbacks"][0] in trainer.callback_handler.callbacks
    assert len(trainer.train_dataset) == 4


def test_what_sft_trainer_does_not_take_is_refused(tiny_lm, sft_config):
    for trainer in (SFTTrainer, ScarSFTTrainer):
        with pytest.raises(TypeError, match="tokenizer"):
            trainer(tiny_lm, args=sft_config(), train_dataset=Dataset.from_list(ROWS), tokenizer=None)
