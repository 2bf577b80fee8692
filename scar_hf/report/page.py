"""The page of a report: one self-contained HTML file, with compact SVG figures in its styles, colours and fonts."""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

from .figures import COLOURS, FIGURES, draw

_PLACE = re.compile(r"\{\{([a-z_:-]+)\}\}")
_TAG = re.compile(r"<[a-zA-Z][^>]*>")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_STYLE = re.compile(r' style="([^"]*)"')
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(?:href="|url\()#([^")]+)')


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
    """Return JSON that cannot end a script element or open a comment, whatever texts it contains."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.encode("utf-8", "replace")
        .decode("utf-8")
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def policy_hash(text: str) -> str:
    """Return the hash of an inline style or script for a Content-Security-Policy."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


class StyleSheet:
    """
    Collects the styles of figures as classes, which a Content-Security-Policy can allow with one hash.

    Args:
        colours (`Mapping[str, str]`): colours by role, so that `#2a66c8` becomes `var(--kept)`.
    """

    def __init__(self, colours: Mapping[str, str]) -> None:
        self._roles = {value: f"var(--{name})" for name, value in colours.items()}
        self._classes: dict[str, str] = {}

    def name(self, style: str) -> str:
        """Return the class name for a style."""
        rules = []
        for rule in style.split(";"):
            key, _, value = (part.strip() for part in rule.partition(":"))
            if key and key != "font-family":
                rules.append(f"{key}:{self._roles.get(value, value)}")
        return self._classes.setdefault(";".join(rules), f"f{len(self._classes)}")

    def css(self) -> str:
        """Return the style sheet."""
        return "\n".join(f".{name}{{{rules}}}" for rules, name in self._classes.items())


def inline(svg: str, name: str, label: str, sheet: StyleSheet) -> str:
    """
    Convert a figure for inclusion in a page.

    Args:
        svg (`str`): SVG written by matplotlib, with text kept as text.
        name (`str`): name of the figure, used as a prefix of its ids.
        label (`str`): description for screen readers; must not contain `"`, `<` or `&`.
        sheet ([`StyleSheet`]): collects the styles.

    Returns:
        `str`: an `svg` element that fills the width of its container.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(_REFERENCE.findall(svg))

    def small(match: re.Match[str]) -> str:
        tag = _STYLE.sub(lambda style: f' class="{sheet.name(style[1])}"', match[0])
        tag = _ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", tag)
        tag = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", tag)
        tag = _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag)
        tag = re.sub(r' transform="rotate\(-?0 [^"]*"', "", tag).replace("xlink:href", "href")
        return re.sub(r"\s+", " ", tag)

    svg = _TAG.sub(small, svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    svg = re.sub(r"<svg[^>]*>", f'<svg {box[0]} role="img" aria-label="{label}">', svg, count=1)
    return re.sub(r">\s+<", "><", svg).strip()
