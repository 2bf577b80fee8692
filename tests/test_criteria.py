"""Criteria in Python, in a manifest and on the command line are the same, whatever their types."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from scar_hf import ScarRanking, ScarScorer, scar_rank, scar_select
from scar_hf.cli import main
from scar_hf.files import read_dataset
from scar_hf.manifest.commands import select_command
from scar_hf.methods import method_scorer
from scar_hf.runs import select_files, verify_manifest
from scar_hf.selecting.criteria import Criteria
from scar_hf.selection import Selection

ROWS = [
    {"id": i, "instruction": f"q{i}", "response": "w " * (i + 1), "source": ["a", None][i % 2], "year": 9 + i % 2,
     "checked": i % 2 == 0}
    for i in range(12)
]  # fmt: skip


@pytest.fixture
def ranking() -> ScarRanking:
    return scar_rank(Dataset.from_list(ROWS), method="longest", progress=False)


def test_numbers_of_numpy_are_those_of_python(ranking, write_jsonl, tmp_path):
    given = {"k": 3, "prefilter": 0.5, "min_recall": 0.25, "audit_seed": 7}
    types = {"k": np.int64, "prefilter": np.float32, "min_recall": np.float64, "audit_seed": np.int16}
    of_numpy = Criteria(**{name: types[name](value) for name, value in given.items()})
    assert of_numpy == Criteria(**given) and json.dumps(of_numpy.describe()) == json.dumps(Criteria(**given).describe())
    assert json.dumps(Criteria(threshold=np.float32(1.5)).describe()) == json.dumps(Criteria(threshold=1.5).describe())
    selection = ranking.select(np.int64(3))
    selection.save(tmp_path / "saved")
    assert Selection.load(tmp_path / "saved").manifest == selection.manifest
    assert selection.push_to_hub("me/x", dry_run=True)
    data = write_jsonl(ROWS)
    assert select_files(data, tmp_path / "o.jsonl", method_scorer("longest"), np.int64(4), progress=False).kept == 4
    assert select_files(data, tmp_path / "o.jsonl", method_scorer("longest"), 4, progress=False).found


def test_one_row_is_not_all_rows(ranking):
    for one, every in ((1, 1.0), (np.int64(1), np.float32(1.0))):
        assert (len(ranking.select(one)), len(ranking.select(every)), len(ranking.select(one))) == (1, 12, 1)
        assert Criteria(one) != Criteria(every)
    ranking.only_for = Criteria(1, prefilter=0.5)
    assert len(ranking.select(1, prefilter=0.5)) == 1
    with pytest.raises(ValueError, match="This ranking has scored only the rows that its own criteria need"):
        ranking.select(1.0, prefilter=0.5)


@pytest.mark.parametrize(
    "shares",
    [{"source": {"a": 0.25, None: 0.75}}, {"year": {9: 0.25, np.int64(10): 0.75}}, {"checked": {True: 0.25, False: 0.75}}],
)
def test_shares_of_values_that_are_not_text(shares, ranking, write_jsonl, tmp_path):
    selection = ranking.select(8, stratify_by=shares)
    assert [i % 2 for i in selection.indices.tolist()].count(0) == 2
    selection.save(tmp_path / "saved")
    assert Selection.load(tmp_path / "saved").manifest == selection.manifest
    assert selection.push_to_hub("me/x", dry_run=True)
    data, scorer = write_jsonl(ROWS), method_scorer("longest")
    select_files(data, tmp_path / "o.jsonl", scorer, Criteria(8, stratify_by=shares), explain=True, progress=False)
    assert all(check.passed is not False for check in verify_manifest(tmp_path / "o.jsonl"))
    assert read_dataset(tmp_path / "o.jsonl")["id"][:] == selection.indices.tolist()
    assert select_files(data, tmp_path / "o.jsonl", scorer, Criteria(8, stratify_by=shares), explain=True, progress=False).found

    manifest = json.loads((tmp_path / "o.jsonl.manifest.json").read_text())
    command = shlex.split(select_command(manifest, str(tmp_path / "again.jsonl")))
    assert main(command[1:]) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "o.jsonl").read_bytes()
    recorded = manifest["options"]["stratify_by"]
    assert ranking.top(8, stratify_by=recorded)["id"][:] == selection.indices.tolist()


def test_shares_of_unknown_or_equal_keys_are_refused(ranking):
    with pytest.raises(ValueError, match=r"lists values that no row has in 'year': \['11'\]. Values found: \[9, 10\]"):
        ranking.select(4, stratify_by={"year": {"9": 0.5, "11": 0.5}})
    with pytest.raises(ValueError, match=r"`stratify_by` lists 9 and '9', which are the same key in JSON"):
        ranking.select(4, stratify_by={"year": {9: 0.5, "9": 0.5}})


def test_text_keys_mean_text_where_there_is_such_a_text():
    sources = ["null", None, "10"] * 4
    ds = Dataset.from_list([row | {"source": source} for row, source in zip(ROWS, sources, strict=True)])
    kept = scar_select(ds, 4, stratify_by={"source": {"null": 1, "10": 1}}, method="longest", progress=False)
    assert sorted(kept["source"][:]) == ["10", "10", "null", "null"]


def test_a_selection_by_a_formatting_func_loads_without_it(tmp_path: Path):
    def formatting(row):
        return row["instruction"], row["response"]

    ranked = scar_rank(Dataset.from_list(ROWS), method="longest", formatting_func=formatting, progress=False)
    ranked.select(0.5).save(tmp_path / "saved")
    loaded = Selection.load(tmp_path / "saved")
    assert "kept: 6 of 12 rows" in repr(loaded) and loaded.dataset["id"][:] == list(range(6, 12))
    assert "<th>kept</th>" in loaded._repr_html_() and "instruction" not in loaded._repr_html_()
    with pytest.raises(ValueError, match=r"Pass scorer=ScarScorer\(..., formatting_func=...\) to Selection.load"):
        list(loaded.rows.rows())
    scorer = ScarScorer(formatting_func=formatting, device="cpu")
    assert "<td>q11</td>" in Selection.load(tmp_path / "saved", scorer=scorer)._repr_html_().replace(' class="n"', "")
