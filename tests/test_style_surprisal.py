"""Instructional surprisal: what a language model gives to the tokens of a response, by its own forward pass."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from scar_hf.style import SURPRISAL, Surprisal, instructional_surprisal, style_consistency, style_measures
from scar_hf.style.causal_lm import token_losses

X = ["What do bees eat?", "Say hello.", "", "Count to three, slowly and with care."]
Y = ["Bees eat nectar and pollen.", "Hello!", "Something without an instruction.", "One, two, three. " * 4]
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}[end]{% endfor %}{% if add_generation_prompt %}[a]{% endif %}"
)


@pytest.fixture(scope="module")
def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, one for "th", and one that begins a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(["<s>", *alphabet, "th"])}, merges=[("t", "h")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")


@pytest.fixture(scope="module")
def lm() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=258, max_position_embeddings=512, **sizes)).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # opinions, where random weights have next to none
    return model


@pytest.fixture(scope="module")
def lm_folder(tmp_path_factory, lm, bytes_tokenizer) -> str:
    folder = tmp_path_factory.mktemp("lm")
    lm.save_pretrained(folder)
    bytes_tokenizer.save_pretrained(folder)
    return str(folder)


def loss_of(model, tokenizer, context: str, response: str, bos: bool = True) -> float:
    """Mean loss of the response's tokens, by the model's own loss."""
    before = ([0] if bos else []) + tokenizer(context)["input_ids"]
    ids = torch.tensor([before + tokenizer(response)["input_ids"]])
    labels = ids.clone()
    labels[0, : len(before)] = -100
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=labels).loss)


@pytest.mark.parametrize("tokens_per_batch", [1, 300, 100_000])
def test_perplexities_are_those_of_the_models_own_loss(lm, bytes_tokenizer, tokens_per_batch):
    found = Surprisal(lm, tokenizer=bytes_tokenizer, max_length=512, tokens_per_batch=tokens_per_batch).measure(X, Y)
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        given, alone = (loss_of(lm, bytes_tokenizer, context, y) for context in (f"{x}\n\n" if x else "", ""))
        assert found["surprisal"][i] == pytest.approx(given, rel=1e-4)
        assert found["ppl"][i] == pytest.approx(math.exp(given), rel=1e-3)
        assert found["ppl_alone"][i] == pytest.approx(math.exp(alone), rel=1e-3)
        assert found["ifd"][i] == pytest.approx(math.exp(given - alone), rel=1e-3)
    assert found["ifd"][2] == pytest.approx(1, abs=1e-5)  # no instruction: nothing to help
    assert not found["truncated"].any()


def test_a_chat_template_is_used_where_there_is_one(lm, bytes_tokenizer, lm_folder):
    chat = PreTrainedTokenizerFast.from_pretrained(lm_folder)
    chat.chat_template = TEMPLATE
    found = Surprisal(lm, tokenizer=chat, max_length=512).measure(X[:1], Y[:1])
    given, alone = (loss_of(lm, chat, f"[user]{x}[end][a]", Y[0], bos=False) for x in (X[0], ""))
    assert found["surprisal"][0] == pytest.approx(given, rel=1e-4)
    assert found["ppl_alone"][0] == pytest.approx(math.exp(alone), rel=1e-3)
    without = Surprisal(lm, tokenizer=chat, max_length=512, chat_template=False).measure(X[:1], Y[:1])
    assert without["surprisal"][0] == pytest.approx(loss_of(lm, chat, f"{X[0]}\n\n", Y[0]), rel=1e-4)
    with pytest.raises(ValueError, match="has no chat template"):
        Surprisal(lm, tokenizer=bytes_tokenizer, max_length=512, chat_template=True).measure(X, Y)


def test_long_texts_are_cut_and_counted(lm, bytes_tokenizer, caplog):
    surprisal = Surprisal(lm, tokenizer=bytes_tokenizer, max_length=64)
    found = surprisal.measure(["a" * 100, "b", "c"], ["short", "d" * 100, "also short"])
    assert found["truncated"].tolist() == [True, True, False]
    assert "Of 2 of 3 rows" in caplog.text
    assert found["surprisal"][0] == pytest.approx(loss_of(lm, bytes_tokenizer, "a" * 32, "short"), rel=1e-4)
    assert found["surprisal"][1] == pytest.approx(loss_of(lm, bytes_tokenizer, "b\n\n", "d" * (64 - 4)), rel=1e-4)
    assert surprisal.measure(["c"], ["also short"])["surprisal"][0] == pytest.approx(found["surprisal"][2], rel=1e-5)


def test_a_folder_gives_what_the_model_in_memory_gives(lm, bytes_tokenizer, lm_folder):
    expected = Surprisal(lm, tokenizer=bytes_tokenizer, max_length=128).measure(X, Y)
    found = instructional_surprisal(X, Y, lm_folder, dtype="float32", device="cpu", max_length=128)
    np.testing.assert_allclose(found["ppl"], expected["ppl"], rtol=1e-5)


def write_gguf(file: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """The model and its tokenizer as llama.cpp would hold them, in float32."""
    gguf = pytest.importorskip("gguf")
    config, weights = model.config, {name: w.numpy() for name, w in model.state_dict().items()}
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([3] + [1] * (len(tokenizer) - 1))
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    writer.add_tensor("output.weight", weights["lm_head.weight"])
    for layer in range(config.num_hidden_layers):
        for ours, theirs in names.items():
            w = weights[f"model.layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):  # llama.cpp pairs the halves of a head for its rotary positions
                w = w.reshape(config.num_attention_heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", np.ascontiguousarray(w))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_gives_what_the_model_gives(tmp_path, lm, bytes_tokenizer):
    write_gguf(tmp_path / "tiny.gguf", lm, bytes_tokenizer)
    expected = Surprisal(lm, tokenizer=bytes_tokenizer, max_length=128).measure(X, Y)
    for source in (tmp_path, tmp_path / "tiny.gguf"):
        found = Surprisal(source, dtype="float32", device="cpu", max_length=128).measure(X, Y)
        np.testing.assert_allclose(found["ppl"], expected["ppl"], rtol=1e-4)


def test_a_damaged_gguf_file_is_said(tmp_path, lm, bytes_tokenizer):
    write_gguf(tmp_path / "tiny.gguf", lm, bytes_tokenizer)
    whole = (tmp_path / "tiny.gguf").read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 40_000):
        (tmp_path / "tiny.gguf").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="No causal language model can be loaded"):
            Surprisal(tmp_path, dtype="float32", device="cpu", max_length=128).measure(X, Y)


def test_rows_of_a_dataset_get_both_kinds_of_measures(lm, bytes_tokenizer, caplog):
    surprisal = Surprisal(lm, tokenizer=bytes_tokenizer, max_length=64)
    rows = Dataset.from_dict({"instruction": [*X, "a"], "response": [*Y, None]})
    found = style_measures(rows, lm=surprisal, progress=False)
    expected = surprisal.measure(X, Y)
    for name in SURPRISAL:
        np.testing.assert_allclose(found[name], [*expected[name], np.nan], rtol=1e-5)
    assert "ttr" in found.values and found.lm == "the model in memory"
    assert any("Of 1 rows the language model read only the beginning" in note for note in found.notes)
    assert style_consistency(found, samples=20)["ifd"].n == 4
    turns = [
        {"role": role, "content": text}
        for x, y in zip(X[:2], Y[:2], strict=True)
        for role, text in (("user", x), ("assistant", y))
    ]
    chat = style_measures(Dataset.from_dict({"messages": [turns]}), turn="all", lm=surprisal, progress=False)
    assert chat["surprisal"][0] == pytest.approx(expected["surprisal"][:2].mean(), rel=1e-4)


def test_no_rows_and_a_lone_surrogate(lm, bytes_tokenizer):
    surprisal = Surprisal(lm, tokenizer=bytes_tokenizer, max_length=64)
    assert surprisal.measure([], [])["ifd"].shape == (0,)
    assert np.isfinite(surprisal.measure(["a\ud800"], ["b\udfff c"])["ifd"]).all()


def test_wrong_rows_are_refused_with_their_numbers(lm, bytes_tokenizer):
    surprisal = Surprisal(lm, tokenizer=bytes_tokenizer, max_length=64)
    with pytest.raises(ValueError, match="same length, got 2 and 1"):
        surprisal.measure(["a", "b"], ["c"])
    with pytest.raises(ValueError, match="row 1: the response is empty"):
        surprisal.measure(["a", "b"], ["c", " "])
    with pytest.raises(ValueError, match="row 0: the instruction is missing"):
        surprisal.measure([None], ["c"])


def test_wrong_models_are_refused(tmp_path, lm, bytes_tokenizer, encoder_folder):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 257}
    both_ways = BertLMHeadModel(BertConfig(**sizes)).eval()
    with pytest.raises(ValueError, match="depends on later tokens"):
        Surprisal(both_ways, tokenizer=bytes_tokenizer, max_length=64).measure(X, Y)
    with pytest.raises(ValueError, match="not a causal language model, or is incomplete"):
        Surprisal(str(encoder_folder)).measure(X, Y)
    with pytest.raises(ValueError, match="No causal language model can be loaded from"):
        Surprisal(str(tmp_path / "nothing")).measure(X, Y)
    with pytest.raises(ValueError, match="at most 512 tokens"):
        Surprisal(lm, tokenizer=bytes_tokenizer).measure(X, Y)


def test_weights_that_are_no_numbers_are_said(lm_folder, bytes_tokenizer):
    broken = AutoModelForCausalLM.from_pretrained(lm_folder)
    with torch.no_grad():
        broken.model.embed_tokens.weight[bytes_tokenizer("q")["input_ids"]] = float("nan")
    surprisal = Surprisal(broken, tokenizer=bytes_tokenizer, max_length=64)
    assert np.isfinite(surprisal.measure(X[:2], Y[:2])["ppl"]).all()
    with pytest.raises(ValueError, match="The perplexity of row 1 is not finite"):
        surprisal.measure(X[:2], ["a", "quiet"])


def test_folders_and_files_that_hold_no_one_model(tmp_path):
    with pytest.raises(ValueError, match="it has neither"):
        Surprisal(tmp_path).measure(X, Y)
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ValueError, match=r"the GGUF files a.gguf, b.gguf: pass one of them"):
        Surprisal(tmp_path).measure(X, Y)
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ValueError, match="no GGUF file: pass the folder"):
        Surprisal(tmp_path / "weights.bin").measure(X, Y)


def test_settings_out_of_range(lm, bytes_tokenizer):
    with pytest.raises(ValueError, match="at least 8 tokens"):
        Surprisal("some-model", max_length=4)
    with pytest.raises(ValueError, match="Pass `tokenizer` with a model in memory"):
        Surprisal(lm)
    with pytest.raises(ValueError, match="whose own settings hold"):
        instructional_surprisal(X, Y, Surprisal(lm, tokenizer=bytes_tokenizer), max_length=64)


def test_no_logits_are_computed_for_the_instruction_alone(lm, bytes_tokenizer):
    seen = []
    hook = lm.lm_head.register_forward_hook(lambda module, given, made: seen.append(made.shape[1]))
    try:
        contexts = [100, 90, 95]
        losses = token_losses(lm, [[7] * context + [9, 8, 5] for context in contexts], contexts)
    finally:
        hook.remove()
    assert seen == [103 - 90 + 1]
    alone = [token_losses(lm, [[7] * context + [9, 8, 5]], [context])[0] for context in contexts]
    np.testing.assert_allclose(losses, alone, rtol=1e-5)
