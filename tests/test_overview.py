"""What results show of themselves in shells and notebooks: readable, escaped, small."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import Dataset

from scar_hf import scar_rank
from scar_hf.comparison import compare_methods
from scar_hf.files import write_dataset
from scar_hf.overview import sparkline
from scar_hf.scoring.scorer import ScarScorer
from scar_hf.selection import Selection
from scar_hf.style import compare, style_consistency

HOSTILE = "</td><script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def rows() -> Dataset:
    made = [
        {"instruction": f"Ask {i}? {HOSTILE}", "response": f"{HOSTILE} {'word ' * (7 * i % 60 + 3)}{i}."} for i in range(60)
    ]
    made[5]["response"], made[7]["response"] = "", "x" * 200_000 + "\ud800"
    return Dataset.from_list([{**row, "response": row["response"].replace("\ud800", "")} for row in made])


@pytest.fixture(scope="module")
def ranking(rows):
    return scar_rank(rows, method="longest", progress=False)


class Balanced(HTMLParser):
    """Fails unless each tag is closed in its place."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)


def shown(result) -> str:
    page = result._repr_html_()
    tags = Balanced(page).tags
    assert len(page) < 40_000 and not {"script", "img"} & set(tags)
    return page


def test_a_ranking_shows_counts_scores_and_the_rows_at_both_ends(ranking):
    said = repr(ranking)
    assert said.startswith("ScarRanking(rows: 60; method: longest; scores: ") and "1 × the response is empty" in said
    assert len(said) < 300
    page = shown(ranking)
    assert "<svg" in page and "&lt;script&gt;" in page and page.count("…") >= 1
    best, worst = page.split("<b>best</b>")[1].split("<b>worst</b>")
    order = ranking.order()
    expected = [order[:5].tolist(), order[54:59].tolist()]
    assert [[int(n) for n in re.findall(r'<tr><td class="n">(\d+)</td>', part)] for part in (best, worst)] == expected


def test_a_selection_shows_what_it_kept_dark(ranking):
    selection = ranking.select(0.25)
    page = shown(selection)
    assert "<th>kept</th><td>15 of 60 rows (25.0%)</td>" in page and "those of rows kept dark" in page
    light, dark = re.findall(r"<g opacity[^>]*>(.*?)</g>", page)
    assert 0 < dark.count("<rect") < light.count("<rect")
    assert repr(selection) == selection.overview().text() and "threshold" in repr(selection)


def test_a_selection_in_files_shows_no_rows_and_reads_none(ranking, tmp_path, tiny_ranker, monkeypatch):
    data = write_dataset(ranking.dataset, tmp_path / "data.jsonl")
    selection = Selection.from_files(data, None, ScarScorer(str(tiny_ranker)), 0.25, progress=False)
    monkeypatch.setattr("scar_hf.rows.source.rows_of_shard", lambda *_: pytest.fail("the file was read again"))
    assert "15 of 60 rows" in shown(selection) and "<b>best</b>" not in shown(selection)


def test_styles_and_their_changes_are_tables(rows, ranking):
    style = style_consistency(rows, progress=False)
    assert repr(style).startswith("StyleConsistency(rows: 60; measures: ") and "spread (SD)" in shown(style)
    change = compare(style, style_consistency(ranking.top(0.5), progress=False))
    assert "narrower: " in repr(change) and shown(change).count("<tr>") > 8
    # The tables of print are the same numbers.
    for line in str(change).splitlines()[2:4]:
        assert line.split("  ")[0] in shown(change)


def test_a_comparison_is_a_table_for_each_k(rows):
    comparison = compare_methods(rows, [0.2, 0.5], ["longest", "random"], progress=False)
    assert repr(comparison) == "MethodComparison(rows: 60; methods: longest, random; k: 0.2, 0.5)"
    assert "k = 0.5" in shown(comparison) and "Agreement over all rows" in shown(comparison)


@pytest.mark.parametrize("scores", [[], [np.nan], [1.0], [2.0, 2.0]])
def test_few_rows_show(scores):
    values = np.array(scores, dtype=np.float32)
    drawn = sparkline(values)
    assert ("<rect" in drawn) == bool(np.isfinite(values).any())
    rows = {"instruction": ["a"] * len(scores), "response": ["b" if np.isfinite(s) else "" for s in scores]}
    ranking = scar_rank(Dataset.from_dict(rows), method="longest", progress=False) if scores else None
    if ranking is not None:
        assert shown(ranking).count("<b>") == bool(np.isfinite(values).any()) and shown(ranking.select(1.0))
