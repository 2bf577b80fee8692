"""The fast ranker chooses which rows the ranker scores, and an audit says what that misses."""

import json
import math

import numpy as np
import pytest
from datasets import Dataset

from scar_hf import ScarScorer, scar_filter, scar_rank, scar_select
from scar_hf.cli import main
from scar_hf.curation import ExactDuplicates, NearDuplicates
from scar_hf.runs import explain_rows, select_files, verify_manifest
from scar_hf.selecting.audit import audit_in_words, expected_missing, upper_bound
from scar_hf.selecting.criteria import Criteria
from scar_hf.selection import Selection


@pytest.fixture(scope="module")
def ds() -> Dataset:
    rows = [
        {
            "id": i,
            "instruction": f"What is {i % 37}?",
            "response": f"It is {'a word ' * (i % 29)}{i % 41}.",
            "source": "ab"[i % 3 % 2],
        }
        for i in range(400)
    ]
    rows[5]["response"] = ""
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def ranker(tiny_ranker) -> ScarScorer:
    return ScarScorer(str(tiny_ranker), device="cpu", dtype="float32")


def at_most(hits: int, drawn: int, population: int, marked: int) -> float:
    ways = sum(math.comb(marked, x) * math.comb(population - marked, drawn - x) for x in range(hits + 1))
    return ways / math.comb(population, drawn)


@pytest.mark.parametrize(
    ("hits", "drawn", "population"), [(0, 20, 100), (3, 20, 100), (20, 20, 100), (1, 99, 100), (5, 60, 1000)]
)
def test_the_bound_is_exact(hits, drawn, population):
    bound = upper_bound(hits, drawn, population)
    assert hits <= bound <= population - (drawn - hits)
    assert at_most(hits, drawn, population, bound) > 0.05
    if bound < population - (drawn - hits):
        assert at_most(hits, drawn, population, bound + 1) <= 0.05


def test_the_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    population, drawn = 2000, 150
    for marked in (3, 40, 300):
        hits = rng.hypergeometric(marked, population - marked, drawn, size=2000)
        covered = np.mean([upper_bound(int(x), drawn, population) >= marked for x in hits])
        assert covered >= 0.94, marked


def test_the_expected_number_counts_what_the_sample_stands_for():
    # Two known rows above the audited one, which stands for three others; of four rows wanted, two come from these.
    scores = np.array([5.0, 4.0, 3.0, 1.0, np.nan, np.nan, np.nan])
    labels = np.zeros(7, dtype=np.int64)
    assert expected_missing(scores, np.array([2]), 1.0, labels, np.array([4])) == 1.0
    assert expected_missing(scores, np.array([3]), 3.0, labels, np.array([3])) == 0.0
    two = np.array([0, 0, 0, 1, 1, 1, 1])
    assert expected_missing(scores, np.array([2, 3]), 1.0, two, np.array([1, 2])) == 1.0


def test_all_rows_rescored_give_the_exact_selection(ds, ranker):
    exact = scar_select(ds, k=0.1, model=ranker, progress=False)
    assert scar_select(ds, k=0.1, model=ranker, prefilter=1.0, progress=False).to_dict() == exact.to_dict()


def test_a_share_scores_that_share_and_a_sample(ds, ranker):
    criteria = Criteria(0.05, prefilter=0.3)
    ranking = scar_rank(ds, model=ranker, criteria=criteria, progress=False)
    selection = ranking.select(criteria)
    report = selection.manifest["selection"]["prefilter"]
    assert report["rescored"] == math.ceil(0.3 * 399) and report["rows"] == 399 and report["model"] == "scar-ranker-fast"
    assert int(np.isfinite(ranking.scores).sum()) == report["rescored"] + report["audited"]
    assert 0 <= report["expected_missing"] <= 1 and report["missing_bound"] > 0
    exact = scar_rank(ds, model=ranker, progress=False)
    scored = np.isfinite(ranking.scores)
    np.testing.assert_allclose(ranking.scores[scored], exact.scores[scored], atol=1e-4)
    assert len(selection) == 20 and selection.threshold <= exact.threshold(0.05) + 1e-4
    assert "belonged to the selection" in repr(selection)
    unscored = int(np.flatnonzero(~scored & (np.arange(400) != 5))[0])
    assert "by scar-ranker-fast, too low to be scored by the ranker" in selection.reasons[unscored]
    assert selection.reasons[5] == "the response is empty" and selection.explain()["scar_decision"][unscored] == "dropped"


def test_the_bound_holds_in_selections(ds, ranker):
    """In 60 selections with another sample each, the share that is missing is rarely above the bound."""
    exact = set(scar_select(ds, k=0.1, model=ranker, progress=False)["id"][:])
    scores = scar_rank(ds, model=ranker, progress=False).scores
    failures = 0
    for seed in range(60):
        criteria = Criteria(0.1, prefilter=0.2, audit_seed=seed)
        selection = scar_rank(ds, model=ranker, criteria=criteria, progress=False).select(criteria)
        ties = sum(scores[i] == min(scores[j] for j in exact) for i in selection.indices.tolist())
        missing = 1 - (len(exact & set(selection.dataset["id"][:])) + ties) / len(exact)
        failures += missing > selection.manifest["selection"]["prefilter"]["missing_bound"]
    assert failures <= 8  # of 60 at 5 %, more than 8 happen once in 2,000 times


def test_min_recall_scores_more_until_the_bound_holds(ds, ranker):
    criteria = Criteria(0.3, prefilter=0.3, min_recall=0.7)
    ranking = scar_rank(ds, model=ranker, criteria=criteria, progress=False)
    report = ranking.select(criteria).manifest["selection"]["prefilter"]
    assert math.ceil(0.3 * 399) < report["rescored"] <= 399 and report["missing_bound"] <= 0.3
    exact = set(scar_select(ds, k=0.3, model=ranker, progress=False)["id"][:])
    assert len(exact & set(ranking.top(criteria)["id"][:])) >= 0.7 * len(exact)
    assert Criteria(0.1, min_recall=0.9).prefilter == "auto" and Criteria(0.1, prefilter="auto").recall_target == 0.95


@pytest.mark.parametrize(
    "more",
    [
        {"stratify_by": "source"},
        {"stratify_by": {"source": {"a": 0.2, "b": 0.8}}},
        {"diversity": 0.5},
        {"curation": [ExactDuplicates()]},
        {"curation": [NearDuplicates(0.8)]},
    ],
    ids=["quotas", "shares", "diversity", "duplicates", "near-duplicates"],
)
def test_with_other_criteria(more, ds, ranker):
    options = {"model": ranker, "progress": False, **more}
    if "curation" in more and isinstance(more["curation"][0], NearDuplicates):
        pytest.importorskip("rensa")
    exact = scar_select(ds, k=20, **options)
    found = scar_select(ds, k=20, prefilter=0.5, **options)
    assert len(found) == len(exact) == 20
    if "stratify_by" in more:
        assert found["source"][:].count("a") == exact["source"][:].count("a")
    assert scar_select(ds, k=20, prefilter=1.0, **options)["id"][:] == exact["id"][:]


def test_a_threshold(ds, ranker):
    exact = scar_rank(ds, model=ranker, progress=False)
    threshold = float(np.nanquantile(exact.scores, 0.9))
    kept = set(exact.above(threshold)["id"][:])
    criteria = Criteria(threshold=threshold, prefilter=0.4)
    selection = scar_rank(ds, model=ranker, criteria=criteria, progress=False).select(criteria)
    report = selection.manifest["selection"]["prefilter"]
    found = set(selection.dataset["id"][:])
    assert found <= kept and report["rescored"] == math.ceil(0.4 * 399)
    assert len(kept - found) <= report["missing_bound"] * len(kept) + 1e-9


def test_files_shards_and_the_command_line(ds, ranker, tiny_ranker, tmp_path, capsys):
    expected = scar_select(ds, k=20, model=ranker, prefilter=0.3, audit_seed=3, progress=False)["id"][:]
    (tmp_path / "data").mkdir()
    for i, rows in enumerate((ds.select(range(150)), ds.select(range(150, 400)))):
        rows.to_json(tmp_path / "data" / f"{i}.jsonl")
    line = [
        "select",
        str(tmp_path / "data"),
        "-k",
        "20",
        "--prefilter",
        "0.3",
        "--audit-seed",
        "3",
        "--model",
        str(tiny_ranker),
    ]
    line += ["--device", "cpu", "--dtype", "float32"]
    assert main([*line, "-o", str(tmp_path / "one.jsonl"), "--no-cache"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Prefilter: the ranker scored the best 120 of 399 rows by scar-ranker-fast (30.1%)" in said
    found = [json.loads(text)["id"] for text in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert found == expected
    assert main([*line, "-o", str(tmp_path / "two.jsonl"), "--quiet", "--no-cache"]) == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert all(check.passed is not False for check in verify_manifest(tmp_path / "one.jsonl"))
    manifest = json.loads((tmp_path / "one.jsonl.manifest.json").read_text())
    assert manifest["options"]["prefilter"] == 0.3 and manifest["selection"]["unscored"] > 200
    criteria = Criteria(20, prefilter=0.3, audit_seed=3)
    rows = explain_rows(tmp_path / "data", ranker, criteria, range(400))
    assert [row.number for row in rows if row.decision == "kept"] == expected
    again = select_files(tmp_path / "data", tmp_path / "one.jsonl", ranker, criteria, progress=False)
    assert again.found


def test_every_other_door(ds, ranker, tmp_path):
    criteria = Criteria(20, prefilter=0.3)
    ranking = scar_rank(ds, model=ranker, criteria=criteria, progress=False)
    kept = ranking.top(criteria)["id"][:]
    assert ds.filter(scar_filter(ds, criteria, model=ranker, progress=False))["id"][:] == kept
    selection = ranking.select(criteria)
    selection.save(tmp_path / "saved")
    again = Selection.load(tmp_path / "saved")
    assert again.manifest == selection.manifest and again.reasons == selection.reasons
    report = selection.report(map_rows=10, progress=False)
    assert report.numbers["counts"]["skipped"] == 1 and report.numbers["counts"]["unscored"] > 200
    assert any(note.startswith("Not every row was scored: the ranker scored the best 120") for note in report.numbers["notes"])
    assert "prefilter=0.3" in report.numbers["commands"][0]


def test_trainer(ds, ranker, tiny_ranker):
    pytest.importorskip("trl")
    from scar_hf.trainer_callbacks import ScarArguments
    from scar_hf.trainer_callbacks.sft_trainer import select_once
    from trl import SFTConfig

    expected = scar_select(ds, k=20, model=ranker, prefilter=0.3, progress=False)["id"][:]
    arguments = ScarArguments(
        scar_k=20, scar_prefilter="0.3", scar_model=str(tiny_ranker), scar_device="cpu", scar_dtype="float32"
    )
    _, selection = select_once(ds, arguments, SFTConfig("unused", use_cpu=True, disable_tqdm=True))
    assert selection.dataset["id"][:] == expected


def test_what_is_refused(ds, ranker):
    for wrong, message in (
        ({"k": 0.1, "prefilter": 1.5}, "must be a share in"),
        ({"k": 0.1, "prefilter": "half"}, "must be a share in"),
        ({"k": 0.1, "min_recall": 1.0}, "Leave the prefilter out to miss nothing"),
        ({"prefilter": 0.5}, "requires `k` or `threshold`"),
        ({"k": 0.1, "prefilter": 0.5, "audit_seed": -1}, "`audit_seed` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            Criteria(**wrong)
    with pytest.raises(ValueError, match="must not be smaller than the selection"):
        scar_select(ds, k=0.5, model=ranker, prefilter=0.2, progress=False)
    with pytest.raises(ValueError, match="needs a ranker, got the method 'longest'"):
        scar_select(ds, k=0.1, method="longest", prefilter=0.2, progress=False)
    with pytest.raises(ValueError, match="pass all criteria to scar_select"):
        scar_rank(ds, model=ranker, progress=False).select(0.1, **{}) and scar_rank(
            ds, model=ranker, criteria=Criteria(0.1, prefilter=0.3), progress=False
        ).select(0.2)


def test_words():
    report = {"model": "scar-ranker-fast", "rows": 1000, "rescored": 300, "audited": 50, "hits": 1}
    report |= {"expected_missing": 0.01, "missing_bound": 0.08, "confidence": 0.95}
    assert audit_in_words(report).endswith("with 95% confidence at most 8.0%") and audit_in_words(None) == ""
    assert "nothing is missing" in audit_in_words(report | {"rescored": 1000})
