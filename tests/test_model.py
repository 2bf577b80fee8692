"""The ranker's architecture and loading, over every encoder family."""

import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModel

from scar_hf import ScarConfig, ScarModel
from scar_hf.cli import main

from .model_data import LENGTHS, score, texts, triple


def test_saved_ranker_loads_the_same(tiny_model, encoder, tmp_path):
    model = tiny_model(encoder)
    expected = score(model, texts(), texts(seed=2))
    model.save_pretrained(tmp_path)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is ScarModel
    assert not info["missing_keys"] and not info["unexpected_keys"]
    # Buffers that are not in the checkpoint must be computed anew, not be uninitialised memory.
    for (name, buffer), (_, other) in zip(model.named_buffers(), loaded.named_buffers(), strict=True):
        torch.testing.assert_close(buffer, other, msg=name)
    torch.testing.assert_close(score(loaded.eval(), texts(), texts(seed=2)), expected, atol=1e-6, rtol=0)


def test_scores_do_not_depend_on_padding_or_company(tiny_model, encoder):
    model = tiny_model(encoder)
    x, y = texts(), texts(seed=2)
    together = score(model, x, y)
    left = score(model, texts(left=True), texts(seed=2, left=True))
    torch.testing.assert_close(left, together, atol=1e-5, rtol=0)
    for row, length in enumerate(LENGTHS):
        alone = score(model, (x[0][row : row + 1, :length], None), (y[0][row : row + 1, :length], None))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_and_near(tiny_model, encoder, dtype):
    model = tiny_model(encoder)
    expected = score(model, texts(), texts(seed=2))
    scores = score(model.to(dtype), texts(), texts(seed=2)).float()
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores, expected, atol=0.05, rtol=0)


def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, encoder):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(encoder).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.activation_checkpointing_enable()
            assert any(getattr(module, "gradient_checkpointing", False) for module in model.encoder.modules())
        torch.manual_seed(3)
        model(**triple()).loss.backward()
        gradients.append(model.get_input_embeddings().weight.grad.clone())
    assert gradients[0].abs().sum() > 0
    if encoder != "deberta-v2":  # its own dropout draws masks that cannot be switched off one by one
        torch.testing.assert_close(gradients[0], gradients[1])


def test_the_parts_follow_the_equations(tiny_model):
    model = tiny_model("bert")
    x, y = texts(), texts(seed=2)
    with torch.no_grad():
        output = model(x[0], y[0], x[1], y[1])
        states_x = model.encoder(input_ids=x[0], attention_mask=x[1])
        states_y = model.encoder(input_ids=y[0], attention_mask=y[1])
    for row, length in enumerate(LENGTHS):
        v_p = states_y.last_hidden_state[row, :length].max(dim=0).values
        first = torch.cat([states_x.pooler_output[row], states_y.pooler_output[row]])
        head = model.surprisal_head
        v_c = head.out_proj(torch.relu(head.dense(first)))
        head = model.score_head
        expected = head.out_proj(torch.relu(head.dense(torch.cat([v_c, v_p]))))[0]
        torch.testing.assert_close(output.linguistic_form[row], v_p, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.instructional_surprisal[row], v_c, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.scores[row], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("encoder", "pooler"), [("bert", True), ("modernbert", False), ("deberta-v2", False), ("gte", False)])
def test_the_config_says_whether_a_pooler_is_used(tiny_model, encoder, pooler):
    assert tiny_model(encoder).config.use_pooler is pooler
    model = tiny_model(encoder, use_pooler=False)
    assert not any("pooler" in name for name, _ in model.named_parameters())


def test_mean_pooling_and_interaction_follow_their_definition(tiny_model, encoder):
    model = tiny_model(encoder, pooling="mean", surprisal_features="interaction")
    assert not model.config.use_pooler
    x, y = texts(), texts(seed=2, left=True)
    with torch.no_grad():
        output = model(x[0], y[0], x[1], y[1])
        for row, length in enumerate(LENGTHS):
            states_x = model.encoder(input_ids=x[0][row : row + 1, :length]).last_hidden_state[0]
            states_y = model.encoder(input_ids=y[0][row : row + 1, -length:]).last_hidden_state[0]
            h_x, h_y = (states.mean(dim=0) / states.mean(dim=0).norm() * 32**0.5 for states in (states_x, states_y))
            v_c = model.surprisal_head(torch.cat([h_x, h_y, h_x * h_y, (h_x - h_y).abs()]))
            expected = model.score_head(torch.cat([v_c, states_y.max(dim=0).values]))[0]
            torch.testing.assert_close(output.instructional_surprisal[row], v_c, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(output.scores[row], expected, atol=1e-4, rtol=1e-4)


def test_the_paper_s_head_is_the_default_and_unknown_ones_are_refused():
    config = ScarConfig()
    assert (config.pooling, config.surprisal_features, config.cross_instruction_weight) == ("first_token", "concat", 0.0)
    for setting in ("pooling", "surprisal_features"):
        with pytest.raises(ValueError, match=f"`{setting}` must be one of .*, got 'other'"):
            ScarConfig(**{setting: "other"})


def test_tuple_output_and_attention_flag(tiny_model, tmp_path):
    model = tiny_model("bert")
    x, y = texts(), texts(seed=2)
    with torch.no_grad():
        output = model(x[0], y[0], x[1], y[1], return_dict=False)
    assert isinstance(output, tuple) and output[0].shape == (len(LENGTHS),)
    model.save_pretrained(tmp_path)
    for attention in ("eager", "sdpa"):
        loaded = AutoModel.from_pretrained(tmp_path, attn_implementation=attention)
        assert loaded.encoder.config._attn_implementation == attention
        torch.testing.assert_close(score(loaded.eval(), x, y), output[0], atol=1e-5, rtol=0)


def pair_of(rows: int = 6) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    ids, mask = torch.randint(5, 300, (2 * rows, 12)), torch.ones(2 * rows, 12, dtype=torch.long)
    for i in range(2 * rows):
        mask[i, 4 + i % 8 :] = 0
    return {
        "instruction_input_ids": ids[:rows],
        "response_input_ids": ids[rows:],
        "instruction_attention_mask": mask[:rows],
        "response_attention_mask": mask[rows:],
    }


def test_a_resized_vocabulary_survives_saving(tiny_model, encoder, tmp_path):
    model = tiny_model(encoder)
    model.resize_token_embeddings(320)
    assert model.config.encoder_config.vocab_size == 320 and model.get_input_embeddings().num_embeddings == 320
    model.save_pretrained(tmp_path)
    loaded = ScarModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**pair_of()).scores, model(**pair_of()).scores)


def test_an_encoder_is_no_ranker_and_the_error_says_how_to_start_one(encoder_folder):
    with pytest.raises(ValueError, match=r"type 'bert', not a SCAR ranker.*ScarModel.from_encoder\("):
        ScarModel.from_pretrained(encoder_folder)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_traced_and_exported_models_give_the_same_scores(tiny_model):
    model, pair = tiny_model(), pair_of()
    expected = model(**pair).scores

    class Scores(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, instruction_input_ids, response_input_ids, instruction_attention_mask, response_attention_mask):
            return self.model(
                instruction_input_ids, response_input_ids, instruction_attention_mask, response_attention_mask
            ).scores

    traced = torch.jit.trace(Scores(), tuple(pair.values()))
    torch.testing.assert_close(traced(*pair.values()), expected)
    other = {name: value.flip(0) for name, value in pair.items()}
    torch.testing.assert_close(traced(*other.values()), expected.flip(0))
    exported = torch.export.export(Scores(), tuple(pair.values()))
    torch.testing.assert_close(exported.module()(*other.values()), expected.flip(0))


def test_arguments_that_are_not_known_do_not_vanish(tiny_model):
    model = tiny_model()
    with pytest.raises(TypeError, match=r"unexpected arguments: respons_attention_mask"):
        model(**pair_of(), respons_attention_mask=None)
    with pytest.raises(ValueError, match=r"no hidden_states|output_hidden_states"):
        model(**pair_of(), output_hidden_states=True)
    assert model(**pair_of(), output_attentions=False, num_items_in_batch=3).scores.shape == (6,)


def test_the_plain_trainer_evaluates_with_a_loss(tiny_model, tmp_path):
    from transformers import Trainer, TrainingArguments

    rows = [
        {"instruction_input_ids": [5, i], "direct_input_ids": [7, 8, i], "human_input_ids": [9, i, 10]} for i in range(20, 28)
    ]
    settings = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "load_best_model_at_end": True}
    args = TrainingArguments(tmp_path, max_steps=2, eval_strategy="steps", eval_steps=1, save_steps=1, **settings)

    def collate(batch):
        return {name: torch.tensor([row[name] for row in batch]) for name in batch[0]}

    trainer = Trainer(tiny_model(), args, train_dataset=rows, eval_dataset=rows, data_collator=collate)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0 and trainer.state.best_metric is not None
    with torch.no_grad():
        assert trainer.model.to("cpu")(**collate(rows), return_loss=False).loss is None


def test_from_encoder_keeps_the_encoder_and_makes_new_heads(encoder_folder):
    model = ScarModel.from_encoder(str(encoder_folder), ScarConfig(max_length=40, alpha=0.9))
    encoder = AutoModel.from_pretrained(encoder_folder)
    assert model.config.use_pooler
    for name, weight in encoder.state_dict().items():
        torch.testing.assert_close(model.encoder.state_dict()[name], weight, msg=name)
    assert (model.config.max_length, model.config.alpha, model.config.head_size) == (40, 0.9, 32)
    bound = 1 / model.surprisal_head.dense.in_features**0.5
    assert 0.5 * bound < model.surprisal_head.dense.weight.abs().max() <= bound


def test_from_encoder_takes_every_family(tiny_model, encoder, tmp_path):
    original = tiny_model(encoder).encoder
    original.save_pretrained(tmp_path)
    model = ScarModel.from_encoder(str(tmp_path))
    ids, mask = texts()
    with torch.no_grad():
        expected = original(input_ids=ids, attention_mask=mask).last_hidden_state
        states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(states[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=0)


def test_config_round_trip_and_registration(tiny_model, tmp_path):
    config = tiny_model("gte").config
    config.calibration = {"quantiles": [0.0, 1.0], "num_rows": 2, "data": "none"}
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is ScarConfig
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.encoder_config.model_type == "gte"
    assert ScarModel.__module__ == "scar_hf.modeling.modeling_scar"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_config": {"hidden_size": 8}}, 'no "model_type"'),
        ({"encoder_config": {"model_type": "no-such-encoder"}}, "does not know"),
        ({"max_length": 1}, "at least 3"),
    ],
)
def test_config_refuses_what_it_cannot_build(settings, message):
    with pytest.raises(ValueError, match=message):
        ScarConfig(**settings)


def test_auto_model_loads_the_exported_ranker_in_a_new_process(tmp_path, scorer):
    pair = "What do bees eat?", "Bees eat nectar and pollen."
    expected = scorer.score([pair[0]], [pair[1]])[0]
    main(["export", "scar-ranker", "-o", str(tmp_path / "ranker")])
    code = (
        "import sys, torch, scar_hf\n"
        "from transformers import AutoModel, AutoTokenizer\n"
        "model, tokenizer = AutoModel.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "x, y = (tokenizer([text], return_tensors='pt')['input_ids'] for text in sys.argv[2:])\n"
        "with torch.no_grad(): print(repr(model(x, y).scores.item()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "ranker"), *pair], capture_output=True, text=True, check=True
    )
    assert float(run.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-5)
