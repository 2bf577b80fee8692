"""Fine-tune a ranker with the Trainer of transformers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, Trainer, TrainerControl, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..modeling import ScarModel
from ..scoring.scorer import ScarScorer
from .evaluation import evaluate_ranker
from .triples import MEMBERS, Triple, TripleDataset


@dataclass
class ScarTrainingArguments(TrainingArguments):
    """
    Extends [`~transformers.TrainingArguments`] with the settings of rankers. The defaults are those of the paper (section 4:
    learning rate 2e-5, 10 % warm-up, gradients clipped at 1.0).

    Args:
        head_learning_rate (`float`, *optional*):
            Learning rate of the two heads; by default that of the encoder.
        instruction_max_length (`int`, *optional*):
            Maximum number of tokens of an instruction in training; by default the config's `max_length`.
        response_max_length (`int`, *optional*):
            Maximum number of tokens of a response in training; by default the config's `max_length`.
        lora_r (`int`, *optional*):
            Rank of LoRA adapters on the linear layers of the encoder, trained instead of the encoder and merged on save.
        lora_alpha (`int`, *optional*, defaults to 32):
            Scale of the LoRA adapters.
    """

    learning_rate: float = 2e-5
    warmup_steps: float = 0.1
    max_grad_norm: float = 1.0
    remove_unused_columns: bool | None = False
    head_learning_rate: float | None = field(default=None, metadata={"help": "learning rate of the new heads"})
    instruction_max_length: int | None = field(default=None, metadata={"help": "tokens of an instruction read in training"})
    response_max_length: int | None = field(default=None, metadata={"help": "tokens of a response read in training"})
    lora_r: int | None = field(default=None, metadata={"help": "rank of LoRA adapters on the encoder; none by default"})
    lora_alpha: int = field(default=32, metadata={"help": "scale of the LoRA adapters"})

    def __post_init__(self) -> None:
        # Without an accelerator, transformers rejects bf16 unless told to use the CPU; set this so that recipes run on both.
        if not torch.accelerator.is_available():
            self.use_cpu = True
        super().__post_init__()


@dataclass
class TripleCollator:
    """
    Tokenizes and pads a batch of triples for [`ScarModel`].

    Args:
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): the encoder's tokenizer.
        max_length (`int`): maximum number of tokens per text.
        instruction_max_length (`int`, *optional*): maximum number of tokens per instruction; by default `max_length`.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    instruction_max_length: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Return padded tensors and masks of B instructions, of each member and, if any row has one, of the negatives;
        `present` of shape `(B, 3)`, or `(B, 4)` with negatives; and `ratings` of shape `(B, 3)` if any row has them.
        """
        batch = self._pad("instruction", [row["instruction"] for row in rows], self.instruction_max_length or self.max_length)
        members = (*MEMBERS, "negative") if any(row["negative"] is not None for row in rows) else MEMBERS
        for member in members:
            # A missing response is an empty text here, and the model does not encode it.
            batch |= self._pad(member, [row[member] or "" for row in rows], self.max_length)
        batch["present"] = torch.tensor([[row[member] is not None for member in members] for row in rows])
        if any(not math.isnan(rating) for row in rows for rating in row["ratings"]):
            batch["ratings"] = torch.tensor([row["ratings"] for row in rows])
        return batch

    def _pad(self, name: str, texts: list[str], max_length: int) -> dict[str, torch.Tensor]:
        tokens = self.tokenizer(texts, truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        return {f"{name}_input_ids": tokens["input_ids"], f"{name}_attention_mask": tokens["attention_mask"]}


class ScarTrainer(Trainer):
    r"""
    [`~transformers.Trainer`] for [`ScarModel`]: batches of similar lengths, a separate learning rate for the heads, LoRA
    merged on save, and evaluation of the order of responses ([`evaluate_ranker`]).

    Args:
        model ([`ScarModel`]): the ranker to train, often from [`ScarModel.from_encoder`].
        args ([`ScarTrainingArguments`]): the settings.
        train_dataset ([`TripleDataset`]): the rows to train on.
        eval_dataset (`Sequence[Triple]`, *optional*): the rows to evaluate on.
        processing_class ([`~transformers.PreTrainedTokenizerBase`]): the encoder's tokenizer.
        kwargs: passed to [`~transformers.Trainer`].

    Example:

    ```python
    >>> from transformers import AutoTokenizer
    >>> from scar_hf import ScarModel
    >>> from scar_hf.training import ScarTrainer, ScarTrainingArguments, TripleDataset, load_triples

    >>> tokenizer = AutoTokenizer.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    >>> trainer = ScarTrainer(
    ...     ScarModel.from_encoder("sentence-transformers/all-MiniLM-L6-v2"),
    ...     ScarTrainingArguments("out", num_train_epochs=1),
    ...     train_dataset=TripleDataset(load_triples("triples.jsonl")),
    ...     processing_class=tokenizer,
    ... )
    >>> trainer.train()
    ```
    """

    args: ScarTrainingArguments
    control: TrainerControl
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: ScarModel,
        args: ScarTrainingArguments,
        train_dataset: TripleDataset | None = None,
        eval_dataset: Sequence[Triple] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ) -> None:
        if processing_class is None:
            raise ValueError("`processing_class` is missing: pass the encoder's tokenizer.")
        if args.lora_r:
            model = _with_lora(model, args.lora_r, args.lora_alpha)
        collator = TripleCollator(
            processing_class, args.response_max_length or model.config.max_length, args.instruction_max_length
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self.last_evaluation: dict[str, Any] | None = None

    def evaluate(
        self,
        eval_dataset: Sequence[Triple] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate with [`evaluate_ranker`], store the full result in `last_evaluation`, and log the main metrics."""
        triples = self.eval_dataset if eval_dataset is None else eval_dataset
        ranker = self.ranker()
        training = ranker.training
        ranker.eval()
        scorer = ScarScorer.from_model(ranker, self.processing_class, max_length=self.data_collator.max_length)
        with self.accelerator.autocast():
            self.last_evaluation = evaluate_ranker(scorer, triples)
        ranker.train(training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.last_evaluation["all"].items()}
        if "macro" in self.last_evaluation:
            metrics[f"{metric_key_prefix}_macro"] = self.last_evaluation["macro"]
        for name in ("length_matched", "cross_instruction"):
            if name in self.last_evaluation["mean"]:
                metrics[f"{metric_key_prefix}_mean_{name}"] = self.last_evaluation["mean"][name]
        for source, values in self.last_evaluation["source"].items():
            if "llm_human" in values:
                metrics[f"{metric_key_prefix}_source_{source}"] = values["llm_human"]
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def ranker(self) -> ScarModel:
        """Return the [`ScarModel`] in training, without the wrappers of DDP and LoRA."""
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if self.args.lora_r else model

    def merged_ranker(self) -> ScarModel:
        """Return the trained [`ScarModel`] with LoRA adapters merged. Training cannot continue afterwards."""
        model = self.accelerator.unwrap_model(self.model)
        return model.merge_and_unload() if self.args.lora_r else model

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Create the optimizer, with a separate learning rate for the heads if `head_learning_rate` is set."""
        if self.optimizer is None and self.args.head_learning_rate:
            decayed = set(self.get_decay_parameter_names(self.model))
            groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    head = "surprisal_head" in name or "score_head" in name
                    groups.setdefault((head, name in decayed), []).append(parameter)
            cls, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = cls(
                [
                    {
                        "params": parameters,
                        "lr": self.args.head_learning_rate if head else self.args.learning_rate,
                        "weight_decay": self.args.weight_decay if decay else 0.0,
                    }
                    for (head, decay), parameters in groups.items()
                ],
                **settings,
            )
        return super().create_optimizer(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: TripleDataset | None = None) -> Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        return _SimilarLengths(self.args.train_batch_size, dataset, self.args.seed)


class _SimilarLengths(LengthGroupedSampler):
    """Batches of similar lengths, in an order determined by seed and epoch, so that a resumed run continues the same order."""

    def __init__(self, batch_size: int, dataset: TripleDataset, seed: int) -> None:
        super().__init__(batch_size, lengths=dataset.lengths(), generator=torch.Generator())
        self.dataset, self.seed = dataset, seed

    def __iter__(self) -> Iterator[int]:
        self.lengths = self.dataset.lengths()
        self.generator.manual_seed(self.seed + 1000 * self.dataset.epoch)
        return super().__iter__()


def _with_lora(model: ScarModel, rank: int, alpha: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("LoRA needs peft: pip install 'scar-hf[peft]'") from error
    targets = [f"encoder.{name}" for name, module in model.encoder.named_modules() if isinstance(module, torch.nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, modules_to_save=["surprisal_head", "score_head"])
    return get_peft_model(model, config)
