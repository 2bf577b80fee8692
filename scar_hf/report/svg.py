"""Turn figures into compact SVG for a page, with the page's styles, colours and fonts."""

import re
from collections.abc import Mapping

_TAG = re.compile(r"<[a-zA-Z][^>]*>")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_STYLE = re.compile(r' style="([^"]*)"')
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(?:href="|url\()#([^")]+)')


class StyleSheet:
    """
    Collects the styles of figures as classes, which a page with a Content-Security-Policy can name by one hash.

    Args:
        colours (`Mapping[str, str]`): colours by role, so that `#2a66c8` becomes `var(--kept)`.
    """

    def __init__(self, colours: Mapping[str, str]) -> None:
        self._roles = {value: f"var(--{name})" for name, value in colours.items()}
        self._classes: dict[str, str] = {}

    def name(self, style: str) -> str:
        """The class name for a style."""
        rules = []
        for rule in style.split(";"):
            key, _, value = (part.strip() for part in rule.partition(":"))
            if key and key != "font-family":
                rules.append(f"{key}:{self._roles.get(value, value)}")
        return self._classes.setdefault(";".join(rules), f"f{len(self._classes)}")

    def css(self) -> str:
        """The style sheet."""
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
