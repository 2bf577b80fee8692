"""A real browser for tests of pages: headless Chromium, driven through its own DevTools protocol over a pipe."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_BROWSER = "no Chromium on this machine: apt-get install chromium"
_FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
]


class Chromium:
    """A headless browser with one page; `folder` is new and empty, and takes what the page downloads."""

    def __init__(self, folder: Path):
        to_browser, write_end = os.pipe()
        read_end, from_browser = os.pipe()
        self.downloads = folder / "downloads"
        # The browser reads commands from its file number 3 and writes answers to 4.
        numbers = f"import os, sys; os.dup2({to_browser}, 103); os.dup2({from_browser}, 104); os.dup2(103, 3); os.dup2(104, 4)"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{numbers}; os.execv(sys.argv[1], sys.argv[1:])",
                BROWSER,
                *_FLAGS,
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
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params):
        """Give a command, and wait for its result."""
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

    def open(self, url: str, size: tuple[int, int], dark: bool = False):
        """Show a page in a window of a size, of a phone where it is narrow."""
        self.events.clear()
        narrow = size[0] < 500
        self.send(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1 + narrow, mobile=narrow
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(url)})")

    def run(self, code: str):
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code: str, seconds: float = 30):
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(code)):
            assert time.monotonic() < end, f"not true in {seconds} s: {code}\n{self.errors()}"
            time.sleep(0.05)
        return found

    def click(self, selector: str):
        """Press the mouse's left button on the middle of an element, once it is there."""
        code = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e || !e.offsetParent) return null; "
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        place, before = self.wait(code), None
        while place != before:  # what is still being laid out moves
            time.sleep(0.1)
            place, before = self.wait(code), place
        self._mouse("mouseMoved", *place, buttons=0)
        self._mouse("mousePressed", *place)
        self._mouse("mouseReleased", *place)

    def drag(self, selector: str, start: float, stop: float):
        """Pull along an element, from one share of its width to another."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = self.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        y = box["y"] + box["height"] / 2
        places = [box["x"] + box["width"] * (start + (stop - start) * step / 8) for step in range(9)]
        self._mouse("mousePressed", places[0], y)
        for x in places[1:]:
            self._mouse("mouseMoved", x, y)
        self._mouse("mouseReleased", places[-1], y)

    def _mouse(self, kind: str, x: float, y: float, buttons: int = 1):
        button = "left" if buttons else "none"
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=buttons)

    def type(self, selector: str, text: str):
        """Click into a field and type."""
        self.click(selector)
        self.send("Input.insertText", text=text)

    def upload(self, selector: str, path: Path):
        """Choose a file, as the file dialogue would."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def download(self, selector: str, name: str, seconds: float = 30) -> Path:
        """Click, and wait for the file that comes."""
        path = self.downloads / name
        path.unlink(missing_ok=True)
        self.click(selector)
        end = time.monotonic() + seconds
        while not path.is_file():
            assert time.monotonic() < end, f"{name} was not downloaded in {seconds} s"
            self.run("0")
            time.sleep(0.05)
        return path

    def troubles(self) -> list[str]:
        """What the console and the page's policy complained of."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event) for event in self.events if event.get("method") in kinds]

    def errors(self) -> list[str]:
        """Those of the troubles that are errors, not warnings or notes."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            level = {"Runtime.consoleAPICalled": params.get("type"), "Log.entryAdded": params.get("entry", {}).get("level")}
            if event.get("method") == "Runtime.exceptionThrown" or level.get(event.get("method")) in ("error", "assert"):
                found.append(json.dumps(params)[:2000])
        return found

    def requests(self) -> list[str]:
        """The addresses that the page asked, itself among them."""
        sent = (e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent")
        return [url for url in sent if not url.startswith("data:")]

    def screenshot(self, path: Path, whole: bool = False):
        """Take a picture of the window, or of the whole page."""
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self):
        """End the browser."""
        self._out.close()
        self._in.close()
        self.process.terminate()
        self.process.wait(20)
