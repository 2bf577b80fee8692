"""Reports of selections: their numbers, their pages whatever the texts are, and their figures."""

import base64
import hashlib
import json
import re
import sys
from argparse import ArgumentParser

import numpy as np
import pytest
from datasets import Dataset

from scar_hf import ScarScorer, scar_rank
from scar_hf.cli import main
from scar_hf.cli import report as command
from scar_hf.ranking import ScarRanking
from scar_hf.report import SelectionReport, report_files
from scar_hf.runs import select_files
from scar_hf.style import Surprisal

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><!-- <script>",
    "]]> {{script}} {{data}} \\u003c \" ' ` & &lt;",
    "\ud800 alone \u2028 \u2029 \x00\x07\x1b",
    "\u202eright to left\u202c שלום مرحبا",
    "$\\frac{1}{0}$ _name_ $",
)


def run(*arguments) -> int:
    parser = ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def data_of(page: str) -> dict:
    """What the page's script reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def ranking_of(scores, **columns) -> ScarRanking:
    """A ranking with given scores, of which nobody knows the ranker."""
    scores = np.array(scores, dtype=np.float32)
    texts = {"instruction": [f"Tell me about {i}." for i in range(len(scores))]}
    texts["response"] = [f"It is number {i}. " + "It has many friends. " * (i % 7) for i in range(len(scores))]
    skipped = {int(i): "the response is missing" for i in np.flatnonzero(np.isnan(scores))}
    return ScarRanking(Dataset.from_dict(texts | columns), scores, skipped)


def check_page(page: str) -> dict:
    """No page lets anything in from outside, and all scripts in it are its own two."""
    assert len(page.encode()) < 3_000_000
    assert page.count("<script") == page.count("</script>") == 2
    assert "<!--" not in page and "http://" not in page.replace("http://www.w3.org", "") and '<link rel="icon"' in page
    for kind in ("style", "script"):
        text = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        assert len(text) == 1
        digest = base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page
    assert " style=" not in page
    return data_of(page)


@pytest.fixture(scope="module")
def selection(tmp_path_factory, tiny_ranker):
    """Rows of two sources, some equal, one empty, and the best quarter of them."""
    folder = tmp_path_factory.mktemp("selection")
    rows = [
        {
            "instruction": f"What is {i % 50}?",
            "response": f"It is {i % 50}, " + "of course. " * (i % 9 + 1),
            "source": "ab"[i % 2],
        }
        for i in range(80)
    ]
    rows[7]["response"] = " "
    rows[60:65] = rows[10:15]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    scorer = ScarScorer(str(tiny_ranker), device="cpu", dtype="float32")
    result = select_files(data, folder / "out.jsonl", scorer, 0.25, progress=False)
    return data, folder / "out.jsonl", scorer, result, rows


def test_the_numbers_are_those_of_the_selection(selection):
    data, out, scorer, result, _ = selection
    report = report_files(data, out, scorer, group_by="source", progress=False)
    n = report.numbers
    kept = [json.loads(line) for line in out.read_text().splitlines()]
    assert n["counts"]["rows"] == 80 and n["counts"]["kept"] == 20 and n["counts"]["skipped"] == 1
    assert n["counts"]["below"] == 59 and n["counts"]["by_score"] is True
    assert n["counts"]["threshold"] == pytest.approx(result.threshold, abs=1e-5)
    assert sum(n["scores"]["kept"]) == 20 and sum(n["scores"]["others"]) == 59
    assert {g["name"]: (g["rows"], g["kept"]) for g in n["groups"]} == {
        s: (40, sum(row["source"] == s for row in kept)) for s in "ab"
    }
    assert sum(group["rows"] for group in n["lengths"]) == 79 and sum(group["kept"] for group in n["lengths"]) == 20
    assert n["reasons"] == [{"what": "skipped", "reason": "the response is empty", "rows": 1}]
    assert len(n["map"]["x"]) == 79 and sum(n["map"]["kept"]) == 20 and 0 < sum(n["map"]["variance"]) <= 1.001
    words = n["style"]["measures"]["words"]
    assert words["same_lengths"]["low"] <= words["same_lengths"]["change"] <= words["same_lengths"]["high"]
    assert words["spread_after"] == pytest.approx(np.std([len(r["response"].split()) for r in kept], ddof=1))
    assert n["surprisal"] is None and n["notes"] == []
    shown = n["examples"]
    assert [row["rank"] for row in shown[:-1]] == list(range(1, 80)) and shown[-1]["decision"] == "skipped"
    assert [row["decision"] for row in shown[:20]] == ["kept"] * 20 and "best 20 kept" in shown[30]["reason"]
    assert shown[-1]["row"] == 7 and shown[0]["score"] == max(row["score"] for row in shown[:-1])
    assert json.loads(json.dumps(n, allow_nan=False)) == n
    assert "Tell" not in json.dumps(n) and "What is" not in json.dumps(n)


def test_nothing_that_a_report_writes_names_a_folder_of_this_machine(selection, tmp_path, tiny_ranker):
    data, out, _, _, _ = selection
    page, numbers = tmp_path / "page.html", tmp_path / "numbers.json"
    run(data, out, "-o", page, "--json", numbers, "--model", tiny_ranker, "--device", "cpu", "--dtype", "float32")
    for text in (page.read_text(encoding="utf-8"), numbers.read_text(encoding="utf-8")):
        assert "data.jsonl" in text and "out.jsonl" in text
        assert not any(str(folder) in text for folder in (data.parent, tmp_path, tiny_ranker.parent))
    found = json.loads(numbers.read_text(encoding="utf-8"))
    assert found["commands"][1] == "scar-hf report data.jsonl out.jsonl -o page.html"


def test_scores_that_the_data_has_are_taken(selection, tmp_path):
    _, out, scorer, result, rows = selection
    scores = [None if np.isnan(score) else float(score) for score in result.scored.scores]
    scored = tmp_path / "scored.jsonl"
    lines = (json.dumps(row | {"scar_score": score}) for row, score in zip(rows, scores, strict=True))
    scored.write_text("".join(line + "\n" for line in lines))
    n = report_files(scored, out, scorer, progress=False).numbers
    assert n["counts"]["threshold"] == pytest.approx(result.threshold, abs=1e-5) and n["counts"]["kept"] == 20
    assert any("data differs" in note for note in n["notes"])
    scored.write_text(json.dumps(rows[0] | {"scar_score": "high"}) + "\n")
    with pytest.raises(ValueError, match="must hold numbers"):
        report_files(scored, out, scorer, progress=False)


def test_a_selection_by_hand_is_found_and_said(selection, tmp_path):
    data, _, scorer, _, rows = selection
    by_hand = tmp_path / "by-hand.jsonl"
    by_hand.write_text("".join(json.dumps(rows[i]) + "\n" for i in (3, 3, 53, 20)))
    n = report_files(data, by_hand, scorer, progress=False).numbers
    assert n["counts"]["kept"] == 3 and n["counts"]["by_score"] is False
    assert [row["row"] for row in sorted(n["examples"], key=lambda r: r["row"]) if row["decision"] == "kept"] == [3, 20, 53]
    notes = " ".join(n["notes"])
    assert "no manifest" in notes and "not simply the 3" in notes and "1 rows of the selection are not in the data" in notes
    by_hand.write_text(json.dumps({"instruction": "Other?", "response": "Yes."}) + "\n")
    with pytest.raises(ValueError, match=r"None of the 1 rows .* is in the data"):
        report_files(data, by_hand, scorer, progress=False)


@pytest.mark.parametrize("more", [["-k", "0.1"], ["--threshold", "0"], ["--diversity", "0.3"], ["--drop-duplicates"]])
def test_a_selection_takes_no_criteria_besides(selection, tmp_path, capsys, more):
    data, out, *_ = selection
    assert main(["report", str(data), str(out), "-o", str(tmp_path / "page.html"), *more]) == 2
    assert "out.jsonl is already a selection" in capsys.readouterr().err


def test_of_a_curated_selection_the_reasons_are_told(selection, tmp_path):
    from scar_hf.curation import ExactDuplicates
    from scar_hf.selecting.criteria import Criteria

    data, _, scorer, _, _ = selection
    out = tmp_path / "curated.jsonl"
    result = select_files(data, out, scorer, Criteria(0.25, curation=[ExactDuplicates()]), progress=False)
    report = report_files(data, out, scorer, progress=False)
    n = report.numbers
    assert n["counts"]["kept"] == result.kept and n["counts"]["curated"] == len(result.dropped) > 0
    assert n["counts"]["by_score"] and {r["what"] for r in n["reasons"]} == {"curated", "skipped"}
    assert "--drop-duplicates" in n["commands"][0]


def test_k_in_place_of_a_selection(selection):
    data, out, scorer, _, _ = selection
    n = report_files(data, None, scorer, k=0.25, progress=False).numbers
    assert n["counts"] == report_files(data, out, scorer, progress=False).numbers["counts"]
    for arguments in ((out, scorer, 0.25), (None, scorer)):
        with pytest.raises(ValueError, match="not both"):
            report_files(data, *arguments, progress=False)
    with pytest.raises(ValueError, match="no column 'origin'"):
        report_files(data, out, scorer, group_by="origin", progress=False)


def test_the_command(selection, tiny_ranker, tmp_path, capsys):
    data, out, _, _, _ = selection
    page = tmp_path / "r.html"
    arguments = (data, out, "-o", page, "--group-by", "source", "--figures", tmp_path / "png", "--json", tmp_path / "n.json")
    assert run(*arguments) == 0
    shown = check_page(page.read_text(encoding="utf-8"))
    # The manifest names the ranker, without its folder: a page may be published.
    assert shown["manifest"]["ranker"]["model"] == tiny_ranker.name and "ranked by" in shown["lead"]
    assert shown["commands"][0].startswith("scar-hf select ") and "-k 0.25" in shown["commands"][0]
    assert shown["commands"][1].startswith("scar-hf report ") and "--group-by source" in shown["commands"][1]
    assert json.loads((tmp_path / "n.json").read_text())["counts"]["kept"] == 20
    images = {path.name: path.read_bytes() for path in (tmp_path / "png").iterdir()}
    assert set(images) == {f"{n}.png" for n in ("scores", "map", "map-sources", "spreads", "sources", "lengths")}
    assert all(image.startswith(b"\x89PNG") and len(image) > 5000 for image in images.values())
    assert "opens in any browser" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--overwrite"):
        run(*arguments)
    before = page.read_bytes()
    assert run(*arguments, "--overwrite") == 0 and page.read_bytes() == before


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_the_data_is_data(text, tmp_path):
    ranking = ranking_of(np.linspace(0, 1, 12), source=[text.encode("utf-8", "replace").decode()] * 6 + ["b"] * 6)
    clean = text.encode("utf-8", "replace").decode()
    ranking.dataset = ranking.dataset.remove_columns("response").add_column("response", [clean + f" {i}" for i in range(12)])
    ranking.skipped[0], ranking.scores[0] = text, np.nan
    page = ranking.report(k=0.5, group_by="source", progress=False).html()
    shown = check_page(page)
    visible = re.sub(r"[\x00-\x08\x0b-\x1f]", "\N{REPLACEMENT CHARACTER}", clean)
    assert all(row["response"].startswith(visible) for row in shown["examples"])


def test_surrogates_and_long_texts_of_files(write_jsonl, tiny_ranker):
    rows = [{"instruction": f"{i} " + "<" * 1_000_000, "response": "🐝<" * 400_000} for i in range(3)]
    rows += [{"instruction": f"{i} \ud83d", "response": f"alone {i} \udc00"} for i in range(3)]
    path = write_jsonl([])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scorer = ScarScorer(str(tiny_ranker), device="cpu", dtype="float32")
    shown = check_page(report_files(path, None, scorer, k=3, progress=False).html())
    assert shown["counts"]["truncated"] == 3 and len(shown["examples"]) == 6
    assert {len(row["response"]) for row in shown["examples"]} == {900, 9}


def test_three_hundred_examples_in_any_script_stay_below_the_limit():
    numbers = ranking_of(np.arange(400)).report(k=0.5, progress=False).numbers
    assert len(numbers["examples"]) == 300
    for text in ("<" * 2000, "🐝" * 2000, "\\" * 2000):
        check_page(SelectionReport(numbers, [(text, text)] * 300).html())


def test_a_million_rows():
    n = 1_000_000
    scores = np.random.default_rng(0).normal(size=n).astype(np.float32)
    scores[::1000] = np.nan
    ds = Dataset.from_dict({"instruction": ["Why?"] * n, "response": ["Because it is so."] * n})
    ranking = ScarRanking(ds, scores, dict.fromkeys(range(0, n, 1000), "the response is missing"))
    report = ranking.report(k=0.1, sample=1000, progress=False)
    shown = check_page(report.html())
    assert shown["counts"]["kept"] == 100_000 and shown["counts"]["skipped"] == 1000
    assert sum(report.numbers["scores"]["kept"]) == 100_000 and len(shown["examples"]) == 300
    assert shown["examples"][0]["score"] == pytest.approx(np.nanmax(scores), abs=1e-4)
    assert sum(group["rows"] for group in shown["lengths"]) == n - 1000


def test_draws_from_a_sample_are_not_the_sample_again():
    ranking = ranking_of(np.random.default_rng(0).normal(size=900))
    n = ranking.report(k=300, sample=100, progress=False).numbers
    assert n["samples"]["before"] == n["samples"]["after"] == 100
    draws = n["style"]["measures"]["words"]["random"]
    assert draws["low"] < -0.05 < 0.05 < draws["high"]


@pytest.mark.parametrize(
    ("scores", "k", "kept"),
    [([], 0.5, 0), ([1.0], 1, 1), ([np.nan, np.nan], 0.5, 0), ([1.0, 1.0], 1, 1), ([np.nan, 2.0, 1.0], 1, 1)],
)
def test_few_rows(scores, k, kept, tmp_path):
    ranking = ranking_of(scores)
    report = ranking.report(tmp_path / "r.html", k=k, progress=False)
    shown = check_page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert shown["counts"]["rows"] == len(scores) == len(shown["examples"]) and shown["counts"]["kept"] == kept
    assert report.save_figures(tmp_path / "png") == sorted(report.save_figures(tmp_path / "png"), key=report_order)
    report.save_numbers(tmp_path / "n.json")
    assert "NaN" not in (tmp_path / "n.json").read_text()


def report_order(path) -> int:
    return ["scores", "map", "map-sources", "surprisal", "spreads", "sources", "lengths"].index(path.stem)


def test_many_sources_in_any_script():
    names = [f"源 {i} $x$ _y_ & <b> " + "long " * 20 for i in range(40)]
    report = ranking_of(np.arange(200), source=[names[i % 40] for i in range(200)]).report(
        k=50, group_by="source", progress=False
    )
    assert len(report.numbers["groups"]) == 13 and report.numbers["groups"][-1]["name"] == "28 others"
    assert sum(group["rows"] for group in report.numbers["groups"]) == 200
    page = report.html()
    assert "源 0 $x$ _" in page and "&lt;b&gt;" not in page.split("<main>")[0]
    check_page(page)


@pytest.mark.parametrize("name", ["$\\none$", "</script><b>"])
def test_the_name_of_a_column_is_data(name):
    report = ranking_of(np.arange(12), **{name: ["a", "b"] * 6}).report(k=6, group_by=name, progress=False)
    shown = check_page(report.html())
    assert shown["group_by"] == name and [group["rows"] for group in report.numbers["groups"]] == [6, 6]


def test_surprisal_has_its_density_and_its_spread(tiny_lm):
    report = ranking_of(np.arange(40)).report(k=0.5, lm=Surprisal(tiny_lm, max_length=256), lm_rows=10, progress=False)
    n = report.numbers
    density = n["surprisal"]
    step = density["grid"][1] - density["grid"][0]
    assert (density["rows_before"], density["rows_after"]) == (10, 10)
    assert sum(density["before"]) * step == pytest.approx(1, abs=0.1)
    assert n["style"]["measures"]["surprisal"]["spread_before"] > 0 and n["samples"]["lm_before"] == 10
    assert "surprisal" in report.html() and "--lm" not in data_of(report.html())["captions"]["surprisal"]


def test_quotas_are_named_in_the_reasons(scorer):
    rows = [{"instruction": f"What is {w}?", "response": f"It is {w}.", "kind": "xy"[i % 2]} for i, w in enumerate("abcdefgh")]
    report = scar_rank(Dataset.from_list(rows), model=scorer, progress=False).report(k=4, stratify_by="kind", progress=False)
    assert {g["decision"] for g in report.numbers["examples"]} == {"kept", "dropped"}
    assert (
        report.numbers["manifest"]["options"]["stratify_by"] == "kind" and "stratify_by='kind'" in report.numbers["commands"][0]
    )
    assert report.numbers["map"] is not None


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"scar-hf\[report\]"):
        ranking_of([1.0, 2.0]).report(k=1, progress=False)


@pytest.mark.parametrize("setting", [{"sample": 1}, {"map_rows": 10**6}, {"examples": 301}, {"k": 0.0}, {"group_by": "no"}])
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValueError, match=f"`{next(iter(setting))}`|no column"):
        ranking_of([1.0, 2.0, 3.0]).report(**{"k": 1, "progress": False} | setting)
