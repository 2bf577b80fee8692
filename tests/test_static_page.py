"""Pages of comparisons and ablations: any text is shown as text, and everything is saved."""

import json
import re

from scar_hf.report.figures import new_axes
from scar_hf.report.static_page import Section, StaticPage, StaticReport

HOSTILE = "<script>x</script>"


def plot(numbers):
    figure, axes = new_axes(1.0)
    axes.plot([0, numbers["last"]])
    return figure


class Report(StaticReport):
    def page(self) -> StaticPage:
        sections = [Section(HOSTILE, [HOSTILE], HOSTILE, [((HOSTILE,), [(HOSTILE,)])], [("line", HOSTILE), ("absent", "no")])]
        figures = {"line": (lambda _: True, plot), "absent": (lambda _: False, plot)}
        return StaticPage(HOSTILE, HOSTILE, HOSTILE, HOSTILE, sections, figures)


def test_texts_are_escaped_wherever_they_stand():
    page = Report({"last": 1}).html()
    assert "<script" not in page
    # Title twice, brand, lead, foot; a section's heading, list, caption, head, cell and figure.
    assert page.count("&lt;script&gt;x&lt;/script&gt;") == 11
    assert page.count("<figure>") == 1


def test_words_are_aligned_left_and_numbers_right():
    class Table(Report):
        def page(self) -> StaticPage:
            section = Section("t", (), "", [(("Method", "Rows", "Verdict"), [("scar", "63", "better"), ("ifd", "-", "worse")])])
            return StaticPage("t", "t", "t", "t", [section], {})

    page = Table({}).html()
    assert '<th scope="col" class="words">Verdict</th>' in page and '<th scope="col">Rows</th>' in page
    assert '<td class="words">worse</td>' in page and "<td>63</td>" in page and "<td>-</td>" in page


def test_page_numbers_and_figures_are_saved(tmp_path):
    Report({"last": 1, "text": "lone \ud800 one"}).save(tmp_path / "page.html")
    assert json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))["last"] == 1
    assert re.match("<!DOCTYPE html>", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["line.png"]
