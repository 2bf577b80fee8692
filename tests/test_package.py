"""What the wheel holds, and what an import costs."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import scar_hf

ROOT = Path(__file__).parent.parent
MAPPED = ("modeling", "trainer_callbacks", "hub_cards")


def test_the_wheel_holds_one_top_level_name(tmp_path):
    left_out = shutil.ignore_patterns(".*", "build", "dist", "out", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        entry_points = wheel.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"scar_hf"}
    for expected in ("modeling/modeling_scar.py", "training/trainer.py", "cli/select.py", "py.typed"):
        assert f"scar_hf/{expected}" in names
    for expected in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        assert {f"scar_hf/checkpoints/{ranker}/{expected}" for ranker in ("scar-ranker", "scar-ranker-fast")} <= set(names)
    assert "scar-hf = scar_hf.__main__:main" in entry_points and "hf-scar = scar_hf.__main__:main" in entry_points
    on_disk = {str(p.relative_to(ROOT)) for p in (ROOT / "scar_hf").rglob("*.py")}
    on_disk |= {f"scar_hf/{p.relative_to(ROOT)}" for name in MAPPED for p in (ROOT / name).rglob("*.py")}
    assert on_disk <= set(names), "a module is missing from `packages` in setup.cfg"


def test_import_brings_the_classes_and_no_optional_library():
    code = (
        "import sys, scar_hf\n"
        "from transformers import AutoConfig\n"
        "assert AutoConfig.for_model('scar').model_type == 'scar'\n"
        "print([name for name in ('trl', 'peft', 'matplotlib', 'ray', 'datasets') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_public_names():
    for name in scar_hf.__all__:
        assert getattr(scar_hf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = scar_hf.nonsense


def test_nothing_imports_a_mapped_folder_by_its_bare_name():
    pattern = re.compile(r"^\s*(import|from) (modeling|trainer_callbacks|hub_cards)\b", re.MULTILINE)
    for path in ROOT.rglob("*.py"):
        if ".venv" not in path.parts and "build" not in path.parts:
            assert not pattern.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(("ranker", "size"), [("scar-ranker", 48_000_000), ("scar-ranker-fast", 12_000_000)])
def test_checkpoint_is_small_and_half_precision(ranker, size):
    folder = ROOT / "scar_hf" / "checkpoints" / ranker
    assert sum(file.stat().st_size for file in folder.iterdir()) < size
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118
