"""Selection inside batches, and the curriculum: what the model sees, step by step."""

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset

pytest.importorskip("trl")

from scar_hf.trainer_callbacks import ScarArguments, ScarCurriculumSampler, ScarDataCollator, ScarSFTTrainer, curriculum_order
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from scar_hf import scar_score

ROWS = [{"text": f"{chr(97 + i) * (i + 3)}<|im_end|>", "scar_score": float(i * 7 % 12)} for i in range(12)]


@pytest.fixture
def collator(tiny_lm):
    pad = AutoTokenizer.from_pretrained(tiny_lm).pad_token_id
    return lambda **settings: ScarDataCollator(DataCollatorForLanguageModeling(pad_token_id=pad), **settings)


class Seen(TrainerCallback):
    """Notes the batches as the model is given them."""

    def __init__(self, trainer):
        self.batches: list[dict] = []
        forward = trainer.model.forward

        def note(*args, **kwargs):
            self.batches.append({name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)})
            return forward(*args, **kwargs)

        trainer.model.forward = note


def features(scores: list[float | None]) -> list[dict]:
    return [{"input_ids": [10 + i] * (i + 1), "labels": [10 + i] * (i + 1), "scar_score": s} for i, s in enumerate(scores)]


def kept(batch: dict) -> list[int]:
    return (batch["input_ids"][:, 0] - 10).tolist()


def test_a_batch_keeps_its_best_in_their_order(collator):
    scores = [0.5, None, 2.0, float("nan"), 1.0, 2.0]
    assert kept(collator(k=0.5)(features(scores))) == [2, 4, 5]
    assert kept(collator(k=1)(features(scores))) == [2]
    assert kept(collator(k=1.0)(features(scores))) == [0, 2, 4, 5]
    assert kept(collator(k=0.5)(features([None, None]))) == [0]
    batch = collator(k=2)(features(scores))
    assert set(batch) == {"input_ids", "labels", "attention_mask"} and batch["input_ids"].shape == (2, 6)
    with pytest.raises(ValueError, match=r"1 of 2 rows of a batch have no 'scar_score'"):
        collator()([*features([1.0]), {"input_ids": [1], "labels": [1]}])


def test_what_cannot_work_is_refused_at_construction(collator, sft_config, tiny_lm):
    with pytest.raises(ValueError, match=r"padding-free collator.*scar_select"):
        ScarDataCollator(DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True))
    for wrong in ({"k": 0}, {"k": 1.5}, {"mode": "loudest"}):
        with pytest.raises(ValueError, match="got"):
            collator(**wrong)
    ds = Dataset.from_list(ROWS)
    for settings in ({"packing": True}, {"packing": True, "packing_strategy": "wrapped"}, {"padding_free": True}):
        with pytest.raises(ValueError, match=r"cannot be used with .*Rank beforehand"):
            ScarSFTTrainer(tiny_lm, sft_config(**settings), collator(), train_dataset=ds)
    with pytest.raises(ValueError, match="needs loss_type='nll'"):
        ScarSFTTrainer(tiny_lm, sft_config(loss_type="dft"), collator(mode="weight"), train_dataset=ds)
    with pytest.raises(ValueError, match="cannot be used with label_smoothing_factor"):
        ScarSFTTrainer(tiny_lm, sft_config(label_smoothing_factor=0.1), collator(mode="weight"), train_dataset=ds)
    with pytest.raises(ValueError, match="cannot be used with compute_loss_func"):
        ScarSFTTrainer(tiny_lm, sft_config(), collator(mode="weight"), train_dataset=ds, compute_loss_func=print)
    with pytest.raises(ValueError, match="needs ScarSFTTrainer"):
        collator(mode="weight")(features([1.0]))
    with pytest.raises(ValueError, match="got the count k=3"):
        ScarSFTTrainer(tiny_lm, sft_config(), collator(k=3), train_dataset=ds).train()


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_the_optimiser_sees_the_batch_size_asked_for(share, collator, sft_config, tiny_lm):
    evaluation = Dataset.from_list([{"text": row["text"]} for row in ROWS[:3]])
    trainer = ScarSFTTrainer(
        tiny_lm,
        sft_config(max_steps=1, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=3),
        collator(k=share),
        train_dataset=Dataset.from_list(ROWS),
        eval_dataset=evaluation,
    )
    seen = Seen(trainer)
    trainer.train()
    train, evaluated = seen.batches
    assert train["input_ids"].shape[0] == 2 and evaluated["input_ids"].shape[0] == 3
    assert not any("scar" in name for name in train)
    # The batch that was drawn, 1/k times as large, is the first of the same sampler; the best of it are those trained on.
    drawn = next(iter(trainer.get_train_dataloader().batch_sampler))
    assert len(drawn) == {0.5: 4, 0.3: 7}[share]


def test_a_stream_is_scored_and_selected_as_it_comes(collator, sft_config, tiny_lm, tiny_ranker, write_jsonl):
    rows = [{"prompt": f"Tell me about {i}.", "completion": f"All of it. {'So be it. ' * i}"} for i in range(16)]
    stream = load_dataset("json", data_files=str(write_jsonl(rows)), streaming=True, split="train")
    scored = stream.map(scar_score(str(tiny_ranker)), batched=True)
    trainer = ScarSFTTrainer(tiny_lm, sft_config(max_steps=3), collator(k=0.5), train_dataset=scored)
    seen = Seen(trainer)
    trainer.train()
    assert [batch["input_ids"].shape[0] for batch in seen.batches] == [2, 2, 2]
    assert trainer.scar_ranking is None
    scores = [row["scar_score"] for row in scored][:4]
    lengths = [len(rows[i]["prompt"]) + len(rows[i]["completion"]) + 1 for i in sorted(np.argsort(scores)[2:])]
    assert seen.batches[0]["attention_mask"].sum(dim=1).tolist() == [min(128, n) for n in lengths]


def test_nothing_is_selected_from_rows_to_predict(collator, sft_config, tiny_lm):
    rows = {"train_dataset": Dataset.from_list(ROWS), "eval_dataset": Dataset.from_list(ROWS[:4])}
    trainer = ScarSFTTrainer(tiny_lm, sft_config(per_device_eval_batch_size=4), collator(k=0.5), **rows)
    for ds in (trainer.eval_dataset, trainer.eval_dataset.remove_columns("scar_score")):
        assert [batch["input_ids"].shape[0] for batch in trainer.get_test_dataloader(ds)] == [4]


def test_plain_sft_trainer_with_the_column_kept(collator, sft_config, tiny_lm):
    trainer = SFTTrainer(
        tiny_lm,
        sft_config(max_steps=3, remove_unused_columns=False, per_device_train_batch_size=4),
        collator(k=0.5),
        train_dataset=Dataset.from_list(ROWS),
    )
    seen = Seen(trainer)
    trainer.train()
    assert [batch["input_ids"].shape[0] for batch in seen.batches] == [2, 2, 2]
    forgotten = SFTTrainer(tiny_lm, sft_config(), collator(k=0.5), train_dataset=Dataset.from_list(ROWS))
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        forgotten.train()


def test_weights_multiply_the_losses(collator, sft_config, tiny_lm):
    """The gradient is that of the weighted sum, computed by hand from the model's logits."""
    rows = Dataset.from_list([{**row, "scar_score": score} for row, score in zip(ROWS[:4], (1.0, 3.0, None, 2.0), strict=True)])
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "max_grad_norm": 0.0, "learning_rate": 0.0}
    trainer = ScarSFTTrainer(tiny_lm, sft_config(**settings), collator(mode="weight"), train_dataset=rows)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["scar_weight"].mean().item() == pytest.approx(0.75)  # 1 on average over three of four rows
    by_length = {1: 1 / 3, 3: 5 / 3, 2: 1.0}
    labels = batch["labels"]
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none")
    order = {tuple(row["input_ids"]): row["scar_score"] for row in trainer.train_dataset}
    weights = []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        score = order[tuple(ids[mask.bool()].tolist())]
        weights.append(0.0 if score is None else by_length[int(score)])
    np.testing.assert_allclose(batch["scar_weight"].numpy(), weights, rtol=1e-6)
    expected = (nll * torch.tensor(weights)[:, None]).sum() / (labels[:, 1:] != -100).sum()
    inputs = {name: value.clone() for name, value in batch.items()}
    loss = trainer.compute_loss(trainer.model, inputs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and loss.requires_grad
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-3)


def test_a_curriculum_begins_with_the_best_and_reaches_all():
    scores = np.random.default_rng(0).normal(size=100).astype(np.float32)
    scores[17] = np.nan
    order = curriculum_order(scores, draws=1000, start=10, widen=0.5, seed=3)
    best = set(np.argsort(-scores, kind="stable")[:10])
    assert set(order[:10]) == best and set(order[:30]) < set(range(100)) - {17}
    assert sorted(order[-100:]) != sorted(order[:100]) and set(order[500:]) == set(range(100))
    np.testing.assert_array_equal(order, curriculum_order(scores, draws=1000, start=10, widen=0.5, seed=3))
    assert (order != curriculum_order(scores, draws=1000, start=10, widen=0.5, seed=4)).any()
    ranks = np.argsort(np.argsort(-scores, kind="stable"))
    thirds = [ranks[part].max() for part in np.array_split(order[:500], 5)]
    assert thirds == sorted(thirds)
    assert curriculum_order(np.array([0.1, 0.9, 0.5]), draws=6, start=1, widen=1.0).tolist()[:2] == [1, 1]
    assert len(curriculum_order(scores, draws=0, start=1)) == 0
    for wrong in ({"start": 0}, {"start": 101}, {"start": 5, "widen": 0.0}):
        with pytest.raises(ValueError, match=r"got"):
            curriculum_order(scores, 10, **wrong)


def test_epochs_of_a_curriculum_are_parts_of_one_plan():
    scores = np.arange(8, dtype=np.float32)
    sampler = ScarCurriculumSampler(scores, start=2, epochs=3, widen=1.0, seed=0)
    plan = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert len(sampler) == 8 and list(sampler) == list(sampler)
        plan += list(sampler)
    assert plan == curriculum_order(scores, 24, 2, 1.0, 0).tolist()
    sampler.set_epoch(7)
    assert list(sampler) == plan[-8:]


def drawn_texts(trainer, seen: Seen) -> list[list[str]]:
    return [trainer.processing_class.batch_decode(batch["input_ids"], skip_special_tokens=True) for batch in seen.batches]


def test_a_curriculum_in_training_and_resumed(sft_config, tiny_lm, tiny_ranker):
    rows = [{"prompt": f"Tell me about {i}.", "completion": f"All of {i}. {'So be it. ' * (i % 5)}"} for i in range(20)]
    arguments = ScarArguments(scar_k=0.5, scar_start_k=0.1, scar_widen=1.0, scar_model=str(tiny_ranker), scar_device="cpu")
    settings = {"max_steps": 10, "save_strategy": "steps", "save_steps": 4}

    def make():
        trainer = ScarSFTTrainer(tiny_lm, sft_config(**settings), train_dataset=Dataset.from_list(rows), scar_args=arguments)
        return trainer, Seen(trainer)

    whole, seen = make()
    whole.train()
    texts = drawn_texts(whole, seen)
    best = {rows[i]["prompt"] for i in whole.scar_ranking.order()[:2]}
    assert all(any(text.startswith(prompt) for prompt in best) for text in texts[0])
    assert len({text for batch in texts[:4] for text in batch}) < len({text for batch in texts for text in batch}) <= 10
    again, seen = make()
    again.train(resume_from_checkpoint=f"{again.args.output_dir}/checkpoint-4")
    assert drawn_texts(again, seen) == texts[4:]
