"""The Space's page: the real app in a process of its own, opened in a real browser, without a network."""

import importlib.util
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from scar_hf import ScarScorer, scar_select
from scar_hf.files import read_dataset
from scar_hf.runs import verify_manifest

tools = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "browser.py")))
pytestmark = [
    pytest.mark.skipif(tools.BROWSER is None, reason=tools.NO_BROWSER),
    pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed: pip install gradio"),
]
SPACE = Path(__file__).parent.parent / "examples" / "space"
MIXED = SPACE.parent / "mixed_styles" / "mixed_styles.jsonl"
PLANTED = '<script>window.owned = 1</script><img src=x onerror="window.owned = 2">'
DESKTOP = (1280, 900)
KEPT, THRESHOLD = (f"document.querySelectorAll('.scar-tiles > div')[{i}]?.querySelector('dd').textContent" for i in (0, 1))


@pytest.fixture(scope="module")
def space(tmp_path_factory, tiny_ranker):
    """The address of the page, with a ranker that is quick."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("space") / "log.txt"
    settings = {"SCAR_RANKER": str(tiny_ranker), "NO_PROXY": "127.0.0.1,localhost", "TMPDIR": str(log.parent)}
    with log.open("w") as output:
        command = [sys.executable, str(SPACE / "app.py"), "--port", str(port)]
        process = subprocess.Popen(command, env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    yield SimpleNamespace(url=f"http://127.0.0.1:{port}/", process=process, log=log)
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory, space):
    browser = tools.Chromium(tmp_path_factory.mktemp("chromium"))
    for _ in range(600):
        if "Running on" in space.log.read_text():
            break
        assert space.process.poll() is None, space.log.read_text()
        time.sleep(0.1)
    yield browser
    browser.close()


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Human and model answers, one without a response."""
    rows = [json.loads(line) for line in MIXED.read_text(encoding="utf-8").splitlines()[:80]]
    rows[5]["response"] = None
    return write(tmp_path_factory.mktemp("data") / "answers.jsonl", rows)


@pytest.fixture
def page(browser, space):
    browser.open(space.url, DESKTOP)
    browser.wait("document.querySelector('#upload input[type=file]') !== null")
    yield browser
    assert browser.errors() == []
    assert [url for url in browser.requests() if not url.startswith((space.url, "blob:"))] == []
    assert "Traceback" not in space.log.read_text()


def score(page, path: Path):
    page.upload("#upload input[type=file]", path)
    page.wait("document.querySelector('#upload a[download]') !== null")
    page.click("#score-file")


def message(page) -> str:
    return page.wait("document.querySelector('.toast-body')?.innerText")


def open_tab(page, name: str):
    page.run(f"[...document.querySelectorAll('button[role=tab]')].find(e => e.innerText === {json.dumps(name)}).click()")


def test_upload_move_the_slider_and_download(page, data, tiny_ranker):
    ds, scorer = read_dataset(data), ScarScorer.from_pretrained(str(tiny_ranker))
    score(page, data)
    assert page.wait(KEPT) == "8"
    assert page.run("document.querySelectorAll('.scar-figures svg').length") == 6
    before = page.run("document.querySelector('.scar-figures svg').innerHTML")
    page.drag("#k input[type=range]", 0.1, 0.5)
    page.wait(f"{KEPT} !== '8'")
    page.click("#k input[type=number]")
    page.run("document.querySelector('#k input[type=number]').select()")
    page.send("Input.insertText", text="0.25")
    page.wait(f"{KEPT} === '20'")
    expected = scar_select(ds, k=0.25, model=scorer, progress=False)
    assert page.run(THRESHOLD) == f"{min(expected['scar_score']):.3f}"
    assert page.run("document.querySelector('.scar-figures svg').innerHTML") != before
    open_tab(page, "Download")
    page.click("#with-report input")
    page.click("#make-files")
    page.wait("document.querySelectorAll('#files a[download]').length === 3")
    report = page.download("#files a[download='report.html']", "report.html")
    assert '"rows":80,"kept":20' in report.read_text(encoding="utf-8")
    rows = page.download("#files a[download='selected.jsonl']", "selected.jsonl")
    page.download("#files a[download='selected.jsonl.manifest.json']", "selected.jsonl.manifest.json")
    assert read_dataset(rows).to_list() == expected.to_list()
    assert all(check.passed is not False for check in verify_manifest(rows))
    manifest = json.loads(rows.with_name("selected.jsonl.manifest.json").read_text(encoding="utf-8"))
    assert manifest["selection"]["kept"] == 20 and manifest["selection"]["skipped"] == 1
    assert manifest["inputs"][0]["path"] == "answers.jsonl"


def test_a_planted_script_does_nothing_and_shows_as_text(page, tmp_path):
    kind = f"</style></script>{PLANTED}\\1"
    rows = [
        {"instruction": f"{PLANTED} {i}?", "response": f"{PLANTED}<!-- {'word ' * i}", kind: f"{PLANTED} {i % 2}"}
        for i in range(24)
    ]
    score(page, write(tmp_path / "planted&amp;.jsonl", rows))
    assert page.wait(KEPT) == "2"
    assert page.run("document.querySelector('.scar-figures').innerText").count("window.owned = 1") >= 3
    open_tab(page, "Rows")
    page.drag("#k input[type=range]", 0.1, 1.0)
    page.wait(f"{KEPT} === '24'")
    shown = page.wait("document.querySelector('.scar-rows')?.innerText")
    assert "rank 1 " in shown and shown.count("window.owned = 2") == 24
    assert page.run("document.querySelectorAll('.scar script, .scar img').length") == 0
    assert page.run("window.owned") is None


def test_what_cannot_be_read_is_said_in_words(page, tmp_path):
    score(page, write(tmp_path / "odd.jsonl", [{PLANTED: "a", "other": "b"}]))
    text = message(page)
    assert "other" in text and PLANTED[:20] in text and "Traceback" not in text
    assert page.run("window.owned") is None


def test_a_damaged_file_is_named_without_its_place_on_the_server(page, tmp_path):
    cut = tmp_path / "cut.jsonl"
    cut.write_text('{"instruction": "a", "response": "b"}\n{"instruction": "a", "resp', encoding="utf-8")
    score(page, cut)
    text = message(page)
    assert "cut.jsonl" in text and "line 2" in text and "/gradio/" not in text and str(tmp_path.parent) not in text


@pytest.mark.parametrize("name", ["nobody/no-such-dataset", "../..", "/etc"])
def test_a_dataset_that_is_not_on_the_hub(page, name):
    open_tab(page, "A dataset on the Hub")
    page.type("#hub-id textarea, #hub-id input", name)
    page.click("#score-hub")
    assert name in message(page)
