"""A page of tables and figures in the design of reports, without scripts, for comparisons of methods and ablations."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..files import atomic_write
from .figures import COLOURS, Figures, draw
from .page import StyleSheet, inline, policy_hash

_CSS = """
.words { margin: 0 0 12px; padding-left: 20px; } .words li { margin: 0 0 6px; }
.box th, .box td { text-align: right; } .box th:first-child, .box td:first-child { text-align: left; }
.box table :is(th, td).words { text-align: left; min-width: 9ch; }
.grid3 { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 20px; }
.grid3 figure { max-width: 560px; }
.box td:first-child, .box th:first-child { position: sticky; left: 0; background: var(--card); }
section > .box + .caption, section > .box + .grid3, section > .box + .box { margin-top: 16px; }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src {hash}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="scar-hf">
<link rel="icon" href="data:,">
<title>{title} · scar-hf</title>
<style>{style}</style>
</head>
<body>
<header>
<div class="bar"><p class="brand">scar-hf <span>{brand}</span></p></div>
<h1>{title}</h1>
<p class="lead">{lead}</p>
</header>
<main>
{sections}
</main>
<footer><p>{foot}</p></footer>
</body>
</html>
"""  # noqa: E501


@dataclass
class Section:
    """
    A part of a page.

    Args:
        title (`str`): the heading.
        words (`Sequence[str]`): sentences, as a list.
        caption (`str`): a paragraph.
        tables (`Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]]`): header and rows of each table.
        figures (`Sequence[tuple[str, str]]`): names of figures with their captions.
    """

    title: str
    words: Sequence[str] = ()
    caption: str = ""
    tables: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]] = ()
    figures: Sequence[tuple[str, str]] = field(default_factory=tuple)


@dataclass
class StaticPage:
    """
    A page. All texts are escaped.

    Args:
        brand, title, lead, foot (`str`): texts of the header and footer.
        sections (`Sequence[Section]`): the sections.
        figures (`dict`): as for [`~scar_hf.report.figures.draw`].
    """

    brand: str
    title: str
    lead: str
    foot: str
    sections: Sequence[Section]
    figures: Figures


@dataclass
class StaticReport(ABC):
    """
    A report that shows its numbers on a page. Subclasses describe the page.

    Args:
        numbers (`dict`): everything that the page shows, JSON-compatible.
    """

    numbers: dict[str, Any]

    @abstractmethod
    def page(self) -> StaticPage:
        """Describe the page."""

    def html(self) -> str:
        """Return the page: one HTML file that opens offline and runs no script."""
        return _render(self.page(), self.numbers)

    def save(self, path: str | Path) -> None:
        """Write the page to `path`, the numbers as JSON next to it, and its figures as PNG into a folder of the same name."""
        path = Path(path)
        text = json.dumps(self.numbers, indent=1, ensure_ascii=False, allow_nan=False)
        contents = {
            path: self.html().encode("utf-8", "replace"),
            path.with_suffix(".json"): f"{text}\n".encode("utf-8", "replace"),
        }
        for name, image in draw(self.numbers, "png", self.page().figures).items():
            contents[path.with_suffix("") / f"{name}.png"] = image
        for file, data in contents.items():
            with atomic_write(file) as out:
                out.write(data)


def _render(page: StaticPage, numbers: Mapping[str, Any]) -> str:
    sheet = StyleSheet(COLOURS)
    drawn = {
        name: inline(image.decode("utf-8"), name, "figure, described below", sheet)
        for name, image in draw(numbers, "svg", page.figures).items()
    }
    body = "\n".join(_section(section, i, drawn) for i, section in enumerate(page.sections))
    css = (files(__package__) / "page.css").read_text(encoding="utf-8")
    style = f"{css}{_CSS}{sheet.css()}\n"
    text = {name: escape(getattr(page, name)) for name in ("title", "brand", "lead", "foot")}
    return _PAGE.format(hash=policy_hash(style), style=style, sections=body, **text)


def _row(tag: str, texts: Sequence[str], words: Sequence[bool]) -> str:
    """Return a table row; columns of words are left-aligned, columns of numbers right-aligned."""
    marks = (' class="words"' if is_words else "" for is_words in words)
    return f"<tr>{''.join(f'<{tag}{mark}>{escape(text)}</{tag[:2]}>' for text, mark in zip(texts, marks, strict=True))}</tr>"


def _section(section: Section, number: int, drawn: Mapping[str, str]) -> str:
    parts = [f'<section aria-labelledby="h{number}"><h2 id="h{number}">{escape(section.title)}</h2>']
    if section.words:
        parts.append(f'<ul class="words">{"".join(f"<li>{escape(line)}</li>" for line in section.words)}</ul>')
    if section.caption:
        parts.append(f'<p class="caption">{escape(section.caption)}</p>')
    for head, lines in section.tables:
        words = [not any(c.isdigit() for line in lines for c in line[column]) for column in range(len(head))]
        cells = "".join(_row("td", line, words) for line in lines)
        titles = _row('th scope="col"', head, words)
        label = f'tabindex="0" role="region" aria-labelledby="h{number}"'
        parts.append(f'<div class="box" {label}><table><thead>{titles}</thead><tbody>{cells}</tbody></table></div>')
    shown = [(name, caption) for name, caption in section.figures if name in drawn]
    if shown:
        images = (f"<figure>{drawn[name]}<figcaption>{escape(caption)}</figcaption></figure>" for name, caption in shown)
        parts.append(f'<div class="grid3">{"".join(images)}</div>')
    return "\n".join([*parts, "</section>"])
