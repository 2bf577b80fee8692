"""Adding a scorer setting or a criterion is one edit: it then appears wherever settings or criteria are shown or taken."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# File, the line before which a field is added, and the field.
EDITS = [
    (
        "scoring/settings.py",
        "    def __post_init__(self) -> None:\n        if self.tokens_per_batch",
        '    emphasis: int = option(1, "A setting that a test adds.", int, decides=SCORES, metavar="N")\n\n',
    ),
    (
        "selecting/criteria.py",
        "    def __post_init__(self) -> None:\n        if self.k",
        '    patience: int = option(0, "A criterion that a test adds.", int, metavar="N")\n\n',
    ),
]
ASKED = """
import inspect, io, json, sys
from contextlib import redirect_stdout, suppress

from scar_hf import ScarRanking, ScarScorer, scar_filter, scar_rank, scar_score, scar_select
from scar_hf.cli import main
from scar_hf.manifest.commands import select_command, select_snippet
from scar_hf.selecting.criteria import Criteria
from scar_hf.trainer_callbacks import ScarArguments
from datasets import Dataset

ds = Dataset.from_list([{"instruction": f"Count to {i}.", "response": "one " * (i + 1)} for i in range(4)])
selection = scar_rank(ds, model=sys.argv[1], device="cpu", emphasis=3, progress=False).select(2, patience=5)
shown = io.StringIO()
with redirect_stdout(shown), suppress(SystemExit):
    main(["select", "--help"])
def taking(name, *functions):
    return [name in inspect.signature(function).parameters for function in functions]
print(json.dumps({
    "signatures": taking("emphasis", ScarScorer, scar_score, scar_rank, scar_filter),
    "docs": "A setting that a test adds." in ScarScorer.__doc__ and "A setting that a test adds." in scar_score.__doc__,
    "criteria": taking("patience", Criteria, ScarRanking.select, scar_select, scar_filter),
    "criteria_docs": ["A criterion that a test adds." in f.__doc__ for f in (Criteria, ScarRanking.select, scar_select)],
    "help": "--emphasis N" in shown.getvalue() and "--patience N" in shown.getvalue(),
    "identity": [ScarScorer(sys.argv[1], emphasis=value).identity()["emphasis"] for value in (1, 3)],
    "manifest": selection.manifest["settings"]["emphasis"],
    "command": select_command(selection.manifest, None),
    "snippet": select_snippet(selection.manifest),
    "trainer": ScarArguments(scar_k=2, scar_patience=5, scar_emphasis=3).criteria() == Criteria(2, patience=5),
}))
"""


def test_a_setting_and_a_criterion_are_added_in_one_place(tmp_path, tiny_ranker):
    package = tmp_path / "scar_hf"
    shutil.copytree(ROOT / "scar_hf", package, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    for folder in ("modeling", "hub_cards", "trainer_callbacks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    for name, before, added in EDITS:
        text = (package / name).read_text(encoding="utf-8")
        assert text.count(before) == 1
        (package / name).write_text(text.replace(before, added + before), encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    run = subprocess.run([sys.executable, "-c", ASKED, str(tiny_ranker)], capture_output=True, text=True, env=env, cwd=tmp_path)
    if run.returncode:
        pytest.fail(run.stderr[-2000:])
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["signatures"] == [True] * 4 and found["docs"] and found["help"] and found["trainer"]
    assert found["identity"] == [1, 3] and found["manifest"] == 3
    assert "--emphasis 3" in found["command"] and "emphasis=3" in found["snippet"]
    assert found["criteria"] == [True] * 4 and found["criteria_docs"] == [True] * 3
    assert "--patience 5" in found["command"] and "patience=5" in found["snippet"]
