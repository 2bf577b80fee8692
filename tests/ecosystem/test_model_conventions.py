"""What every transformers model can do, so that a ranker is one: four families of encoders, both heads, both poolings."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, BertConfig, DistilBertConfig, ModernBertConfig, XLMRobertaConfig

from scar_hf import ScarConfig, ScarModel

SIZES = {"vocab_size": 120, "num_attention_heads": 2, "pad_token_id": 0}
FAMILIES = {
    "bert": BertConfig(**SIZES, hidden_size=16, num_hidden_layers=2, intermediate_size=24, max_position_embeddings=40),
    "modernbert": ModernBertConfig(
        **SIZES,
        hidden_size=16,
        num_hidden_layers=2,
        intermediate_size=24,
        max_position_embeddings=40,
        global_attn_every_n_layers=2,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    "xlm-roberta": XLMRobertaConfig(
        **SIZES, hidden_size=16, num_hidden_layers=2, intermediate_size=24, max_position_embeddings=42
    ),
    "distilbert": DistilBertConfig(vocab_size=120, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40),
}
HEADS = {
    "paper": {},
    "mean": {"pooling": "mean"},
    "interaction": {"surprisal_features": "interaction"},
    "mean and interaction": {"pooling": "mean", "surprisal_features": "interaction", "head_size": 12, "surprisal_size": 5},
}


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture(params=HEADS)
def head(request) -> str:
    return request.param


@pytest.fixture
def model(family, head) -> ScarModel:
    """A ranker with random weights."""
    torch.manual_seed(0)
    return ScarModel(ScarConfig(encoder_config=copy.deepcopy(FAMILIES[family]), max_length=32, **HEADS[head])).eval()


def texts(rows: int = 4, width: int = 14, seed: int = 0) -> dict[str, torch.Tensor]:
    """Instructions and responses of random tokens, each shorter than the one before."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for name in ("instruction", "response"):
        mask = (torch.arange(width) < (width - 2 * torch.arange(rows)).clamp(min=3)[:, None]).long()
        batch[f"{name}_input_ids"] = torch.randint(5, 100, (rows, width), generator=generator) * mask
        batch[f"{name}_attention_mask"] = mask
    return batch


def triples() -> dict[str, torch.Tensor]:
    """A batch to train on."""
    batch = {}
    for seed, name in enumerate(("direct", "referenced", "human")):
        pair = texts(seed=seed)
        batch[f"{name}_input_ids"], batch[f"{name}_attention_mask"] = (
            pair["response_input_ids"],
            pair["response_attention_mask"],
        )
    instructions = texts()
    return batch | {name: value for name, value in instructions.items() if name.startswith("instruction")}


@torch.no_grad()
def scores(model, batch=None) -> torch.Tensor:
    return model(**(batch or texts())).scores.float()


def settings_of(config) -> dict:
    """All that a config says but where it was loaded from, and in which precision."""
    values = config.to_dict()
    passing = ("dtype", "architectures", "_name_or_path")
    encoder = {name: value for name, value in values.pop("encoder_config").items() if name not in passing}
    return {name: value for name, value in values.items() if name not in passing} | {"encoder_config": encoder}


def stored_names(folder) -> list[str]:
    """Names of the weights in all files of a folder, each as often as it is stored."""
    names = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            names += list(weights.keys())
    return sorted(names)


def test_saving_and_loading_changes_nothing(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is ScarModel and not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not loaded.training
    assert settings_of(loaded.config) == settings_of(model.config) == settings_of(AutoConfig.from_pretrained(tmp_path))
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    torch.testing.assert_close(scores(loaded), scores(model))
    # Again, as what was loaded may hold what saving does not expect.
    loaded.save_pretrained(tmp_path / "again")
    assert stored_names(tmp_path / "again") == stored_names(tmp_path)
    torch.testing.assert_close(scores(ScarModel.from_pretrained(tmp_path / "again")), scores(model))


def test_weights_in_shards_load_the_same(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert stored_names(tmp_path) == sorted(index)
    torch.testing.assert_close(scores(AutoModel.from_pretrained(tmp_path)), scores(model))


def test_weights_that_are_missing_are_told_and_start_anew(model, tmp_path, caplog):
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("score_head.")}
    model.save_pretrained(tmp_path, state_dict=weights)
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"score_head"}
    for name, value in loaded.score_head.named_parameters():
        width = loaded.score_head.dense.in_features if "dense" in name else loaded.score_head.out_proj.in_features
        assert value.isfinite().all() and 0 < value.abs().max() <= width**-0.5, name
    assert scores(loaded).isfinite().all()


@pytest.mark.parametrize(("size", "multiple", "becomes"), [(150, None, 150), (100, None, 100), (121, 8, 128)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_resized_vocabulary_survives_saving(model, tmp_path, size, multiple, becomes):
    expected = scores(model)
    embeddings = model.resize_token_embeddings(size, pad_to_multiple_of=multiple)
    assert embeddings is model.get_input_embeddings() and embeddings.weight.shape == (becomes, 16)
    assert model.config.encoder_config.vocab_size == model.encoder.config.vocab_size == becomes
    torch.testing.assert_close(scores(model), expected)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().weight.shape == (becomes, 16)
    torch.testing.assert_close(scores(loaded), expected)
    assert torch.equal(loaded.get_input_embeddings().weight, embeddings.weight)


def test_no_weights_are_tied_and_none_stored_twice(model, tmp_path):
    assert not model.all_tied_weights_keys
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.tie_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    parameters = [p for _, p in model.named_parameters(remove_duplicate=False)]
    assert len({p.data_ptr() for p in parameters}) == len(parameters)
    model.save_pretrained(tmp_path)
    assert stored_names(tmp_path) == sorted(model.state_dict())


def test_embeddings_can_be_replaced(model):
    embeddings = torch.nn.Embedding(120, 16, padding_idx=0)
    expected = scores(model)
    model.set_input_embeddings(embeddings)
    assert model.get_input_embeddings() is embeddings and model.encoder.get_input_embeddings() is embeddings
    assert model.get_output_embeddings() is None
    assert not torch.equal(scores(model), expected)


@pytest.mark.parametrize("settings", [{"use_reentrant": False}, {"use_reentrant": True}, None])
def test_gradient_checkpointing_gives_the_same_gradients(model, settings):
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def gradients():
        model.zero_grad()
        model(**triples()).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    # All that scores are made of learns, the encoder's own pooler only where it is used.
    idle = {name for name, _ in model.named_parameters()} - set(expected)
    assert all(".pooler." in name for name in idle), idle
    model.gradient_checkpointing_enable(settings)
    if settings is not None and settings["use_reentrant"]:
        model.enable_input_require_grads()
    assert model.is_gradient_checkpointing
    found = gradients()
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_a_dtype_is_kept_and_can_be_chosen(model, tmp_path):
    expected = scores(model)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    asked = {None: torch.bfloat16, "auto": torch.bfloat16, "float32": torch.float32, torch.float16: torch.float16}
    for dtype, becomes in asked.items():
        loaded = AutoModel.from_pretrained(tmp_path, **({} if dtype is None else {"dtype": dtype}))
        assert {p.dtype for p in loaded.parameters()} == {becomes} and loaded.dtype == becomes
        torch.testing.assert_close(scores(loaded), expected, atol=0.05, rtol=0.05)
    assert {p.dtype for p in loaded.half().float().parameters()} == {torch.float32}


@pytest.mark.parametrize("place", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_loads_the_same(model, tmp_path, place):
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, device_map=place)
    assert {p.device.type for p in loaded.parameters()} == {"cpu"} and loaded.device.type == "cpu"
    torch.testing.assert_close(scores(loaded), scores(model))


def test_weights_that_do_not_fit_into_memory_stay_on_disk(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModel.from_pretrained(
        tmp_path / "model", device_map="auto", max_memory={"cpu": "20KB"}, offload_folder=tmp_path / "offloaded"
    )
    assert set(loaded.hf_device_map.values()) == {"cpu", "disk"}, loaded.hf_device_map
    torch.testing.assert_close(scores(loaded), scores(model))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_encoder_takes_the_attention_that_is_asked_for(model, tmp_path, attention):
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, attn_implementation=attention)
    assert loaded.encoder.config._attn_implementation == attention
    torch.testing.assert_close(scores(loaded), scores(model), atol=1e-5, rtol=1e-4)
    other = "eager" if attention == "sdpa" else "sdpa"
    loaded.set_attn_implementation(other)
    assert loaded.encoder.config._attn_implementation == other
    torch.testing.assert_close(scores(loaded), scores(model), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_outputs_are_tuples_and_copies_are_independent(model):
    output = model(**texts())
    as_tuple = model(**texts(), return_dict=False)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == len(output.to_tuple()) == 3
    for one, other in zip(as_tuple, output.to_tuple(), strict=True):
        torch.testing.assert_close(one, other)
    twin = copy.deepcopy(model)
    twin.score_head.out_proj.bias.add_(1)
    torch.testing.assert_close(scores(twin), scores(model) + 1)
    assert model.num_parameters() == sum(p.numel() for p in model.parameters()) and not model.can_generate()


def test_a_config_makes_the_same_architecture(model):
    again = AutoModel.from_config(ScarConfig.from_dict(json.loads(model.config.to_json_string())))
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(scores(again.eval()), scores(model))


def test_low_rank_adapters_train_and_merge(model, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    model.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["out_proj", "dense"], init_lora_weights=False))
    adapted(**triples()).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for n, p in adapted.named_parameters() if "lora_" in n)
    expected = scores(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(scores(loaded), expected)
    torch.testing.assert_close(scores(loaded.merge_and_unload()), expected, atol=1e-5, rtol=1e-4)
