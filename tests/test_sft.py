"""The real SFTTrainer on what was selected: every format it takes, in every way it trains."""

import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Dataset, load_dataset

pytest.importorskip("trl")

import trl
from peft import LoraConfig
from scar_hf.trainer_callbacks import (
    ScarArguments,
    ScarSelectionCallback,
    ScarSFTTrainer,
    SelectionCardMixin,
    to_sft_format,
)
from trl import SFTTrainer

from scar_hf import ScarScorer, scar_filter, scar_rank, scar_score, scar_select
from scar_hf.files import read_dataset, write_dataset
from scar_hf.runs import select_files

# Messages of TRL, transformers and accelerate that are no failure, with the reason.
EXPECTED_MESSAGES = (
    "The tokenizer has new",  # says that the tiny model takes its padding token from the tokenizer
    "`loss_type=None` was set in the config",
)
TOPICS = ["bees", "rivers", "bread", "glass", "chess", "wool", "tides", "maps", "moss", "clocks"]
ASKED = [f"Tell me about {topic}." for topic in TOPICS]
SAID = [f"All about {topic}: " + "it is well known. " * (i % 4 + 1) for i, topic in enumerate(TOPICS)]


def message(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def rows_of_format(name: str) -> list[dict]:
    """Ten rows in a format of SFTTrainer's, or one that is brought into it."""
    pairs = list(zip(ASKED, SAID, strict=True))
    make = {
        "text": lambda x, y: {
            "text": f"<|im_start|>user\n{x}<|im_end|>\n<|im_start|>assistant\n{y}<|im_end|>\n",
        },
        "prompt-completion": lambda x, y: {"prompt": x, "completion": y},
        "prompt-completion messages": lambda x, y: {"prompt": [message("user", x)], "completion": [message("assistant", y)]},
        "messages": lambda x, y: {"messages": [message("user", x), message("assistant", y)]},
        "messages with tools": lambda x, y: {
            "messages": [message("user", x), message("tool", "42"), message("assistant", y)],
            "tools": [{"type": "function", "function": {"name": "look_up", "description": "Looks up."}}],
        },
        "vicuna": lambda x, y: {"conversations": [{"from": "human", "value": x}, {"from": "gpt", "value": y}]},
        "alpaca": lambda x, y: {"instruction": x, "input": "", "output": y},
        "dolly": lambda x, y: {"instruction": x, "context": "", "response": y, "category": "qa"},
    }[name]
    return [make(x, y) for x, y in pairs]


FORMATS = ["text", "prompt-completion", "prompt-completion messages", "messages", "messages with tools", "vicuna", "alpaca",
           "dolly"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_messages(monkeypatch):
    """What TRL, transformers or accelerate warn of in their logs is a failure, unless it is listed."""
    seen: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(f"{record.name}: {record.getMessage()}")

    handler = Keep(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("trl", "transformers", "accelerate", "peft")]
    for logger in loggers:
        logger.addHandler(handler)
    yield
    for logger in loggers:
        logger.removeHandler(handler)
    assert [text for text in seen if not any(known in text for known in EXPECTED_MESSAGES)] == []


@pytest.fixture
def arguments(tiny_ranker):
    def make(**settings) -> ScarArguments:
        return ScarArguments(**({"scar_k": 0.5, "scar_model": str(tiny_ranker), "scar_device": "cpu"} | settings))

    return make


def trained(trainer: SFTTrainer) -> list[float]:
    """Train, and return the loss of each step."""
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert trainer.state.global_step == trainer.args.max_steps and np.isfinite(losses).all()
    return losses


@pytest.mark.parametrize("name", FORMATS)
def test_sft_trainer_takes_what_was_selected(name, tiny_lm, tiny_ranker, sft_config):
    selected = scar_select(Dataset.from_list(rows_of_format(name)), k=0.5, model=str(tiny_ranker), progress=False)
    trainer = SFTTrainer(tiny_lm, sft_config(), train_dataset=to_sft_format(selected))
    assert len(trainer.train_dataset) == 5
    assert len(trained(trainer)) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_selected_in_the_format_of_trl_trains(name, tiny_lm, tiny_ranker, sft_config, tmp_path):
    ds, settings = Dataset.from_list(rows_of_format(name)), {"model": str(tiny_ranker), "device": "cpu"}
    best = scar_select(ds, k=0.5, sft_format=True, progress=False, **settings)
    for suffix in (".jsonl", ".parquet"):
        data, output = write_dataset(ds, tmp_path / f"data{suffix}"), tmp_path / f"best{suffix}"
        select_files(data, output, ScarScorer(**settings), 0.5, sft_format=True, progress=False)
        written = read_dataset(output)
        assert set(written.column_names) == set(best.column_names)
        for column in {"prompt", "completion", "messages", "text"} & set(best.column_names):
            assert written[column][:] == best[column][:]
    assert len(trained(SFTTrainer(tiny_lm, sft_config(), train_dataset=best))) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_scar_sft_trainer_trains_on_the_best(name, tiny_lm, sft_config, arguments, tiny_ranker):
    ds = Dataset.from_list(rows_of_format(name))
    evaluation = ds.select(range(3))
    trainer = ScarSFTTrainer(
        tiny_lm,
        sft_config(eval_strategy="steps", eval_steps=2),
        train_dataset=ds,
        eval_dataset=evaluation,
        scar_args=arguments(),
    )
    assert len(trainer.train_dataset) == 5 and len(trainer.eval_dataset) == 3
    np.testing.assert_array_equal(trainer.scar_ranking.scores, scar_rank(ds, model=str(tiny_ranker), progress=False).scores)
    np.testing.assert_allclose(sorted(trainer.train_dataset["scar_score"][:]), np.sort(trainer.scar_ranking.scores)[5:])
    assert len(trained(trainer)) == 2
    assert any("eval_loss" in entry for entry in trainer.state.log_history)


def test_roles_of_vicuna_are_those_of_a_chat_template():
    converted = to_sft_format(Dataset.from_list(rows_of_format("vicuna")))
    assert converted.column_names == ["messages"]
    assert [m["role"] for m in converted[0]["messages"]] == ["user", "assistant"]
    assert converted[0]["messages"][1]["content"] == SAID[0]
    dolly = to_sft_format(Dataset.from_list([{**rows_of_format("dolly")[0], "context": "A text.", "id": 7}]))
    assert dolly[0]["prompt"] == [message("user", f"{ASKED[0]}\n\nA text.")] and dolly[0]["id"] == 7
    kept = Dataset.from_list(rows_of_format("messages"))
    assert to_sft_format(kept) is kept


def test_rows_whose_prompt_fills_the_length_are_counted(tiny_lm, sft_config, arguments, caplog, tmp_path):
    rows = [{"prompt": "Q " * (100 if i < 2 else 1), "completion": f"A{i} and so on."} for i in range(6)]
    config = sft_config(max_length=64, save_strategy="steps", save_steps=2)
    with caplog.at_level(logging.WARNING, logger="scar_hf"):
        trainer = ScarSFTTrainer(tiny_lm, config, train_dataset=Dataset.from_list(rows), scar_args=arguments(scar_k=1.0))
    assert "2 of the 6 selected rows are not trained on: their prompts fill max_length=64" in caplog.text
    assert trainer.scar_too_long == 2 and len(trainer.train_dataset) == 4
    trained(trainer)
    assert [entry["scar/too_long"] for entry in trainer.state.log_history if "scar/kept" in entry] == [2]
    card = (tmp_path / "run" / "checkpoint-2" / "README.md").read_text()
    assert "| Rows trained on | 4 (66.7%) |" in card and "whose prompts fill the length of training | 2 |" in card


def test_evaluation_on_other_rows_is_converted(tiny_lm, sft_config, arguments):
    raw = Dataset.from_list(rows_of_format("alpaca"))
    trainer = ScarSFTTrainer(tiny_lm, sft_config(), train_dataset=raw, scar_args=arguments())
    assert np.isfinite(trainer.evaluate(raw.select(range(3)))["eval_loss"])
    found = trainer.evaluate({"one": raw.select(range(2)), "two": Dataset.from_list(rows_of_format("vicuna"))})
    assert {"eval_one_loss", "eval_two_loss"} <= set(found)


def test_named_columns_are_those_that_are_trained_on(tiny_lm, sft_config, arguments):
    ds = Dataset.from_list([{"ask": f"Q{i}?", "reply": f"A{i}.", "instruction": "no", "output": "no"} for i in range(4)])
    args = arguments(scar_columns=("ask", "reply"))
    trainer = ScarSFTTrainer(tiny_lm, sft_config(), train_dataset=ds, scar_args=args)
    text = trainer.processing_class.decode(trainer.train_dataset[0]["input_ids"])
    assert "Q" in text and "A" in text and "no" not in text


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("messages", {"packing": True}),
        ("messages", {"packing": True, "packing_strategy": "wrapped"}),
        ("prompt-completion", {"completion_only_loss": True}),
        ("prompt-completion", {"completion_only_loss": False}),
        ("messages", {"assistant_only_loss": True}),
        ("vicuna", {"assistant_only_loss": True, "shuffle_dataset": True}),
    ],
)
def test_the_ways_to_train(name, settings, tiny_lm, sft_config, arguments):
    ds = Dataset.from_list(rows_of_format(name) * 3)
    trainer = ScarSFTTrainer(tiny_lm, sft_config(**settings), train_dataset=ds, scar_args=arguments())
    assert len(trained(trainer)) == 2
    if settings.get("assistant_only_loss"):
        labels = trainer.train_dataset[0]["labels"]
        assert -100 in labels and any(label != -100 for label in labels)


def test_lora_and_its_card(tiny_lm, sft_config, arguments, tmp_path):
    trainer = ScarSFTTrainer(
        tiny_lm,
        sft_config(save_strategy="steps", save_steps=1),
        train_dataset=Dataset.from_list(rows_of_format("messages")),
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
        scar_args=arguments(),
    )
    trained(trainer)
    trainer.save_model()
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        card = (folder / "README.md").read_text()
        assert card.count("## Data selection") == 1 and "PEFT" in card, folder
        assert "| Rows trained on | 5 (50.0%) |" in card and "data-selection" in card
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()


def test_a_stream_is_filtered_and_trained_on(tiny_lm, sft_config, write_jsonl, tiny_ranker):
    rows = rows_of_format("messages")
    ranking = scar_rank(Dataset.from_list(rows), model=str(tiny_ranker), progress=False)
    stream = load_dataset("json", data_files=str(write_jsonl(rows)), streaming=True, split="train")
    best = stream.filter(scar_filter(threshold=ranking.threshold(0.5), model=str(tiny_ranker)), batched=True)
    trainer = SFTTrainer(tiny_lm, sft_config(), train_dataset=best)
    assert len(list(trainer.train_dataset)) == 5
    assert len(trained(trainer)) == 2


def test_what_contradicts_itself_is_refused(tiny_lm, sft_config, arguments, write_jsonl):
    ds = Dataset.from_list(rows_of_format("messages"))
    stream = load_dataset("json", data_files=str(write_jsonl(rows_of_format("messages"))), streaming=True, split="train")
    with pytest.raises(TypeError, match="cannot rank a stream"):
        ScarSFTTrainer(tiny_lm, sft_config(), train_dataset=stream, scar_args=arguments())
    with pytest.raises(ValueError, match="No instruction and response found"):
        ScarSFTTrainer(tiny_lm, sft_config(), train_dataset=Dataset.from_dict({"a": ["x"]}), scar_args=arguments())
    with pytest.raises(ValueError, match="cannot be used with packing=True"):
        ScarSFTTrainer(tiny_lm, sft_config(packing=True), train_dataset=ds, scar_args=arguments(scar_start_k=0.1))
    with pytest.raises(TypeError, match="tokenizer"):
        ScarSFTTrainer(tiny_lm, sft_config(), train_dataset=ds, tokenizer=None)
    for wrong in ({"scar_k": 0.0}, {"scar_k": -3}, {"scar_start_k": 2.5}, {"scar_widen": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ScarArguments(**wrong)
    assert ScarArguments(scar_k=500.0).scar_k == 500 and isinstance(ScarArguments(scar_k=500.0).scar_k, int)
    assert ScarArguments(scar_k=1.0).scar_k == 1.0


@pytest.mark.parametrize(
    ("name", "settings"), [("messages", {"scar_max_length": 8}), ("dolly", {"scar_columns": ["instruction", "response"]})]
)
def test_a_selection_is_known_again_whatever_decided_it(name, settings, tiny_lm, sft_config, arguments, monkeypatch):
    """Rows that were cut, and columns that were named, survive the checkpoint's JSON and tensors."""
    rows = rows_of_format(name)
    saving = {"save_strategy": "steps", "save_steps": 1}
    first = sft_config(max_steps=1, **saving)
    trained(ScarSFTTrainer(tiny_lm, first, train_dataset=Dataset.from_list(rows), scar_args=arguments(**settings)))
    monkeypatch.setattr("scar_hf.scoring.scorer.ScarScorer.score_chunks", lambda *a, **k: pytest.fail("scored again"))
    again = ScarSFTTrainer(
        tiny_lm, sft_config(**saving), train_dataset=Dataset.from_list(rows), scar_args=arguments(**settings)
    )
    assert bool(again.scar_ranking.truncated.any()) == ("scar_max_length" in settings)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 2


def test_a_resumed_run_takes_the_stored_selection(tiny_lm, sft_config, arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("SCAR_HF_CACHE", str(tmp_path / "cache"))
    ds = Dataset.from_list(rows_of_format("messages"))
    settings = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    whole = ScarSFTTrainer(tiny_lm, sft_config(**settings, max_steps=4, output_dir=str(tmp_path / "whole")),
                           train_dataset=ds, scar_args=arguments())  # fmt: skip
    expected = trained(whole)
    first = ScarSFTTrainer(tiny_lm, sft_config(**settings, max_steps=4), train_dataset=ds, scar_args=arguments())
    first.args.max_steps = 2
    trained(first)

    # Neither the ranker's scores on disk nor the ranker itself are needed again.
    monkeypatch.setenv("SCAR_HF_CACHE", str(tmp_path / "another-cache"))
    monkeypatch.setattr("scar_hf.scoring.scorer.ScarScorer.score_chunks", lambda *a, **k: pytest.fail("scored again"))
    again = ScarSFTTrainer(tiny_lm, sft_config(**settings, max_steps=4), train_dataset=ds, scar_args=arguments())
    assert again.scar_callback.manifest["selection"] == first.scar_callback.manifest["selection"]
    again.train(resume_from_checkpoint=True)
    losses = [entry["loss"] for entry in again.state.log_history if "loss" in entry]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert sum("scar/kept" in entry for entry in again.state.log_history) == 1
    other = ScarSFTTrainer(tiny_lm, sft_config(**settings), train_dataset=ds, scar_args=arguments(scar_k=0.3))
    with pytest.raises(ValueError, match=r"was trained on another selection.*options"):
        other.train(resume_from_checkpoint=True)
    monkeypatch.undo()
    changed = Dataset.from_list(rows_of_format("messages")[::-1])
    other = ScarSFTTrainer(tiny_lm, sft_config(**settings), train_dataset=changed, scar_args=arguments())
    with pytest.raises(ValueError, match=r"was trained on another selection.*inputs"):
        other.train(resume_from_checkpoint=str(Path(other.args.output_dir) / "checkpoint-2"))


def test_the_callback_tells_trackers_checkpoints_and_the_card(tiny_lm, sft_config, tiny_ranker, tmp_path):
    rows = rows_of_format("messages")
    rows[3]["messages"][1]["content"] = ""
    ranking = scar_rank(Dataset.from_list(rows), model=str(tiny_ranker), progress=False)
    config = sft_config(save_strategy="steps", save_steps=1)
    trainer = type("Ours", (SelectionCardMixin, SFTTrainer), {})(tiny_lm, config, train_dataset=ranking.top(0.4))
    trainer.add_callback(ScarSelectionCallback(trainer, ranking, k=0.4))
    trained(trainer)
    (logged,) = [entry for entry in trainer.state.log_history if "scar/kept" in entry]
    assert logged["scar/rows"] == 10 and logged["scar/kept"] == 4 and logged["scar/skipped"] == 1
    assert logged["scar/threshold"] == pytest.approx(ranking.threshold(0.4))
    assert logged["scar/score_kept_q10"] >= logged["scar/threshold"] - 1e-6 and logged["step"] == 0
    run = tmp_path / "run"
    card = run / "README.md"
    (run / "checkpoint-1" / "scar_selection.json").read_text()
    for rewrite in (trainer.create_model_card, trainer.save_model, lambda: trainer.create_model_card("mine", "me/data")):
        rewrite()
        text = card.read_text()
        assert text.count("## Data selection") == 1 and text.count("scar-hf:selection -->") == 2
    assert "| Rows without a score | 1 |" in text and text.count("data-selection") == 1
    again = ScarSelectionCallback(trainer, run / "checkpoint-2")
    assert again.manifest == ranking.manifest(0.4) and again.metrics["scar/kept"] == 4
    with pytest.raises(ValueError, match="is not the manifest of a selection"):
        ScarSelectionCallback(trainer, card)
    with pytest.raises(ValueError, match="Pass `k` with a ranking"):
        ScarSelectionCallback(trainer, ranking)


def test_the_lines_of_the_readme(tiny_lm, sft_config, monkeypatch, capsys):
    """README's first two blocks as they stand, on fewer rows, and with a model that is at hand."""
    root = Path(__file__).parent.parent
    first, second = (
        block.split("```")[0] for block in (root / "README.md").read_text(encoding="utf-8").split("```python")[1:3]
    )
    load = datasets.load_dataset
    monkeypatch.chdir(root)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: load(*args, **kwargs).select(range(40)))
    settings = sft_config()
    monkeypatch.setattr(
        trl, "SFTTrainer", lambda name, train_dataset: SFTTrainer(tiny_lm, settings, train_dataset=train_dataset)
    )
    names: dict = {}
    exec(first, names)
    assert capsys.readouterr().out.startswith("4 ") and len(names["best"]) == 4
    exec(second, names)
    # TRL leaves out rows whose prompt fills the small context of this model.
    assert 2 <= len(names["trainer"].train_dataset) <= 4
    trained(names["trainer"])


def test_scores_of_a_stream_come_with_the_rows(write_jsonl, tiny_ranker):
    stream = load_dataset("json", data_files=str(write_jsonl(rows_of_format("messages"))), streaming=True, split="train")
    scored = list(stream.map(scar_score(str(tiny_ranker)), batched=True))
    assert all(isinstance(row["scar_score"], float) for row in scored) and len(scored) == 10


def test_rows_without_any_score_are_an_error_with_the_reasons(tiny_lm, tiny_ranker, sft_config):
    ds = Dataset.from_list([{"prompt": "q", "completion": " "}] * 4)
    with pytest.raises(ValueError, match=r"Nothing can be selected from 4 rows: .*4 × the response is empty"):
        ScarSFTTrainer(tiny_lm, sft_config(), train_dataset=ds, scar_args=ScarArguments(scar_model=str(tiny_ranker)))


def test_plain_training_arguments_are_taken_as_sft_trainer_takes_them(tiny_lm, tiny_ranker, tmp_path, rows):
    from transformers import TrainingArguments

    args = TrainingArguments(tmp_path / "run", max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True)
    scar_args = ScarArguments(scar_k=0.5, scar_model=str(tiny_ranker))
    trainer = ScarSFTTrainer(tiny_lm, args, train_dataset=Dataset.from_list(rows), scar_args=scar_args)
    assert len(trainer.train_dataset) == 5 and trainer.args.max_steps == 1


def test_a_card_that_cannot_be_read_ends_no_run(tiny_lm, sft_config, arguments, tmp_path, caplog):
    ds = Dataset.from_list(rows_of_format("messages"))
    trainer = ScarSFTTrainer(tiny_lm, sft_config(), train_dataset=ds, scar_args=arguments())
    card = tmp_path / "run" / "README.md"
    card.parent.mkdir(exist_ok=True)
    card.write_text("---\n- mine\n---\n")
    assert len(trained(trainer)) == 2 and card.read_text() == "---\n- mine\n---\n"
    assert f"is missing in {card}: The metadata of" in caplog.text
