"""The report of a real selection in a real browser: Chromium, driven through its own DevTools protocol over a pipe."""

import json
import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset

from scar_hf import scar_rank

tools = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "browser.py")))
pytestmark = pytest.mark.skipif(tools.BROWSER is None, reason=tools.NO_BROWSER)
MIXED = Path(__file__).parent.parent / "examples" / "mixed_styles" / "mixed_styles.jsonl"
PLANTED = "<script>document.title = 'owned'; window.owned = 1</script><img src=x onerror=\"window.owned = 2\">"
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = tools.Chromium(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory, scorer) -> Path:
    """Human and model answers, one with a planted script, and the report of the best quarter of them."""
    rows = [json.loads(line) for line in MIXED.read_text(encoding="utf-8").splitlines()[:60]]
    rows[3]["response"] = f"{PLANTED} {rows[3]['response']}"
    rows[4]["instruction"] = f"</script>{PLANTED}<!-- {rows[4]['instruction']}"
    rows[5]["source"] = PLANTED
    path = tmp_path_factory.mktemp("report") / "report.html"
    scar_rank(Dataset.from_list(rows), model=scorer, progress=False).report(path, k=0.25, group_by="source", progress=False)
    return path


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_opens_without_an_error_and_asks_for_nothing(browser, page, size):
    browser.open(page.as_uri(), size)
    assert browser.troubles() == []
    assert browser.requests() == [page.as_uri()]
    assert "15 of 60 rows kept" in browser.run("document.querySelector('h1').textContent")
    assert browser.run("document.querySelectorAll('figure svg').length") == 6
    assert browser.run("document.documentElement.scrollWidth") <= size[0]
    assert browser.run("[...document.querySelectorAll('figure svg')].every(s => s.getBoundingClientRect().width > 250)")


def test_the_tables_fit(browser, page):
    width = "(e => e.scrollWidth - e.clientWidth)(document.getElementById('{}'))"
    browser.open(page.as_uri(), DESKTOP)
    assert browser.run(width.format("examples")) <= 1 and browser.run(width.format("spreads")) <= 1
    assert browser.run("document.querySelector('#examples thead th:last-child').getBoundingClientRect().right") <= DESKTOP[0]
    browser.open(page.as_uri(), PHONE)
    assert browser.run(width.format("spreads")) <= 1
    assert browser.run("document.querySelectorAll('#spreads td[data-title=\"Same lengths\"]').length") > 3
    assert not browser.run("[...document.querySelectorAll('#spreads td small')].some((s) => s.textContent.includes(' %'))")


def test_the_page_says_what_scar_is_and_what_to_do_next(browser, page):
    browser.open(page.as_uri(), DESKTOP)
    intro = browser.run("document.getElementById('intro').textContent")
    assert intro.count(". ") == 2 and "SCAR ranks" in intro and "narrower style can be good" in intro and "Next, read" in intro


def test_a_planted_script_does_nothing_and_shows_as_text(browser, page):
    browser.open(page.as_uri(), DESKTOP)
    assert browser.run("window.owned") is None and browser.run("document.title").startswith("15 of 60")
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelectorAll('img').length") == 0
    browser.run("document.querySelectorAll('#examples details').forEach(d => d.open = true)")
    time.sleep(0.3)
    assert "document.title = 'owned'" in browser.run("document.getElementById('examples').textContent")
    assert browser.run("window.owned") is None and browser.troubles() == []


def test_its_policy_refuses_what_would_be_put_in(browser, page):
    browser.open(page.as_uri(), DESKTOP)
    browser.run("const s = document.createElement('script'); s.textContent = 'window.owned = 3'; document.body.append(s)")
    assert browser.run("window.owned") is None


def test_the_table_sorts_by_its_buttons(browser, page):
    browser.open(page.as_uri(), DESKTOP)
    scores = "[...document.querySelectorAll('#examples tbody tr')].map(tr => Number(tr.cells[1].textContent))"
    assert browser.run(scores) == sorted(browser.run(scores), reverse=True) and len(browser.run(scores)) == 60
    button = "[...document.querySelectorAll('#examples th button')].find(b => b.textContent === 'Score')"
    browser.run(f"{button}.click()")
    assert browser.run(scores) == sorted(browser.run(scores))
    assert browser.run(f"{button}.closest('th').getAttribute('aria-sort')") == "ascending"
    browser.run(f"{button}.click()")
    assert browser.run(scores) == sorted(browser.run(scores), reverse=True)
    assert browser.run(f"{button}.closest('th').getAttribute('aria-sort')") == "descending"


def test_the_table_searches(browser, page):
    browser.open(page.as_uri(), DESKTOP)

    def search(text: str) -> int:
        box = "document.getElementById('search')"
        browser.run(f"{box}.value = {json.dumps(text)}; {box}.dispatchEvent(new Event('input'))")
        return browser.run("document.querySelectorAll('#examples tbody tr').length")

    assert search("no such words at all") == 0
    assert search("OWNED onerror") == 3
    assert browser.run("document.getElementById('found').textContent") == "3 of 60 examples"
    assert search("") == 60
    browser.run("const list = document.getElementById('filter'); list.value = 'kept'; list.dispatchEvent(new Event('change'))")
    assert browser.run("document.querySelectorAll('#examples tbody tr').length") == 15


def test_light_and_dark(browser, page):
    browser.open(page.as_uri(), DESKTOP, dark=False)
    background = "getComputedStyle(document.body).backgroundColor"
    light = browser.run(background)
    browser.run("document.getElementById('theme').click()")
    dark = browser.run(background)
    assert light != dark
    browser.open(page.as_uri(), DESKTOP, dark=True)
    assert browser.run(background) == dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(background) == light
