"""A saved ranker loads where scar-hf is not installed, by the code beside it; where it is installed none of that code runs."""

import argparse
import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scar_hf.modeling import ScarRankingPipeline
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, pipeline

from scar_hf import ScarModel, ScarScorer
from scar_hf.cli import export
from scar_hf.scoring.checkpoints import resolve_checkpoint
from scar_hf.training.saving import save_ranker

CODE = {
    f"{name}_scar.py" for name in ("configuration", "encoding", "loss", "modeling", "pipeline", "static_encoder", "triples")
}

# What somebody has who has only torch and transformers.
WITHOUT_SCAR_HF = """
import json, sys
sys.modules["scar_hf"] = None
from transformers import AutoModel, AutoTokenizer, pipeline

folder, again, rows = sys.argv[1], sys.argv[2], json.load(sys.stdin)
texts = [row["instruction"] for row in rows], [row["response"] for row in rows]
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
scores = model.score(tokenizer, *texts).tolist()
ranker = pipeline("scar-ranking", model=folder, trust_remote_code=True, device="cpu")
piped = [output["score"] for output in ranker(rows, batch_size=4)]
model.save_pretrained(again)
tokenizer.save_pretrained(again)
resaved = AutoModel.from_pretrained(again, trust_remote_code=True).score(tokenizer, *texts).tolist()
modules = [type(model).__module__, type(model.config).__module__, type(ranker).__module__]
print(json.dumps({"scores": [scores, piped, resaved], "modules": modules}))
"""


def run_export(*args):
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return export.run(parser.parse_args([str(arg) for arg in args]))


@pytest.fixture(params=["tiny", "scar-ranker-fast"])
def exported(request, tiny_ranker, tmp_path) -> Path:
    """A ranker's folder, as `scar-hf export` writes it: one with layers, and one with a static encoder."""
    ranker = tiny_ranker if request.param == "tiny" else request.param
    assert run_export(ranker, "-o", tmp_path / "exported") == 0
    return tmp_path / "exported"


def test_loads_and_scores_the_same_without_scar_hf(exported, tmp_path, rows):
    again = tmp_path / "again"
    run = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_SCAR_HF, exported, again],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        env=os.environ
        | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout.splitlines()[-1])
    assert all(module.startswith("transformers_modules.") for module in answer["modules"])
    scorer = ScarScorer(str(exported), device="cpu", dtype="float32")
    expected = scorer.score([row["instruction"] for row in rows], [row["response"] for row in rows])
    for scores in answer["scores"]:
        np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert {file.name for file in again.glob("*.py")} == CODE


@pytest.mark.parametrize("trust", [None, False, True])
def test_with_scar_hf_none_of_the_code_runs(exported, rows, trust, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    for name in CODE:
        (exported / name).write_text("raise SystemExit('remote code ran')")
    options = {} if trust is None else {"trust_remote_code": trust}
    assert type(AutoModel.from_pretrained(exported, **options)) is ScarModel
    assert AutoConfig.from_pretrained(exported, **options).model_type == "scar"
    assert AutoTokenizer.from_pretrained(exported, **options).pad_token_id == 0
    ranker = pipeline("scar-ranking", model=str(exported), device="cpu", **options)
    assert type(ranker) is ScarRankingPipeline
    assert np.isfinite(ranker(rows[0])["score"])
    assert np.isfinite(ScarScorer(str(exported), device="cpu").score(["a"], ["b"])).all()


def test_every_way_of_saving_carries_the_code(tiny_model, tokenizer, tmp_path):
    model = tiny_model(vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path / "model")
    save_ranker(model, tokenizer, tmp_path / "ranker")
    pipeline("scar-ranking", model=model, tokenizer=tokenizer, device="cpu").save_pretrained(tmp_path / "pipeline")
    for name in ("model", "ranker", "pipeline"):
        values, _ = PreTrainedConfig.get_config_dict(tmp_path / name)
        named = [*values["auto_map"].values(), *(task["impl"] for task in values["custom_pipelines"].values())]
        assert {f"{reference.split('.')[0]}.py" for reference in named} <= CODE
        assert {file.name for file in (tmp_path / name).glob("*.py")} == CODE
        assert not (tmp_path / name / "convert_scar_tool_checkpoint.py").exists()


def test_the_code_imports_only_what_travels_with_it(exported):
    allowed = {"torch", "transformers", *sys.stdlib_module_names}
    for file in exported.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, file
            elif isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and f"{node.module}.py" in CODE, file
            elif isinstance(node, ast.ImportFrom):
                assert str(node.module).split(".")[0] in allowed, file


def test_export_adds_the_code_and_changes_no_weight(tmp_path, scorer):
    bundled, folder = Path(resolve_checkpoint("scar-ranker")), tmp_path / "scar-ranker"
    assert not list(bundled.glob("*.py"))
    assert run_export("scar-ranker", "-o", folder) == 0
    assert (folder / "model.safetensors").read_bytes() == (bundled / "model.safetensors").read_bytes()
    assert {file.name for file in bundled.iterdir()} | CODE == {file.name for file in folder.iterdir()}
    model = AutoModel.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert model.config.calibration == scorer.model.config.calibration
    scores = model.score(AutoTokenizer.from_pretrained(folder), ["What do bees eat?"], ["Bees eat nectar and pollen."])
    np.testing.assert_allclose(scores, scorer.score(["What do bees eat?"], ["Bees eat nectar and pollen."]), atol=1e-5)
