"""Training: metrics, the real trainer, and recipes from the command line to a loaded ranker."""

import json
import re

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoTokenizer

from scar_hf import ScarConfig, ScarModel, ScarScorer
from scar_hf.cli import main
from scar_hf.training import (
    ScarTrainer,
    ScarTrainingArguments,
    Triple,
    TripleDataset,
    evaluate_ranker,
    load_triples,
)
from scar_hf.training.augmentation import Augmentation
from scar_hf.training.recipe import RecipeArguments, only_above_negatives, read_parts

from .triple_data import triple_rows

CPU = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no"}


class LongerWins:
    """A ranker with one rule, whose metrics can be counted by hand."""

    def score(self, instructions, responses, progress=False):
        return np.array([len(text) for text in responses], dtype=np.float32)


def test_metrics_count_what_they_say():
    triples = [
        Triple("a", {"direct": ["four words are here"], "human": ["two words"]}, source="s", domain="open"),
        Triple("b", {"direct": ["no"], "referenced": ["a b c"], "human": ["a b c d e f"]}, source="s", domain="open"),
        Triple("c", {"direct": ["**x y z w**"], "human": ["x yy zz ww"]}, source="t", domain="open"),
        Triple("d", {"direct": ["x = 1"], "human": ["x = 1  # one"]}, source="u", domain="code"),
    ]
    metrics = evaluate_ranker(LongerWins(), triples)
    every = metrics["all"]
    assert every["pairs"] == 5 and every["llm_human"] == pytest.approx(2 / 5)
    assert every["direct_human"] == pytest.approx(2 / 4) and every["referenced_human"] == 0 and every["direct_referenced"] == 0
    assert every["complete"] == 0
    assert every["length_matched_pairs"] == 1 and every["length_matched"] == 1  # row c: four words against four
    assert every["markdown_stripped"] == pytest.approx(1 / 5)  # without its asterisks row c's direct answer is shorter
    assert every["comments_stripped"] == 0.5  # row d becomes a tie
    assert metrics["source"]["t"]["llm_human"] == 1 and metrics["domain"]["code"]["llm_human"] == 0
    assert every["longer_wins"] == pytest.approx((1 + 0 + 0 + 0.5 + 0) / 5)
    assert metrics["macro"] == pytest.approx((1 / 3 + 1 + 0) / 3)


def trainer(encoder_folder, out, **settings):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    model = ScarModel.from_encoder(str(encoder_folder), ScarConfig(max_length=48))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    args = ScarTrainingArguments(str(out), **(CPU | {"per_device_train_batch_size": 8, "learning_rate": 1e-3} | settings))
    dataset = TripleDataset(load_triples(triple_rows(32)), augmentation=Augmentation(window=0.2))
    return ScarTrainer(model, args, dataset, load_triples(triple_rows(8)), processing_class=tokenizer)


def test_training_learns_the_ordering(encoder_folder, tmp_path):
    run = trainer(encoder_folder, tmp_path / "o", num_train_epochs=6, head_learning_rate=3e-3)
    before = run.evaluate()["eval_llm_human"]
    run.train()
    after = run.evaluate()
    assert after["eval_llm_human"] > max(0.9, before) and after["eval_direct_referenced"] > 0.8
    assert after["eval_source_web"] > 0.9 and run.last_evaluation["all"]["length_matched"] > 0.8
    rates = {group["initial_lr"] for group in run.optimizer.param_groups}
    assert rates == {1e-3, 3e-3}


def test_a_resumed_run_ends_where_an_undisturbed_one_does(encoder_folder, tmp_path):
    whole = trainer(encoder_folder, tmp_path / "whole", max_steps=6)
    whole.train()
    assert whole.train_dataset.epoch == 1  # the loader tells the dataset, so that each epoch draws anew
    first = trainer(encoder_folder, tmp_path / "parts", max_steps=6, save_strategy="steps", save_steps=3)
    first.train()
    second = trainer(encoder_folder, tmp_path / "parts", max_steps=6, save_strategy="steps", save_steps=3)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    for (name, expected), (_, resumed) in zip(whole.model.named_parameters(), second.model.named_parameters(), strict=True):
        torch.testing.assert_close(resumed, expected, msg=name)


def test_lora_trains_adapters_and_merges_them(encoder_folder, tmp_path):
    pytest.importorskip("peft")
    run = trainer(encoder_folder, tmp_path / "o", max_steps=4, lora_r=4)
    trained = [name for name, parameter in run.model.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name or "_head" in name for name in trained)
    original = ScarModel.from_encoder(str(encoder_folder)).encoder.state_dict()
    run.train()
    adapted = run.evaluate()
    merged = run.merged_ranker()
    assert type(merged) is ScarModel and not any("lora" in name for name in merged.state_dict())
    moved = [
        n for n, w in merged.encoder.state_dict().items() if n.endswith("query.weight") and not torch.equal(w, original[n])
    ]
    kept = [n for n, w in merged.encoder.state_dict().items() if "embeddings" in n and torch.equal(w, original[n])]
    assert moved and kept
    scorer = ScarScorer.from_model(merged.eval(), run.processing_class, max_length=48)
    again = evaluate_ranker(scorer, run.eval_dataset)
    assert again["all"]["llm_human"] == pytest.approx(adapted["eval_llm_human"])


def test_a_recipe_makes_a_ranker(encoder_folder, write_jsonl, tmp_path, capsys):
    data = write_jsonl(triple_rows(120, sources=("web", "lab", "shop")), "triples.jsonl")
    write_jsonl([{"instruction": r["instruction"], "response": r["human"]} for r in triple_rows(20)], "humans.jsonl")
    recipe = {
        "train_files": ["triples.jsonl"],
        "held_out_sources": ["shop"],
        "rows_per_source": {"web": 30, "humans": 10},
        "instruction_files": ["humans.jsonl"],
        "negatives": {"refusal": 0.3, "mismatch": 0.2},
        "pooling": "mean",
        "surprisal_features": "interaction",
        "cross_instruction_weight": 0.2,
        "calibration_files": ["humans.jsonl"],
        "early_stopping_patience": 3,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "metric_for_best_model": "macro",
        "load_best_model_at_end": True,
        "num_train_epochs": 2,
        "learning_rate": 1.0e-3,
        "per_device_train_batch_size": 8,
        "max_length": 48,
        "dropout": 0.0,
        "bf16": True,
        "report_to": "none",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "ranker"
    args = [
        "--config",
        tmp_path / "recipe.yaml",
        "--encoder",
        encoder_folder,
        "--data_dir",
        data.parent,
        "--output_dir",
        out,
        "--alpha",
        "0.6",
    ]
    assert main(["train", *map(str, args)]) == 0
    assert "Saved the ranker" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"test", "held_out"} and set(metrics["held_out"]["source"]) == {"shop"}
    assert set(metrics["test"]["source"]) <= {"web", "lab"} and metrics["held_out"]["all"]["llm_human"] > 0.8
    assert str(tmp_path) not in (out / "config.json").read_text(), "it is published"
    config = ScarConfig.from_pretrained(out)
    assert config.surprisal_features == "interaction" and config.cross_instruction_weight == 0.2
    assert config.alpha == 0.6 and config.training["sources"] == ["lab", "web"]
    quantiles = config.calibration["quantiles"]
    assert len(quantiles) == 1001 and quantiles == sorted(quantiles) and config.calibration["num_rows"] > 20
    scorer = ScarScorer.from_pretrained(str(out), device="cpu", dtype="float32")
    assert scorer.model.dtype == torch.float32 and scorer.model.config.max_length == 48
    low, high = scorer.score(["Tell me."] * 2, ["dunno really stone lol", "Certainly! Here is an overview: stone."])
    assert high > low

    continued = tmp_path / "continued"
    args[3], args[-1] = out, "0.7"
    steps = ["--max_steps", "1", "--learning_rate", "1e-9", "--head_learning_rate", "1e-9", "--pooling", "first_token"]
    assert main(["train", *map(str, args), *steps, "--output_dir", str(continued)]) == 0
    config = ScarConfig.from_pretrained(continued)
    assert (config.alpha, config.pooling, config.surprisal_features) == (0.7, "mean", "interaction")
    again = ScarScorer.from_pretrained(str(continued), device="cpu", dtype="float32")
    assert again.score(["Tell me."], ["Certainly! Here is an overview: stone."])[0] == pytest.approx(high, abs=1e-3)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("train_files: [t.jsonl]\nlerning_rate: 1", r"unknown options: \['lerning_rate'\]"),
        ("- a list", "must map options to values, got list"),
        ("a: [", "not valid YAML"),
        ("train_files: [t.jsonl]\nheld_out_sources: [moon]", r"does not have: \['moon'\]"),
        ("train_files: [nowhere.jsonl]", "nowhere.jsonl does not exist"),
    ],
)
def test_wrong_recipes(recipe, message, tmp_path, encoder_folder, write_jsonl, capsys):
    write_jsonl(triple_rows(4), "t.jsonl")
    (tmp_path / "r.yaml").write_text(recipe)
    args = [
        "--config",
        tmp_path / "r.yaml",
        "--encoder",
        encoder_folder,
        "--data_dir",
        tmp_path,
        "--output_dir",
        tmp_path / "o",
    ]
    assert main(["train", *map(str, args)]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_train_help_lists_everything(capsys):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--train_files" in shown and "--head_learning_rate" in shown and "--learning_rate" in shown


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"[]", "The encoder .* cannot be loaded: TypeError"),
        ("config.json", b'{"model_type": "bert", "hidden_size": "x"}', "expected int, got str"),
        ("model.safetensors", b"junk", "The encoder .* cannot be loaded: SafetensorError"),
        ("tokenizer.json", b'{"a', "The encoder .* cannot be loaded: Unterminated string"),
        (None, "--response_max_length=-1", "--response_max_length must be at least 3"),
        (None, "--instruction_max_length=500", "at most what the encoder reads, 128, got 500"),
    ],
)
def test_a_damaged_encoder_is_named_in_a_line(name, content, message, encoder_folder, write_jsonl, tmp_path, capsys):
    triples = write_jsonl([{"instruction": f"q {i}", "direct": f"d {i}", "human": f"h {i}"} for i in range(20)])
    more = [] if name is not None else [content]
    if name is not None:
        (encoder_folder / name).write_bytes(content)
    command = [
        "train",
        "--train_files",
        triples,
        "--encoder",
        encoder_folder,
        "--output_dir",
        tmp_path / "out",
        "--use_cpu",
        *more,
    ]
    assert main([*map(str, command), "--report_to", "none"]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_ranker_reads_no_more_than_its_encoder(encoder_folder, write_jsonl, tmp_path, caplog):
    triples = write_jsonl([{"instruction": f"q {i}", "direct": f"d {i}", "human": f"h {i}"} for i in range(40)])
    command = ["train", "--train_files", triples, "--encoder", encoder_folder, "--output_dir", tmp_path / "out", "--use_cpu"]
    assert main([*map(str, command), "--report_to", "none", "--max_steps", "1", "--disable_tqdm", "True"]) == 0
    assert "reads at most 128 tokens, and so will the ranker" in caplog.text
    scorer = ScarScorer.from_pretrained(str(tmp_path / "out"), device="cpu", dtype="float32")
    assert scorer.read_length == 128 and np.isfinite(scorer.score("q", "word " * 1000))


def test_no_part_of_a_recipe_shares_an_instruction_with_another(tmp_path, write_jsonl):
    def rows(source: str, numbers: range, ask: str = "Question {}?") -> list[dict]:
        texts = [(ask.format(i), f"The human answer {i}.", f"Certainly! {source} answers {i}.") for i in numbers]
        return [{"instruction": x, "human": h, "direct": d, "source": source} for x, h, d in texts]

    write_jsonl([*rows("web", range(100)), *rows("lab", range(0, 100, 2), "Please: question {}?")], "triples.jsonl")
    (tmp_path / "data").mkdir()
    write_jsonl([{"instruction": f"QUESTION  {i}?", "response": "x"} for i in (1, 3, 5)], "excluded.jsonl").rename(
        tmp_path / "data" / "excluded.jsonl"
    )
    asked = [{"instruction": f"question {i}?", "response": "said"} for i in range(100)]
    write_jsonl(asked, "humans.jsonl").rename(tmp_path / "data" / "humans.jsonl")
    (tmp_path / "triples.jsonl").rename(tmp_path / "data" / "triples.jsonl")
    recipe = RecipeArguments(
        encoder="not loaded here",
        train_files=["triples.jsonl"],
        held_out_sources=["lab"],
        excluded_files=["excluded.jsonl"],
        instruction_files=["humans.jsonl"],
        data_dir=str(tmp_path / "data"),
    )
    parts = read_parts(recipe)
    assert len(parts["held_out"]) == 50
    rest = [triple.instruction for name in ("train", "validation", "test") for triple in parts[name]]
    assert sorted(rest) == sorted(f"Question {i}?" for i in range(7, 100, 2))
    above = {triple.instruction.lower() for triple in only_above_negatives(recipe, parts)}
    assert above == {row["instruction"] for row in asked} - {f"question {i}?" for i in (1, 3, 5)} - {
        triple.instruction.lower() for name in ("validation", "test") for triple in parts[name]
    }
