"""Rankers on disk: told apart by all that is read of them, refused when damaged, and no code of theirs is run."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from scar_hf import ScarConfig, ScarModel, ScarScorer
from scar_hf.cli import main
from scar_hf.scoring.checkpoints import checkpoint_identity, load_ranker, resolve_checkpoint
from scar_hf.scoring.probing import add_probe
from scar_hf.style import Surprisal
from scar_hf.training.saving import save_ranker

PAIRS = (["What do bees eat?", "Say hello."], ["Bees eat nectar.", "Hello to you!"])


@pytest.fixture
def ranker(tiny_ranker, tmp_path) -> Path:
    return shutil.copytree(tiny_ranker, tmp_path / "ranker")


@pytest.fixture
def probed(tiny_model, tokenizer, tmp_path) -> Path:
    """A ranker as `scar-hf train` and `scar-hf convert` save it."""
    save_ranker(tiny_model(vocab_size=len(tokenizer)), tokenizer, tmp_path / "probed")
    return tmp_path / "probed"


def load(folder: Path) -> ScarScorer:
    return ScarScorer.from_pretrained(str(folder), device="cpu", dtype="float32")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "merges.txt", "vocab.json", "added_tokens.json", "spiece.model",
                                  "chat_template.jinja", "model.safetensors.index.json", "shards/a.safetensors"])  # fmt: skip
def test_whatever_the_loader_may_read_tells_rankers_apart(name, ranker):
    before = checkpoint_identity(str(ranker))
    if name.startswith("shards"):
        (ranker / "shards").mkdir()
        (ranker / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    (ranker / name).write_text("one")
    first = checkpoint_identity(str(ranker))
    (ranker / name).write_text("two")
    assert len({before, first, checkpoint_identity(str(ranker))}) == 3
    (ranker / "README.md").write_text("words")
    (ranker / name).write_text("one")
    assert checkpoint_identity(str(ranker)) == first


def test_an_edit_of_the_same_size_and_time_is_noticed(ranker):
    file = ranker / "model.safetensors"
    before = checkpoint_identity(str(ranker))
    times, data = file.stat(), bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert checkpoint_identity(str(ranker)) != before


def test_a_ranker_that_is_saved_again_does_not_poison_the_cache(ranker, tiny_model, tokenizer, tmp_path):
    first = load(ranker)
    old, key = first.score(*PAIRS), first.cache().key
    tiny_model(seed=1, vocab_size=len(tokenizer)).save_pretrained(ranker)
    assert first.cache().key == key  # what it has loaded is what it scores with
    np.testing.assert_array_equal(first.score(*PAIRS), old)
    second = load(ranker)
    assert second.cache().key != key and np.abs(second.score(*PAIRS) - old).max() > 1e-4


def test_a_scorer_that_was_sent_refuses_a_ranker_that_has_changed(ranker, tiny_model, tokenizer):
    sent = ScarScorer(str(ranker), device="cpu").__getstate__()
    tiny_model(seed=1, vocab_size=len(tokenizer)).save_pretrained(ranker)
    received = ScarScorer.__new__(ScarScorer)
    received.__setstate__(sent)
    with pytest.raises(ValueError, match=r"has changed since this scorer was created"):
        received.score(*PAIRS)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "emptied",
        "other words",
        "swapped words",
        "score_head.out_proj.bias",
        "surprisal_head.dense.weight",
        "ids",
        "no score",
    ],
)
def test_a_damaged_ranker_is_refused(name, probed):
    load(probed)
    config, tokenizer = (json.loads((probed / n).read_text()) for n in ("config.json", "tokenizer.json"))
    vocabulary = tokenizer["model"]["vocab"]
    if name == "tokenizer.json":
        (probed / name).unlink()
    elif name == "emptied":
        tokenizer["model"]["vocab"] = dict(list(vocabulary.items())[:500])
    elif name == "other words":
        tokenizer["model"]["vocab"] = vocabulary | {f"word{i}": len(vocabulary) + i for i in range(10)}
    elif name == "swapped words":
        vocabulary["bees"], vocabulary["eat"] = vocabulary["eat"], vocabulary["bees"]
    elif name.startswith(("score_head", "surprisal_head")):
        weights = load_file(probed / "model.safetensors")
        weights[name] += 1
        save_file(weights, probed / "model.safetensors", metadata={"format": "pt"})
    elif name == "ids":
        config["probe"]["response_ids"] = [10**9]
    else:
        del config["probe"]["score"]
    if name != "tokenizer.json":
        (probed / "tokenizer.json").write_text(json.dumps(tokenizer))
    (probed / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"[Ss]ave (it|the ranker) again"):
        load(probed)


def test_a_ranker_without_a_probe_loads_and_can_be_given_one(ranker):
    assert load_ranker(str(ranker)).config.probe is None
    (ranker / "tokenizer.json").rename(ranker / "away.json")
    with pytest.raises(ValueError, match=r"has no tokenizer"):
        load(ranker)
    (ranker / "away.json").rename(ranker / "tokenizer.json")
    before, files = json.loads((ranker / "config.json").read_text()), sorted(ranker.iterdir())
    probe = add_probe(ranker)
    assert json.loads((ranker / "config.json").read_text()) == before | {"probe": probe} and sorted(ranker.iterdir()) == files
    load(ranker)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_probe_follows_the_weights_that_are_saved(dtype, probed, tmp_path):
    model, tokenizer = load_ranker(str(probed)), AutoTokenizer.from_pretrained(probed)
    with torch.no_grad():
        model.score_head.out_proj.bias += 1  # trained further
    expected = model.score(tokenizer, *PAIRS)
    model.to(dtype).save_pretrained(tmp_path / "further")
    tokenizer.save_pretrained(tmp_path / "further")
    assert load(tmp_path / "further").score(*PAIRS) == pytest.approx(expected, abs=0.05)
    assert abs(ScarConfig.from_pretrained(tmp_path / "further").probe["score"] - model.config.probe["score"]) < 1e-6
    model.save_pretrained(tmp_path / "elsewhere", state_dict=model.state_dict())
    assert ScarConfig.from_pretrained(tmp_path / "elsewhere").probe is None


def test_the_bundled_ranker_has_a_probe_that_holds_in_any_precision(tmp_path):
    source = resolve_checkpoint("scar-ranker")
    assert ScarConfig.from_pretrained(source).probe is not None
    shutil.copytree(source, tmp_path / "bf16")
    weights = load_file(tmp_path / "bf16" / "model.safetensors")
    save_file({k: v.bfloat16() for k, v in weights.items()}, tmp_path / "bf16" / "model.safetensors", metadata={"format": "pt"})
    load(tmp_path / "bf16")


EVIL = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
class Config(BertConfig): pass
class Model(BertModel): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """Puts code into a folder that transformers runs if it is allowed to; whoever is asked says yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    mark = tmp_path / "it-ran"

    def poison(folder: Path) -> Path:
        (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoModelForCausalLM": "evil.Model"}
        if config["model_type"] != "scar":
            config["model_type"] = "evil"
        (folder / "config.json").write_text(json.dumps(config))
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        tokenizer |= {"auto_map": {"AutoTokenizer": ["evil.Tokenizer"] * 2}, "tokenizer_class": "EvilTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
        return mark

    return poison


def test_no_code_of_a_ranker_is_run(evil, ranker, write_jsonl, rows, tmp_path):
    mark = evil(ranker)
    main(["score", str(write_jsonl(rows)), "-o", str(tmp_path / "o.jsonl"), "--model", str(ranker)])
    assert not mark.exists()


def test_no_code_of_a_language_model_or_an_encoder_is_run_unasked(evil, tiny_lm, encoder_folder, tmp_path, write_jsonl):
    lm = shutil.copytree(tiny_lm, tmp_path / "lm")
    mark = evil(lm)
    with pytest.raises(ValueError, match=r"contains custom code"):
        Surprisal(str(lm)).measure(["q"], ["a"])
    assert not mark.exists()
    with pytest.raises(ValueError, match=r"is not a causal language model"):
        Surprisal(str(lm), trust_remote_code=True).measure(["q"], ["a"])
    assert mark.exists()
    mark.unlink()
    evil(encoder_folder)
    triples = write_jsonl([{"instruction": f"Q{i}", "direct": "A", "human": "B", "source": "s"} for i in range(20)])
    with pytest.raises(ValueError, match=r"trust_remote_code"):
        ScarModel.from_encoder(str(encoder_folder))
    train = ["train", "--encoder", str(encoder_folder), "--train_files", str(triples), "--output_dir", str(tmp_path / "out")]
    assert main(train) != 0
    assert not mark.exists()


def _edited(file: Path, edit) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    edit(values)
    file.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("config", lambda c: c["encoder_config"].update(hidden_size=10**9), "weights have other shapes than its config says"),
        ("config", lambda c: c["encoder_config"].update(vocab_size=10**12), "weights have other shapes than its config says"),
        (
            "config",
            lambda c: c["encoder_config"].update(num_hidden_layers=10**8),
            "`num_hidden_layers` is 100,000,000, more than 1,000",
        ),
        ("config", lambda c: c["encoder_config"].update(num_hidden_layers=0), "does not match its config (32 unexpected keys"),
        ("config", lambda c: c["encoder_config"].update(hidden_size=-4), "cannot be loaded: RuntimeError: "),
        ("config", lambda c: c["encoder_config"].update(hidden_size="x"), "'hidden_size' expected int, got str"),
        ("config", lambda c: c["encoder_config"].update(num_attention_heads=0), "ZeroDivisionError"),
        ("config", lambda c: c["encoder_config"].update(hidden_act="__import__"), "KeyError: '__import__'"),
        ("config", lambda c: c.update(encoder_config=[1]), "must be a dict or a PreTrainedConfig, got list"),
        ("config", lambda c: c.update(encoder_config=dict(c)), "does not match its config (8 missing keys"),
        ("config", lambda c: c.update(num_labels=10**9), "`num_labels` is 1,000,000,000, more than"),
        ("config", lambda c: c.update(id2label=5), "The config of"),
        ("config", lambda c: c.update(dtype="nonsense"), "The config of"),
        ("config", lambda c: c.update(quantization_config=5), "The config of"),
        ("config", lambda c: c.update(max_length=-1), "`max_length` must be at least 3"),
        ("config", lambda c: c.update(probe=5), "The probe in the config of"),
        ("tokenizer", lambda t: t.update(model=None), "The tokenizer of"),
        ("tokenizer", lambda t: t["model"].update(vocab={"[UNK]": 0}), "The tokenizer of"),
        (
            "tokenizer",
            lambda t: t.update(
                pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Removed", "invert": False}
            ),
            "The tokenizer of",
        ),
        ("tokenizer_config", lambda t: t.update(pad_token=5), "The tokenizer of"),
    ],
)
def test_a_hostile_ranker_is_refused_in_a_line(name, edit, message, probed, tmp_path, capfd):
    _edited(probed / f"{name}.json", edit)
    (tmp_path / "d.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    command = ["score", tmp_path / "d.jsonl", "-o", tmp_path / "o.jsonl", "--model", probed, "--backend", "torch"]
    assert main([str(part) for part in command]) == 1
    said = capfd.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and len(said.err) < 900 and "Traceback" not in said.err
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b'{"a', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"", b"5", b"[]", b"\0"])
def test_json_of_a_ranker_that_is_none_is_refused(name, content, probed):
    (probed / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"The (config|tokenizer) of .*probed' (is invalid|cannot be loaded)"):
        load(probed)


def test_a_pickle_with_code_is_refused_in_a_line_and_not_run(probed, tmp_path):
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "pwned"),)

    (probed / "model.safetensors").unlink()
    for content in (pickle.dumps(Evil()), None):
        torch.save({"a": Evil()}, probed / "pytorch_model.bin")
        if content is not None:
            (probed / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(ValueError, match=r"pickle file that holds more than tensors") as caught:
            load(probed)
        assert "Re-running" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_config_that_asks_for_tuples_changes_nothing(probed):
    before = load(probed).score("q", "a")
    _edited(probed / "config.json", lambda c: c.update(return_dict=False))
    assert load(probed).score("q", "a") == before
