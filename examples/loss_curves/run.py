"""Fine-tune a small language model on the best k of a data set, on as many random rows, and on all, and draw the losses."""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from scar_hf.trainer_callbacks import ScarSelectionCallback, to_sft_format
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from scar_hf import scar_rank

matplotlib.use("agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
COLORS = {"top k": "#1b6e53", "random k": "#c0652b", "all": "#5b6b7f"}


def main() -> None:
    """Rank, train three times, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="JSON Lines with an instruction and a response")
    parser.add_argument("--model", required=True, help="a Hub id or folder of a chat model")
    parser.add_argument("--k", type=float, default=0.1, help="share of the rows (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=120, help="of each training (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--held_out", type=int, default=60, help="rows of each evaluation set (default: %(default)s)")
    parser.add_argument("--max_length", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("out/loss_curves"), help="(default: %(default)s)")
    args = parser.parse_args()

    rows = load_dataset("json", data_files=args.data, split="train").shuffle(seed=0)
    evaluation = {"human": rows.select(range(args.held_out)), "llm": llm_answers(args.held_out)}
    rows = rows.select(range(args.held_out, len(rows)))
    ranking = scar_rank(rows)
    top = ranking.top(args.k)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    sets = {"top k": top, "random k": rows.select(np.sort(shuffled[: len(top)])), "all": rows}
    logs = {}
    for name, ds in sets.items():
        logs[name] = train(name, ds, {key: to_sft_format(part) for key, part in evaluation.items()}, ranking, args)
        (args.output / "losses.json").write_text(json.dumps(logs, indent=1) + "\n", encoding="utf-8")
    draw(logs, args.output / "loss_curves.png")
    for name, log in logs.items():
        last = {key: round(value, 3) for entry in log for key, value in entry.items() if key.endswith("_loss")}
        print(f"{name:9} {len(sets[name]):6,} rows  {last}")


def llm_answers(count: int) -> Dataset:
    """Answers that language models gave directly, of the example that stands beside this one."""
    mixed = load_dataset("json", data_files=str(HERE.parent / "mixed_styles" / "mixed_styles.jsonl"), split="train")
    return mixed.filter(lambda row: row["source"] == "direct").shuffle(seed=0).select(range(count))


def train(name: str, ds: Dataset, evaluation: dict[str, Dataset], ranking: Any, args: argparse.Namespace) -> list[dict]:
    """Fine-tune with LoRA from the same start, and return what was logged."""
    set_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="bfloat16")
    config = SFTConfig(
        output_dir=str(args.output / name.replace(" ", "_")),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_length=args.max_length,
        gradient_checkpointing=False,
        logging_steps=max(1, args.steps // 24),
        eval_strategy="steps",
        eval_steps=max(1, args.steps // 4),
        eval_on_start=True,
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
    )
    trainer = SFTTrainer(
        model,
        config,
        train_dataset=to_sft_format(ds),
        eval_dataset=evaluation,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    if name == "top k":
        trainer.add_callback(ScarSelectionCallback(trainer, ranking, args.k))
    trainer.train()
    trainer.create_model_card(model_name=f"{Path(args.model).name} on {name}")
    trainer.save_model()
    return trainer.state.log_history


def draw(logs: dict[str, list[dict]], path: Path) -> None:
    """Three panels: the loss in training, on held-out human answers, and on LLM answers."""
    panels = {
        "loss": "training loss",
        "eval_human_loss": "loss on held-out human answers",
        "eval_llm_loss": "loss on LLM answers",
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, (key, title) in zip(axes, panels.items(), strict=True):
        for name, log in logs.items():
            points = [(entry["step"], entry[key]) for entry in log if key in entry]
            axis.plot(*zip(*points, strict=True), color=COLORS[name], label=name, marker="o" if "eval" in key else None, ms=4)
        axis.set(title=title, xlabel="step", ylabel="nats a token")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
