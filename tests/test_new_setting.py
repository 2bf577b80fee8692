"""Adding a scorer setting is one edit: of ScorerSettings. It then appears wherever settings are shown or taken."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAST = "    def __post_init__(self) -> None:\n        if self.tokens_per_batch"
ADDED = """    emphasis: int = _setting(
        1, "`int`", "A setting that a test adds.", decides=SCORES, option=int, metavar="N"
    )

"""
ASKED = """
import inspect, io, json, sys
from contextlib import redirect_stdout, suppress

from scar_hf import ScarScorer, scar_filter, scar_rank, scar_score
from scar_hf.cli import main
from scar_hf.manifest.commands import select_command, select_snippet
from scar_hf.scoring.settings import ScorerSettings, prefixed_fields
from scar_hf.selection import Selection
from datasets import Dataset

ds = Dataset.from_list([{"instruction": f"Count to {i}.", "response": "one " * (i + 1)} for i in range(4)])
selection = scar_rank(ds, model=sys.argv[1], device="cpu", emphasis=3, progress=False).select(2)
shown = io.StringIO()
with redirect_stdout(shown), suppress(SystemExit):
    main(["select", "--help"])
print(json.dumps({
    "signatures": ["emphasis" in inspect.signature(f).parameters for f in (ScarScorer, scar_score, scar_rank, scar_filter)],
    "docs": "A setting that a test adds." in ScarScorer.__doc__ and "A setting that a test adds." in scar_score.__doc__,
    "help": "--emphasis N" in shown.getvalue(),
    "identity": [ScarScorer(sys.argv[1], emphasis=value).identity()["emphasis"] for value in (1, 3)],
    "manifest": selection.manifest["settings"]["emphasis"],
    "command": select_command(selection.manifest, None),
    "snippet": select_snippet(selection.manifest),
    "trainer": "scar_emphasis" in {name for name, _, _ in prefixed_fields("scar_")},
}))
"""


def test_a_setting_is_added_in_one_place(tmp_path, tiny_ranker):
    package = tmp_path / "scar_hf"
    shutil.copytree(ROOT / "scar_hf", package, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    for folder in ("modeling", "hub_cards", "trainer_callbacks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    settings = package / "scoring" / "settings.py"
    text = settings.read_text(encoding="utf-8")
    assert text.count(LAST) == 1
    settings.write_text(text.replace(LAST, ADDED + LAST), encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    run = subprocess.run([sys.executable, "-c", ASKED, str(tiny_ranker)], capture_output=True, text=True, env=env, cwd=tmp_path)
    if run.returncode:
        pytest.fail(run.stderr[-2000:])
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["signatures"] == [True] * 4 and found["docs"] and found["help"] and found["trainer"]
    assert found["identity"] == [1, 3] and found["manifest"] == 3
    assert "--emphasis 3" in found["command"] and "emphasis=3" in found["snippet"]
