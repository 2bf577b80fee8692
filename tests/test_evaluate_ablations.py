"""The ablations: a tiny ranker for each cell, the table, the figure, and going on where a run was stopped."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "recipes" / "ablations.py"


@pytest.fixture(scope="module")
def ablations():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablations"] = module  # where its dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(write_jsonl) -> Path:
    rows = [
        {
            "instruction": f"Tell me about topic {i}.",
            "direct": f"Certainly! Topic {i} is well known, and that is all there is.",
            "referenced": f"Certainly, topic {i} is something that people say they know.",
            "human": f"dunno really topic {i} is a thing people know i guess lol",
            "source": ("web", "lab")[i % 2],
            "domain": ("essay", "code")[i % 2],
        }
        for i in range(40)
    ]
    return write_jsonl(rows, "triples.jsonl")


def test_cells_are_run_once_and_shown(ablations, data, encoder_folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "tiny.yaml").write_text("max_length: 32\nmax_steps: 2\nper_device_train_batch_size: 4\nuse_cpu: true\n")
    out = tmp_path / "out"
    names = ["whole", "no_quality_constraint", "no_referenced", "no_surprisal", "no_form", "code_only"]
    args = ["--data_dir", data.parent, "--files", data.name, "--encoder", encoder_folder, "--rows", 30, "-o", out]
    args = [str(arg) for arg in [*args, "--config", tmp_path / "tiny.yaml", "--seeds", 1, 2, "--only", *names]]
    ablations.main(args)
    shown = capsys.readouterr().out
    assert "no_quality_constraint: left out, no row has ratings" in shown
    cells = {path.name: json.loads(path.read_text()) for path in out.glob("*.json")}
    assert len(cells) == 10 and (out / "ablations.png").stat().st_size > 5000
    rows = {cell["experiment"]: cell["rows"] for cell in cells.values()}
    assert rows["whole"] == rows["no_referenced"] > rows["code_only"] > 0
    blind = [cell["metrics"]["all"] for cell in cells.values() if cell["experiment"] == "no_surprisal"]
    form = [cell["metrics"]["all"] for cell in cells.values() if cell["experiment"] == "no_form"]
    assert blind != form
    table = (out / "ablations.md").read_text()
    assert "| without linguistic form | " in table and "tested on code" in table and " ± 0." in table and table.strip() in shown
    # A run that was stopped: one cell is missing, and it alone is trained.
    missing = next(path for path in out.glob("no_form-2-*.json"))
    before = json.loads(missing.read_text())["metrics"]
    missing.unlink()
    trained = []
    run_cell = ablations.run_cell
    monkeypatch.setattr(ablations, "run_cell", lambda *a: trained.append(a[:2]) or run_cell(*a))
    ablations.main(args)
    assert [(experiment.title, seed) for experiment, seed in trained] == [("without linguistic form", 2)]
    assert json.loads(missing.read_text())["metrics"] == before


def test_halves_of_the_representation_are_taken_away(ablations, encoder_folder):
    torch.manual_seed(0)
    x, y, form = torch.randn(3, 2, 32)
    for cls, changed, kept in ((ablations.FormOnly, 0, 2), (ablations.SurprisalOnly, 2, 0)):
        model = cls.from_encoder(str(encoder_folder), ablations.ScarConfig(use_pooler=False))
        parts = [x, y, form]
        score = model.rank(*parts)[0]
        assert torch.equal(model.rank(*[p + 1 if i == changed else p for i, p in enumerate(parts)])[0], score)
        assert not torch.equal(model.rank(*[p + 1 if i == kept else p for i, p in enumerate(parts)])[0], score)


def test_what_is_wrong_is_said(ablations, data, encoder_folder, tmp_path):
    (tmp_path / "bad.yaml").write_text("lerning_rate: 1\n")
    base = ["--data_dir", str(data.parent), "--files", data.name, "--encoder", str(encoder_folder), "-o", str(tmp_path / "o")]
    with pytest.raises(ValueError, match=r"neither ScarConfig nor ScarTrainingArguments: \['lerning_rate'\]"):
        ablations.main([*base, "--config", str(tmp_path / "bad.yaml")])
    with pytest.raises(ValueError, match="--rows 1 is less than one row for each of 2 sources"):
        ablations.main([*base, "--rows", "1"])
