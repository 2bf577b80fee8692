"""Published checkpoints become native rankers with the scores of the code that wrote them."""

import argparse
import json
import pickle
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scar_hf.modeling.convert_scar_tool_checkpoint import convert_scar_tool_checkpoint, ntk_as_linear
from transformers import AutoModel, AutoTokenizer

from scar_hf import ScarConfig, ScarModel, ScarScorer
from scar_hf.cli import convert

PARITY = Path(__file__).parent / "scar_tool_parity"
reference = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "gte_reference.py")))


def run(*args):
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    return convert.run(parser.parse_args([str(arg) for arg in args]))


def one_by_one(model, tokenizer, rows):
    """Scores without batches or checks, so that even a response of a space has one."""
    options = {"truncation": True, "max_length": model.config.max_length, "return_tensors": "pt"}
    scores = []
    for row in rows:
        x, y = tokenizer([row["instruction"]], **options), tokenizer([row["response"]], **options)
        with torch.no_grad():
            scores.append(model(x["input_ids"], y["input_ids"]).scores.item())
    return scores


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_scores_are_those_of_scar_tool(kind, tmp_path, capsys):
    folder = tmp_path / "ranker"
    assert run(PARITY / kind / "checkpoint", "--encoder", PARITY / kind / "encoder", "-o", folder) == 0
    assert f'model="{folder}"' in capsys.readouterr().out
    assert {"model.safetensors", "config.json", "modeling_scar.py", "tokenizer.json"} <= {f.name for f in folder.iterdir()}
    assert not list(folder.glob("*.bin"))
    rows = [json.loads(line) for line in (PARITY / kind / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = [row["score"] for row in rows]
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    assert type(model) is ScarModel and model.config.encoder_config.model_type == kind and model.config.max_length == 128
    assert one_by_one(model, tokenizer, rows) == pytest.approx(expected, abs=1e-4)
    full = [row for row in rows if row["response"].strip()]
    assert len(full) == len(rows) - 1
    scorer = ScarScorer(str(folder), dtype="float32", device="cpu")
    scores = scorer.score([row["instruction"] for row in full], [row["response"] for row in full])
    assert scores.tolist() == pytest.approx([row["score"] for row in full], abs=1e-4)


@pytest.fixture
def gte(tmp_path):
    """Writes a checkpoint of scar-tool on a tiny GTE v1.5 encoder, whose repository's code must not run."""

    def write(linear_dim: int = 40, **changes):
        config = reference.CONFIG | changes
        weights = reference.random_weights(config, linear_dim)
        checkpoint, encoder = tmp_path / "checkpoint", tmp_path / "encoder"
        shutil.copytree(PARITY / "bert" / "checkpoint", checkpoint, dirs_exist_ok=True)
        encoder.mkdir(exist_ok=True)
        ranker = {"model_type": "style_ranker", "encoder_name": str(encoder), "hidden_dim": 48, "linear_dim": linear_dim}
        (checkpoint / "config.json").write_text(json.dumps(ranker))
        (encoder / "config.json").write_text(json.dumps(config))
        for name in ("configuration.py", "modeling.py"):
            (encoder / name).write_text("raise SystemExit('remote code ran')")
        torch.save(weights, checkpoint / "pytorch_model.bin")
        return str(checkpoint), weights, config

    return write


@pytest.mark.parametrize("type_vocab_size", [0, 2])  # as gte-base and gte-large have it
def test_gte_gives_the_scores_of_its_definition(gte, type_vocab_size, tmp_path):
    checkpoint, weights, config = gte(type_vocab_size=type_vocab_size)
    run(checkpoint, "-o", tmp_path / "ranker")
    model, tokenizer = AutoModel.from_pretrained(tmp_path / "ranker").eval(), AutoTokenizer.from_pretrained(tmp_path / "ranker")
    assert model.config.encoder_config.model_type == "gte" and not model.config.use_pooler
    assert (model.config.head_size, model.config.surprisal_size) == (40, 48)
    rows = [json.loads(line) for line in (PARITY / "bert" / "scores.jsonl").read_text(encoding="utf-8").splitlines()[2::6]]
    ids = [
        [tokenizer(row[name], truncation=True, max_length=256)["input_ids"] for name in ("instruction", "response")]
        for row in rows
    ]
    assert max(len(y) for _, y in ids) > 100
    expected = [reference.score(weights, config, x, y) for x, y in ids]
    assert model.config.max_length == 128
    got = model.score(tokenizer, [r["instruction"] for r in rows], [r["response"] for r in rows], 3, max_length=256)
    assert got.tolist() == pytest.approx(expected, abs=1e-4)
    unscaled = [reference.score(weights, config, x, y, factor=1.0) for x, y in ids]
    assert max(abs(a - b) for a, b in zip(expected, unscaled, strict=True)) > 0.1


@pytest.mark.parametrize("theta", [160000, 500000])
def test_ntk_scaling_is_the_published_one(theta, tmp_path):
    encoder = {"model_type": "gte", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 50}
    encoder |= {"intermediate_size": 8, "rope_parameters": ntk_as_linear(theta, 2.0, 64)}
    ScarModel(ScarConfig(encoder_config=encoder)).save_pretrained(tmp_path)
    buffer = AutoModel.from_pretrained(tmp_path).encoder.rotary_emb.inv_freq
    torch.testing.assert_close(buffer, reference.inverse_frequencies(theta, 2.0, 64), rtol=1e-5, atol=0)
    assert buffer[0].item() == pytest.approx(2 ** (-1 / 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("output_layer.2.bias"), "missing: output_layer.2.bias"),
        (lambda w: w.pop("relation_network.0.weight"), "missing: relation_network.0.weight"),
        (lambda w: w.pop("encoder.encoder.layer.1.mlp.up_gate_proj.weight"), "missing: encoder.layers.1.mlp.gate_proj.weight"),
        (lambda w: w.pop("encoder.embeddings.LayerNorm.bias"), "missing: encoder.embeddings.LayerNorm.bias"),
        (lambda w: w.update({"bonus.weight": torch.ones(1)}), "unexpected: bonus.weight"),
        (lambda w: w.update({"encoder.pooler.dense.bias": torch.ones(48)}), "unexpected: encoder.pooler.dense.bias"),
        (
            lambda w: w.update({"encoder.embeddings.word_embeddings.weight": torch.ones(1999, 48)}),
            "of another shape: .*word_emb",
        ),
    ],
)
def test_every_key_is_accounted_for(gte, change, message):
    checkpoint, weights, _ = gte()
    change(weights)
    torch.save(weights, Path(checkpoint) / "pytorch_model.bin")
    with pytest.raises(ValueError, match=message):
        convert_scar_tool_checkpoint(checkpoint)


def test_counted_buffers_of_old_checkpoints_are_no_weights(gte):
    checkpoint, weights, _ = gte()
    weights["encoder.embeddings.position_ids"] = torch.arange(256)
    torch.save(weights, Path(checkpoint) / "pytorch_model.bin")
    assert isinstance(convert_scar_tool_checkpoint(checkpoint)[0], ScarModel)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_is_not_executed(gte, tmp_path):
    checkpoint, weights, _ = gte()
    torch.save(weights | {"encoder.extra": Payload(tmp_path / "ran")}, Path(checkpoint) / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not executed"):
        convert_scar_tool_checkpoint(checkpoint)
    with open(Path(checkpoint) / "pytorch_model.bin", "wb") as file:
        pickle.dump({"encoder.extra": Payload(tmp_path / "ran")}, file, protocol=2)
    with pytest.raises(ValueError, match="not executed"):
        convert_scar_tool_checkpoint(checkpoint)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_said(gte, tmp_path, tiny_ranker):
    checkpoint, _, _ = gte()
    with pytest.raises(ValueError, match="type 'scar', not 'style_ranker'"):
        convert_scar_tool_checkpoint(str(tiny_ranker))
    with pytest.raises(ValueError, match=r"No config\.json .*nowhere"):
        convert_scar_tool_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="the base encoder; pass another as `encoder`"):
        convert_scar_tool_checkpoint(checkpoint, encoder=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="do not fit"):
        convert_scar_tool_checkpoint(checkpoint, encoder=str(PARITY / "bert" / "encoder"))
    whole = (Path(checkpoint) / "pytorch_model.bin").read_bytes()
    (Path(checkpoint) / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged, cut off"):
        convert_scar_tool_checkpoint(checkpoint)
    (Path(checkpoint) / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        convert_scar_tool_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling=.*dynamic"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.75}}, "mixed_b"),
        ({"logn_attention_scale": True}, "logn_attention_scale=True is not supported"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type='rms_norm' is not supported"),
    ],
)
def test_variants_that_the_native_encoder_lacks_are_refused(gte, changes, message):
    with pytest.raises(ValueError, match=message):
        convert_scar_tool_checkpoint(gte(**changes)[0])


def test_head_widths_follow_the_encoder_unless_set(encoder_folder):
    assert ScarModel.from_encoder(str(encoder_folder), ScarConfig(max_length=64)).config.surprisal_size == 32
    narrow = ScarModel.from_encoder(str(encoder_folder), ScarConfig(head_size=16, surprisal_size=8))
    assert (narrow.surprisal_head.out_proj.out_features, narrow.score_head.dense.in_features) == (8, 40)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"5", b"[1]", b"\xff", b""])
def test_a_config_that_cannot_be_read_is_said(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"No config.json (can be read|found) at .* \(the checkpoint\)"):
        convert_scar_tool_checkpoint(str(tmp_path))


@pytest.mark.parametrize("content", [b"junk", b"", b"\x80\x02}q\x00", b"PK\x03\x04"])
def test_weights_that_cannot_be_read_are_said(content, gte, tmp_path):
    checkpoint, _, _ = gte()
    (Path(checkpoint) / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"pytorch_model.bin of .* cannot be read"):
        convert_scar_tool_checkpoint(checkpoint)
