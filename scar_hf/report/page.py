"""The page of a report: one self-contained HTML file."""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

from .figures import COLOURS, FIGURES, draw
from .svg import StyleSheet, inline

_PLACE = re.compile(r"\{\{([a-z_:-]+)\}\}")


def render(numbers: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """
    Write the page.

    Args:
        numbers (`Mapping`): the numbers of the report, for the figures.
        content (`Mapping`): JSON-compatible content of the page's tables and captions; may hold any text.

    Returns:
        `str`: HTML. Its Content-Security-Policy allows only its own script and forbids fetching anything.
    """
    folder = files(__package__)
    style, script, page = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    sheet = StyleSheet(COLOURS)
    parts = {f"figure:{name}": "" for name in FIGURES}
    for name, image in draw(numbers, "svg").items():
        parts[f"figure:{name}"] = inline(image.decode("utf-8"), name, FIGURES[name][1].__doc__ or name, sheet)
    style = f"{style}{sheet.css()}\n"
    parts |= {"style": style, "style_hash": policy_hash(style), "script": script, "script_hash": policy_hash(script)}
    parts["data"] = _as_data(content)
    # One pass, so that placeholders inside inserted text are not replaced.
    return _PLACE.sub(lambda place: parts[place[1]], page)


def _as_data(content: Mapping[str, Any]) -> str:
    """JSON that cannot end a script element or open a comment, whatever texts it contains."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.encode("utf-8", "replace")
        .decode("utf-8")
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def policy_hash(text: str) -> str:
    """The hash of an inline style or script for a Content-Security-Policy."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
