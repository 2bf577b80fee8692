"""The report of a real selection in a real browser: Chromium, driven through its own DevTools protocol over a pipe."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset

from scar_hf import scar_rank

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium")
MIXED = Path(__file__).parent.parent / "examples" / "mixed_styles" / "mixed_styles.jsonl"
PLANTED = "<script>document.title = 'owned'; window.owned = 1</script><img src=x onerror=\"window.owned = 2\">"
DESKTOP, PHONE = (1280, 900), (390, 844)


class Chromium:
    """A headless browser with one page."""

    def __init__(self, folder: Path):
        to_browser, write_end = os.pipe()
        read_end, from_browser = os.pipe()
        # The browser reads commands from its file number 3 and writes answers to 4.
        numbers = f"import os, sys; os.dup2({to_browser}, 103); os.dup2({from_browser}, 104); os.dup2(103, 3); os.dup2(104, 4)"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{numbers}; os.execv(sys.argv[1], sys.argv[1:])",
                BROWSER,
                *flags,
                f"--user-data-dir={folder}",
            ],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._out, self._in = os.fdopen(write_end, "wb", 0), os.fdopen(read_end, "rb")
        self._number, self._session, self.events = 0, None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict:
        data = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        return json.loads(data)

    def open(self, path: Path, size: tuple[int, int], dark: bool = False):
        """Show a page in a window of a size, of a phone where it is narrow."""
        self.events.clear()
        narrow = size[0] < 500
        self.send(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1 + narrow, mobile=narrow
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Page.navigate", url=path.as_uri())
        end = time.monotonic() + 30
        while self.run("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, "the page did not load in 30 s"
            time.sleep(0.05)

    def run(self, code: str):
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def troubles(self) -> list[str]:
        """What the console and the page's policy complained of."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event) for event in self.events if event.get("method") in kinds]

    def requests(self) -> list[str]:
        """What the page asked for besides itself."""
        sent = (e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [url for url in sent if not url.startswith("data:") and not url.endswith("report.html")]

    def screenshot(self, path: Path, whole: bool = False):
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self):
        self._out.close()
        self._in.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
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
    scar_rank(Dataset.from_list(rows), model=scorer, progress=False).report(path, k=0.25, column="source", progress=False)
    return path


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_the_page_opens_without_an_error_and_asks_for_nothing(browser, page, size):
    browser.open(page, size)
    assert browser.troubles() == []
    assert browser.requests() == []
    assert "15 of 60 rows kept" in browser.run("document.querySelector('h1').textContent")
    assert browser.run("document.querySelectorAll('figure svg').length") == 6
    assert browser.run("document.documentElement.scrollWidth") <= size[0]
    assert browser.run("[...document.querySelectorAll('figure svg')].every(s => s.getBoundingClientRect().width > 250)")


def test_a_planted_script_does_nothing_and_shows_as_text(browser, page):
    browser.open(page, DESKTOP)
    assert browser.run("window.owned") is None and browser.run("document.title").startswith("15 of 60")
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelectorAll('img').length") == 0
    browser.run("document.querySelectorAll('#examples details').forEach(d => d.open = true)")
    time.sleep(0.3)
    assert "document.title = 'owned'" in browser.run("document.getElementById('examples').textContent")
    assert browser.run("window.owned") is None and browser.troubles() == []


def test_its_policy_refuses_what_would_be_put_in(browser, page):
    browser.open(page, DESKTOP)
    browser.run("const s = document.createElement('script'); s.textContent = 'window.owned = 3'; document.body.append(s)")
    assert browser.run("window.owned") is None


def test_the_table_sorts_by_its_buttons(browser, page):
    browser.open(page, DESKTOP)
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
    browser.open(page, DESKTOP)

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
    browser.open(page, DESKTOP, dark=False)
    background = "getComputedStyle(document.body).backgroundColor"
    light = browser.run(background)
    browser.run("document.getElementById('theme').click()")
    dark = browser.run(background)
    assert light != dark
    browser.open(page, DESKTOP, dark=True)
    assert browser.run(background) == dark
    browser.run("document.getElementById('theme').click()")
    assert browser.run(background) == light
