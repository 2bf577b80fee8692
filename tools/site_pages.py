"""
Build the documentation: python tools/site_pages.py [--pages FOLDER] [--site FOLDER]

Gathers the pages (docs/, README.md as the first page, linked files of the repository, the help of each command), builds them
with Zensical, and checks every link of the site offline. Exits with status 1 on a warning, a broken link, or a resource that is
loaded from another host.
"""

import argparse
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from posixpath import normpath, relpath
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\[\]]*\])*\])\(([^()\s]+)\)")
_FENCE = re.compile(r"^ *(```|~~~)")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".json": "json", ".sh": "bash", ".cfg": "ini"}
_LARGEST_FILE = 200_000


class Pages:
    """Gathers the pages of the site from the repository."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.written: set[str] = set()
        self.missing: list[str] = []

    def gather(self) -> None:
        """Write all pages: those of docs/ and the files that they link to."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in sorted((ROOT / "docs").rglob("*")):
            if path.is_file():
                self.add(path.relative_to(ROOT).as_posix())
        listed = re.findall(r"repository/(\S+)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
        for name in ["README.md", *listed]:
            self.add(name)

    def add(self, name: str) -> None:
        """Write the page of a file of the repository, once, and the pages that it links to."""
        if name in self.written:
            return
        self.written.add(name)
        source, target = ROOT / name, self.folder / page_of(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".md"):
            target.write_text(self.convert(source.read_text(encoding="utf-8"), name), encoding="utf-8")
        elif page_of(name).endswith(".md"):
            target.write_text(_listing(source, name), encoding="utf-8")
        else:
            shutil.copyfile(source, target)

    def convert(self, text: str, name: str) -> str:
        """Convert a page from GitHub's Markdown: point links at pages of the site, and format lists for Python-Markdown."""
        if text.startswith("---\n"):  # the metadata of a card
            text = text.split("\n---\n", 1)[1]
        lines, fenced, before = [], False, ""
        for line in text.splitlines():
            if _FENCE.match(line):
                fenced = not fenced
            if re.match(r" {2,3}\S", line):
                line = f"    {line.lstrip()}"  # continues a list item
            if not fenced:
                is_item = re.match(r"([-*]|\d+\.) ", line)
                if is_item and before and not re.match(r"([-*]|\d+\.|\s) ?", before):
                    lines.append("")
                if not line.startswith("    ") or before.startswith(("- ", "* ", "    ")):
                    line = _LINK.sub(lambda found: self.link(found[1], found[2], name), line)
            lines.append(line)
            before = line
        return "\n".join(lines) + "\n"

    def link(self, text: str, target: str, name: str) -> str:
        """Point a link at the page of its target. A folder without a README has no page, so the link becomes plain text."""
        path, _, fragment = target.partition("#")
        if not path or urlsplit(target).scheme:
            return f"{text}({target})"
        found = normpath(f"{Path(name).parent.as_posix()}/{path}")
        if (ROOT / found / "README.md").is_file():
            found = f"{found}/README.md"
        if not (ROOT / found).exists():
            self.missing.append(f"{name}: {target}")
            return f"{text}({target})"
        if (ROOT / found).is_dir():
            return text.strip("![]")
        self.add(found)
        return f"{text}({relpath(page_of(found), Path(page_of(name)).parent.as_posix())}{f'#{fragment}' if fragment else ''})"


def page_of(name: str) -> str:
    """Return the path of a file's page in the site: docs/ is the root, README.md the first page, and source code a page."""
    if name == "README.md":
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    place = name.removesuffix("/README.md") + "/index.md" if name.endswith("/README.md") else name
    is_text = Path(name).suffix in _LANGUAGES or not Path(name).suffix
    return f"repository/{place}.md" if is_text and (ROOT / name).stat().st_size < _LARGEST_FILE else f"repository/{place}"


def _listing(source: Path, name: str) -> str:
    return f"# {name}\n\n````{_LANGUAGES.get(source.suffix, 'text')}\n{source.read_text(encoding='utf-8')}\n````\n"


def link_package(folder: Path) -> None:
    """Lay out the package as if installed, with the folders that setup.cfg maps into it, where mkdocstrings looks for it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "scar_hf").mkdir(parents=True)
    mapped = [ROOT / name for name in ("hub_cards", "modeling", "trainer_callbacks")]
    for path in [*(ROOT / "scar_hf").iterdir(), *mapped]:
        (folder / "scar_hf" / path.name).symlink_to(path)


def write_commands(folder: Path) -> None:
    """Write the page of the command line: the help of each command."""
    from scar_hf.cli import _parser

    parser = _parser()
    parts = ["# Command line", "", "```text", parser.format_help().rstrip(), "```"]
    for action in parser._subparsers._group_actions if parser._subparsers else []:
        for name, command in (action.choices or {}).items():
            parts += ["", f"## scar-hf {name}", "", "```text", command.format_help().rstrip(), "```"]
    path = folder / "reference" / "command_line.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


class _Links(HTMLParser):
    """The links of a page, the resources that it loads, and its anchors."""

    def __init__(self):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses in one tag."""
        found = dict(attrs)
        self.places |= {value for key in ("id", "name") if (value := found.get(key))}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"] or "")
        elif tag == "link" and found.get("rel") not in ("canonical", "prev", "next") and found.get("href"):
            self.loaded.append(found["href"] or "")
        elif tag in ("script", "img", "iframe", "source", "video") and found.get("src"):
            self.loaded.append(found["src"] or "")


def check_links(site: Path) -> list[str]:
    """
    Check the links of a site offline.

    Args:
        site (`Path`): a folder of HTML pages.

    Returns:
        `list[str]`: one line for each broken link and each resource that is loaded from another host.
    """
    pages: dict[Path, _Links] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = _Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses begin at the root of a server
            continue
        shown = path.relative_to(site)
        for address in [*page.links, *page.loaded]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loaded and parts.scheme != "data":
                    wrong.append(f"{shown} loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file() or site.resolve() not in target.resolve().parents:
                wrong.append(f"{shown}: there is no {address}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                wrong.append(f"{shown}: there is no place {address}")
    return wrong


def main() -> int:
    """Gather, build and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=Path, default=ROOT / "out" / "pages", help="gathered Markdown (default: out/pages)")
    parser.add_argument("--site", type=Path, default=ROOT / "out" / "site", help="as in mkdocs.yml (default: out/site)")
    args = parser.parse_args()
    pages = Pages(args.pages)
    pages.gather()
    write_commands(args.pages)
    link_package(args.pages.parent / "package")
    wrong = [f"{link}: no such file" for link in pages.missing]
    if not wrong:
        shutil.rmtree(args.site, ignore_errors=True)
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
        built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wrong = [line for line in built.stdout.splitlines() if built.returncode or "griffe:" in line or "WARN" in line]
        wrong = wrong or check_links(args.site.resolve())
    print(
        "\n".join(wrong) or f"Open {args.site / 'index.html'}: {len(list(args.site.rglob('*.html')))} pages, all links checked."
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
