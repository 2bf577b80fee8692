"""The pages of the site: every link in them leads somewhere, and what checks the built site finds what is wrong."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from site_pages import Pages, check_links, page_of, write_commands  # noqa: E402


@pytest.fixture(scope="module")
def gathered(tmp_path_factory) -> Pages:
    pages = Pages(tmp_path_factory.mktemp("site") / "pages")
    pages.gather()
    return pages


def places(text: str) -> set[str]:
    """The places that headings make, as GitHub and Python-Markdown name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def test_links_between_pages_lead_to_files_and_headings(gathered):
    assert gathered.missing == []
    files = {path.relative_to(gathered.folder).as_posix(): path for path in gathered.folder.rglob("*") if path.is_file()}
    assert {"index.md", "evidence.md", "repository/SECURITY.md", "repository/examples/sft_lora.py.md"} <= set(files)
    checked = 0
    for name, path in files.items():
        if path.suffix != ".md" or name.endswith(".py.md"):
            continue
        for target in re.findall(r"\]\(([^()\s]+)\)", path.read_text(encoding="utf-8")):
            place, _, fragment = target.partition("#")
            if ":" in target:
                continue
            found = (path.parent / place).resolve() if place else path
            assert found.is_file(), (name, target)
            assert not fragment or fragment in places(found.read_text(encoding="utf-8")), (name, target)
            checked += 1
    assert checked > 60


def test_every_page_is_in_the_navigation(gathered):
    listed = set(re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    docs = {page_of(path.relative_to(ROOT).as_posix()) for path in (ROOT / "docs").rglob("*.md")}
    assert docs <= listed
    assert {name for name in listed if not (gathered.folder / name).is_file()} == {"reference/command_line.md"}


def test_the_reference_names_what_there_is():
    from importlib import import_module

    pytest.importorskip("trl")
    names = [
        name for path in (ROOT / "docs/reference").glob("*.md") for name in re.findall(r"^::: (\S+)", path.read_text(), re.M)
    ]
    assert len(names) > 40
    for name in names:
        module, _, what = name.rpartition(".")
        assert getattr(import_module(module), what).__doc__, name


def test_lists_continue_and_links_change_as_python_markdown_needs_it(tmp_path):
    pages = Pages(tmp_path)
    text = "Text:\n- one\n  more\n\n  | a |\n- [two](methods.md#several-at-once)\n\n```\n- [code](x.md)\n  kept\n```\n"
    assert pages.convert(text, "docs/x.md").splitlines()[:6] == [
        "Text:", "", "- one", "    more", "", "    | a |",
    ]  # fmt: skip
    assert pages.link("[x]", "../recipes", "docs/x.md") == "[x](repository/recipes/index.md)"
    assert pages.link("[x]", "../scar_hf/synthesis/prompts", "docs/x.md") == "x"
    assert pages.link("[x]", "https://arxiv.org/#a", "docs/x.md") == "[x](https://arxiv.org/#a)"
    pages.link("[x]", "nothing.md", "docs/x.md")
    assert pages.missing == ["docs/x.md: nothing.md"]


def test_a_built_page_with_a_bad_link_is_found(tmp_path):
    (tmp_path / "b.html").write_text('<p id="here">')
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here"></a><a href="https://arxiv.org"></a><a href="b.html#gone"></a><a href="c.html"></a>'
        '<a href="../out.html"></a><script src="https://cdn.example/x.js"></script><img src="b.html">'
    )
    assert check_links(tmp_path) == [
        "a.html: there is no place b.html#gone",
        "a.html: there is no c.html",
        "a.html: there is no ../out.html",
        "a.html loads https://cdn.example/x.js",
    ]


def test_the_help_of_every_command_is_a_page(tmp_path):
    from scar_hf.cli import _COMMANDS

    write_commands(tmp_path)
    page = (tmp_path / "reference" / "command_line.md").read_text(encoding="utf-8")
    assert re.findall(r"^## scar-hf (\w+)$", page, re.MULTILINE) == list(_COMMANDS)
    assert "--method METHOD" in page


def test_readme_fits_two_screens():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) <= 170
