"""The same criteria keep the same rows through every door."""

import importlib
import json
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from scar_hf import ScarScorer, scar_filter, scar_rank, scar_select
from scar_hf.cli import main
from scar_hf.curation import ExactDuplicates
from scar_hf.report import report_files
from scar_hf.runs import explain_rows, select_files
from scar_hf.selecting.criteria import Criteria
from scar_hf.selection import Selection

SPACE = Path(__file__).parent.parent / "examples" / "space"
SHARES = {"source": {"web": 0.75, "book": 0.25}}
# Criteria, and what the command line and the trainer say for them.
WANTED = [
    (Criteria(0.3), {"k": 0.3}),
    (Criteria(7, stratify_by="source"), {"k": 7, "stratify_by": "source"}),
    (Criteria(8, stratify_by=SHARES, diversity=0.5), {"k": 8, "stratify_by": json.dumps(SHARES), "diversity": 0.5}),
    (Criteria(0.5, curation=[ExactDuplicates()]), {"k": 0.5, "drop_duplicates": True}),
    (Criteria(threshold=-100.0, curation=[ExactDuplicates()]), {"threshold": -100.0, "drop_duplicates": True}),
]
# These decide what is scored, so they cannot be changed afterwards, as on the page of the Space.
BEFORE_SCORING = [
    (Criteria(0.2, prefilter=0.5, audit_seed=1), {"k": 0.2, "prefilter": 0.5, "audit_seed": 1}),
    (Criteria(4, stratify_by="source", min_recall=0.5), {"k": 4, "stratify_by": "source", "min_recall": 0.5}),
]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    made = [
        {"id": i, "instruction": f"What is {i % 17}?", "response": f"It is {'a word ' * (i % 17 % 9)}{i % 17}.",
         "source": "web" if i % 3 else "book"}
        for i in range(40)
    ]  # fmt: skip
    made[5]["response"] = ""
    return made


def words(options: dict, dashed: bool) -> list[str]:
    line: list[str] = []
    for name, value in options.items():
        flag = ("-k" if name == "k" else f"--{name.replace('_', '-')}") if dashed else f"--scar_{name}"
        line += [flag] if value is True else [flag, str(value)]
    return line


@pytest.mark.parametrize(("criteria", "options"), [*WANTED, *BEFORE_SCORING], ids=lambda value: str(value)[:40])
def test_every_door(criteria, options, rows, tiny_ranker, tmp_path):
    ds = Dataset.from_list(rows)
    scorer = ScarScorer(str(tiny_ranker), device="cpu")
    selection = scar_rank(ds, model=scorer, criteria=criteria, progress=False).select(criteria)
    kept = selection.dataset["id"][:]
    assert 0 < len(kept) < len(rows) and 5 not in kept
    if criteria.curation:  # of the pairs that the rows repeat, one each
        assert len({(rows[i]["instruction"], rows[i]["response"]) for i in kept}) == len(kept)
    assert scar_select(ds, criteria, model=scorer, progress=False)["id"][:] == kept
    assert ds.filter(scar_filter(k=criteria, model=scorer, progress=False))["id"][:] == kept
    assert ds.filter(scar_filter(ds, criteria, model=scorer, progress=False), num_proc=2)["id"][:] == kept

    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    select_files(data, tmp_path / "best.jsonl", scorer, criteria, progress=False)
    assert [json.loads(line)["id"] for line in (tmp_path / "best.jsonl").read_text().splitlines()] == kept
    explained = explain_rows(data, scorer, criteria, range(len(rows)))
    assert [row.number for row in explained if row.decision == "kept"] == kept
    report = report_files(data, None, scorer, criteria, progress=False, map_rows=10)
    assert report.numbers["counts"]["kept"] == len(kept)
    assert [row["row"] for row in report.numbers["examples"] if row["decision"] == "kept"] == sorted(
        kept, key=lambda i: -selection.scored.scores[i]
    )

    ranker = ["--model", str(tiny_ranker), "--device", "cpu"]
    assert main(["select", str(data), "-o", str(tmp_path / "cli"), "--quiet", *words(options, True), *ranker]) == 0
    folder = load_dataset(str(tmp_path / "cli"), split="train", cache_dir=str(tmp_path / "hf"))
    assert folder["id"][:] == kept
    selection.push_to_hub("me/best", dry_run=True)

    from_files = Selection.from_files(data, None, scorer, criteria, progress=False)
    assert from_files.dataset["id"][:] == kept and from_files.reasons == selection.reasons
    written = Selection.from_files(data, tmp_path / "cli", scorer, progress=False)
    # Rows are matched by their texts, so equal rows of different sources may take each other's places.
    assert sorted(written.dataset["instruction"]) == sorted(selection.dataset["instruction"])
    assert written.threshold == selection.threshold and written.explain()["scar_decision"][:].count("kept") == len(kept)


@pytest.mark.parametrize(("criteria", "options"), WANTED, ids=lambda value: str(value)[:40])
def test_the_space(criteria, options, rows, tiny_ranker, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SPACE))
    view = importlib.import_module("view")
    scorer = ScarScorer(str(tiny_ranker), device="cpu")
    ranking = scar_rank(Dataset.from_list(rows), model=scorer, progress=False)
    kept = ranking.select(criteria).indices.tolist()
    # What the controls of the page give: a share, a count or nothing, and a value for each of the other criteria.
    share, count = (options.get("k"), None) if isinstance(options.get("k"), float) else (0.1, options.get("k"))
    controls = [options.get(option.name, option.default) for option in view.OPTIONS]
    assert set(options) - {"k"} <= {option.name for option in view.OPTIONS}
    scored = view.measured(ranking, scorer)
    selection = ranking.select(view.criteria_of(share, count, controls))
    assert selection.indices.tolist() == kept
    numbers = view.numbers_at(scored, selection)
    report = selection.report(map_rows=10).numbers
    assert numbers["counts"] == report["counts"] and numbers["scores"] == report["scores"]
    assert sum(group["kept"] for group in numbers["groups"]) == len(kept)

    pytest.importorskip("gradio")
    app = importlib.import_module("app")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    written, _ = app.make_files(scored, "JSON Lines", False, share, count, *controls)
    assert [json.loads(line)["id"] for line in Path(written).read_text().splitlines()] == kept


@pytest.mark.parametrize(("criteria", "options"), [*WANTED, *BEFORE_SCORING], ids=lambda value: str(value)[:40])
def test_trainer_arguments(criteria, options):
    pytest.importorskip("trl")
    from scar_hf.trainer_callbacks import ScarArguments
    from transformers import HfArgumentParser

    (found,) = HfArgumentParser(ScarArguments).parse_args_into_dataclasses(words(options, False))
    assert found.criteria().describe() == criteria.describe()


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"method": "longest"}, {"scar_method": "longest"}),
        ({"method": "random", "seed": 3}, {"scar_method": "random", "scar_seed": 3}),
        ({"method": {"longest": 1, "id": -1}, "combine": "z_score"},
         {"scar_method": "longest=1,id=-1", "scar_combine": "z_score"}),
    ],
)  # fmt: skip
def test_the_trainer_ranks_by_any_method(options, values, rows, tiny_lm, tmp_path):
    pytest.importorskip("trl")
    from scar_hf.trainer_callbacks import ScarArguments, ScarSFTTrainer
    from transformers import HfArgumentParser
    from trl import SFTConfig

    ds = Dataset.from_list(rows)
    expected = scar_rank(ds, progress=False, **options).top(0.3)["id"][:]
    line = [str(part) for name, value in values.items() for part in (f"--{name}", value)]
    (scar_args,) = HfArgumentParser(ScarArguments).parse_args_into_dataclasses([*line, "--scar_k", "0.3"])
    config = SFTConfig(tmp_path, max_steps=1, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True)
    trainer = ScarSFTTrainer(tiny_lm, config, train_dataset=ds, scar_args=scar_args)
    assert trainer.scar_selection.dataset["id"][:] == expected
    assert trainer.scar_selection.manifest["settings"]["method"] == trainer.scar_ranking.scorer.method
    with pytest.raises(ValueError, match="Did you mean 'longest'"):
        ScarSFTTrainer(tiny_lm, config, train_dataset=ds, scar_args=ScarArguments(scar_method="longst"))


def test_a_selection_answers_everything(rows, tiny_ranker, tmp_path):
    ds = Dataset.from_list(rows)
    selection = scar_rank(ds, model=str(tiny_ranker), device="cpu", progress=False).select(
        6, stratify_by="source", curation=[ExactDuplicates()]
    )
    assert len(selection) == len(selection.dataset) == 6 and len(selection.dropped) == 34
    assert selection.threshold == min(selection.dataset["scar_score"][:])
    assert set(selection.reasons) == set(range(40)) - set(selection.indices.tolist())
    assert selection.reasons[5] == "the response is empty"
    assert any("duplicate of row" in why for why in selection.reasons.values())
    assert selection.explain()["scar_decision"][:].count("kept") == 6
    assert selection.to_pandas().index.tolist() == selection.indices.tolist()
    said = repr(selection)
    assert "kept: 6 of 40 rows (15.0%)" in said and "quotas for 'source'" in said and "1 × the response is empty" in said
    assert "<th>kept</th><td>6 of 40 rows (15.0%)</td>" in selection._repr_html_()

    selection.save(tmp_path / "saved")
    again = Selection.load(tmp_path / "saved")
    assert again.manifest == selection.manifest and again.reasons == selection.reasons
    assert again.dataset.to_dict() == selection.dataset.to_dict()
    (tmp_path / "saved" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a saved selection, or is damaged"):
        Selection.load(tmp_path / "saved")


def test_criteria_that_contradict_each_other():
    for wrong, message in (
        ({"k": 3, "threshold": 1.0}, "either `k` or `threshold`"),
        ({"threshold": float("nan")}, "must be a number"),
        ({"threshold": 1.0, "diversity": 0.5}, "`stratify_by` and `diversity` require `k`"),
    ):
        with pytest.raises(ValueError, match=message):
            Criteria(**wrong)
    with pytest.raises(ValueError, match="Set these in the Criteria instead"):
        Criteria.of(Criteria(3), diversity=0.5)
