"""Rows of any format as TRL's SFTTrainer reads them, in memory, on streams and in files."""

from pathlib import Path

import pytest
from datasets import Dataset

from scar_hf import ScarScorer, scar_select
from scar_hf.files import read_dataset, write_dataset
from scar_hf.rows.sft import to_sft_format
from scar_hf.runs import select_files


def message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


@pytest.fixture
def trainer(tiny_lm, tiny_ranker, sft_config):
    """Makes a ScarSFTTrainer of a tiny language model, by default on all rows."""
    pytest.importorskip("trl")
    from scar_hf.trainer_callbacks import ScarArguments, ScarSFTTrainer

    def make(rows: list[dict] | Dataset, held_out: list[dict] | None = None, scar: dict | None = None, **settings):
        arguments = ScarArguments(**({"scar_k": 1.0, "scar_model": str(tiny_ranker), "scar_device": "cpu"} | (scar or {})))
        evaluation = Dataset.from_list(held_out) if held_out else None
        data = {"train_dataset": rows if isinstance(rows, Dataset) else Dataset.from_list(rows), "eval_dataset": evaluation}
        return ScarSFTTrainer(tiny_lm, sft_config(**settings), **data, scar_args=arguments)

    return make


def read(trainer, ds: Dataset) -> str:
    """The text of the first row as the model reads it."""
    return trainer.processing_class.decode(ds[0]["input_ids"])


U, A = message("user", "Q"), message("assistant", "A")
U2, A2, B2 = message("user", "Q2"), message("assistant", "A2"), message("assistant", "B2")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"conversations": ["Q", "A", "Q2", "A2"], "source": "lima"}], {"messages": [U, A, U2, A2]}),
        ([{"messages": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}], {"messages": [U, A]}),
        ([{"prompt": "read by TRL first", "messages": [U, A]}], {"messages": [U, A]}),
        ([{"Question": "Q", "Answer": "A"}], {"prompt": [U], "completion": [A]}),
        ([{"prompt": "Q", "chosen": "A", "rejected": "B"}], {"prompt": [U], "completion": [A]}),
        ([{"chosen": [U, A, U2, A2], "rejected": [U, A, U2, B2]}], {"prompt": [U, A, U2], "completion": [A2]}),
        ([{"prompt": "Q", "chosen": [U, A], "rejected": [U, B2], "messages": [U, A]}], {"prompt": [U], "completion": [A]}),
        ([{"instruction": "Q", "output": "A", "messages": None}, {"messages": [U2, A2]}], {"messages": [U, A]}),
        ([{"instruction": "Q", "output": "A", "text": None}, {"text": "### Instruction:\nQ2\n\n### Response:\nA2"}],
         {"text": "### Instruction:\nQ\n\n### Response:\nA"}),
        ([{"user": "Q", "assistant": "A"}, {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}],
         {"messages": [U, A]}),
        ([{"prompt": "Q", "completion": "A"}, {"question": "Q2", "answer": "A2"}], {"prompt": [U], "completion": [A]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["dataset", "stream", ".jsonl", ".parquet"])
def test_any_rows_become_those_that_trl_reads(suffix, rows, expected, tmp_path, write_jsonl, tiny_ranker):
    names = {name: None for row in rows for name in row}
    ds = Dataset.from_list([names | row for row in rows])
    if suffix in ("dataset", "stream"):
        made = list(to_sft_format(ds if suffix == "dataset" else ds.to_iterable_dataset()))
    else:
        data = write_jsonl(rows) if suffix == ".jsonl" else write_dataset(ds, tmp_path / "data.parquet")
        output = tmp_path / f"out{suffix}"
        select_files(data, output, ScarScorer(str(tiny_ranker), device="cpu"), 1.0, sft_format=True, progress=False)
        made = read_dataset(output).to_list()
    read = {"prompt", "completion", "messages", "text", "conversations"}
    assert {name: value for name, value in made[0].items() if name in read} == expected
    assert all(set(row) & read == set(expected) and all(row[name] for name in expected) for row in made)


def test_conversations_do_not_fit_into_csv(tmp_path, rows, write_jsonl, tiny_ranker):
    scorer = ScarScorer(str(tiny_ranker), device="cpu")
    with pytest.raises(ValueError, match=r"out.csv cannot hold the conversations.*write .jsonl or .parquet"):
        select_files(write_jsonl(rows), tmp_path / "out.csv", scorer, 0.5, sft_format=True, progress=False)
    with pytest.raises(ValueError, match=r"Rows read by a `formatting_func`"):
        scar_select(Dataset.from_list(rows), model=str(tiny_ranker), formatting_func=str, sft_format=True)


def test_the_text_that_the_settings_name_is_trained_on(trainer):
    own = trainer([{"instruction": "Q", "output": "A", "content": "My own template: Q, A"}], dataset_text_field="content")
    assert read(own, own.train_dataset) == "My own template: Q, A<|im_end|>"
    named = trainer([{"topic": "Q", "text": "A"}], scar={"scar_columns": ("topic", "text")})
    assert "<|im_start|>user\nQ<|im_end|>" in read(named, named.train_dataset)


@pytest.mark.parametrize(
    ("row", "scar"),
    [
        ({"ask": "Q", "reply": "A"}, {"scar_columns": ("ask", "reply")}),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, {"scar_preference": "margin"}),
    ],
)
def test_held_out_rows_may_have_another_format(row, scar, trainer):
    made = trainer([row], held_out=[{"instruction": "Q2", "output": "A2"}], scar=scar)
    assert "Q" in read(made, made.train_dataset) and "A2" in read(made, made.eval_dataset)


def test_a_transform_is_used_or_refused_but_never_dropped(trainer):
    def tokens(batch: dict) -> dict:
        return {name: [[1, 2, 3] for _ in batch["output"]] for name in ("input_ids", "labels")}

    rows = Dataset.from_list([{"instruction": "Q", "output": "A"}] * 4).with_transform(tokens)
    made = trainer(rows, dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False)
    assert made.train_dataset[0]["input_ids"] == [1, 2, 3]
    made.train()
    with pytest.raises(ValueError, match=r"with_transform"):
        trainer(rows)


def test_scores_that_came_with_the_rows_are_a_method(trainer):
    rows = [{"prompt": "Q", "completion": f"A{i}", "scar_score": float(i % 3)} for i in range(4)]
    made = trainer(rows, scar={"scar_method": "scar_score", "scar_k": 1})
    assert made.scar_selection.indices.tolist() == [2] and "A2" in read(made, made.train_dataset)


def test_a_run_on_other_rows_is_not_resumed_although_the_counts_are_the_same(trainer):
    def made(*rewards: float):
        rows = [{"prompt": "Q", "completion": f"A{i}", "reward": reward} for i, reward in enumerate(rewards)]
        return trainer(rows, scar={"scar_method": "reward", "scar_k": 2}, save_strategy="steps", save_steps=1)

    first = made(1, 2, 3, 4)
    first.train()
    with pytest.raises(ValueError, match=r"was trained on another selection \(the same counts, but other rows\)"):
        made(4, 3, 2, 1).train(resume_from_checkpoint=True)
    made(1, 2, 3, 4).train(resume_from_checkpoint=True)
    for scores in Path(first.args.output_dir).glob("*/scar_scores.safetensors"):
        scores.write_bytes(b"damaged")
    made(1, 2, 3, 4).train(resume_from_checkpoint=True)
