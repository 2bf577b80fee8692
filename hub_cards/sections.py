"""Cards are amended between markers, so that what others wrote stays as it is."""

import html
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, RepoCard

from ..files import atomic_write

PAPER = "https://arxiv.org/abs/2406.10882"
_BEGIN, _END = "<!-- scar-hf:{name} -->", "<!-- /scar-hf:{name} -->"
_EMPTY = "---\n{}\n---\n"
# Control characters, and marks that turn the direction of what follows.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_Card = TypeVar("_Card", bound=RepoCard)


def amend_card(
    path: str | Path, name: str, section: str, metadata: Mapping[str, Any], card_class: type[RepoCard] = ModelCard
) -> None:
    """
    Put a section into the card at a path, as [`amend`] does; a card that does not exist is made.

    Args:
        path (`str` or `Path`): a README.md.
        name (`str`): of the section; it stands in the markers.
        section (`str`): Markdown.
        metadata (`Mapping`): as for [`amend`].
        card_class (`type`, *optional*, defaults to `ModelCard`): of huggingface_hub.

    Raises:
        `ValueError`: if the card's metadata cannot be read.
    """
    path = Path(path)
    save_card(amend(read_card(path, card_class), name, section, metadata), path)


def read_card(source: str | Path | None, card_class: type[_Card]) -> _Card:
    """
    Read a card, or begin one.

    Args:
        source (`str` or `Path`, *optional*): its text, or its path; an empty card is begun where there is no such file.
        card_class (`type`): of huggingface_hub.

    Returns:
        `RepoCard`: of that class.

    Raises:
        `ValueError`: if the card's metadata cannot be read.
    """
    if isinstance(source, Path):
        source = source.read_text(encoding="utf-8") if source.is_file() else None
    text = source or _EMPTY
    # What has no metadata is all text; without the empty block huggingface_hub warns of it.
    return card_class(text if text.lstrip("\ufeff").startswith("---") else _EMPTY + text, ignore_metadata_errors=False)


def save_card(card: RepoCard, path: Path) -> None:
    """Write a card; the file appears whole or not at all."""
    with atomic_write(path) as out:
        out.write(str(card).encode("utf-8"))


def amend(
    card: _Card, name: str, section: str, metadata: Mapping[str, Any], owned: Collection[str] = (), title: str | None = None
) -> _Card:
    """
    Put a section into a card: in the place of an earlier one of the same name, else at the end. All else in the card stays
    as it is.

    Args:
        card (`RepoCard`): what there is; changed in place.
        name (`str`): of the section; it stands in the markers.
        section (`str`): Markdown.
        metadata (`Mapping`):
            What the card's metadata must say: lists are added to, other values are set where there are none. `None` says
            nothing.
        owned (`Collection[str]`, *optional*): names in it whose values replace those of the card.
        title (`str`, *optional*): heading of a card that has no text yet, as Markdown.

    Returns:
        `RepoCard`: the same card.
    """
    for key, value in metadata.items():
        present = card.data.get(key)
        if value is None:
            continue
        if key in owned:
            card.data[key] = value
        elif isinstance(value, (list, tuple)):
            have = [present] if isinstance(present, str) else list(present or [])
            card.data[key] = have + [item for item in value if item not in have]
        elif not present:
            card.data[key] = value
    block = f"{_BEGIN.format(name=name)}\n{section.strip()}\n{_END.format(name=name)}"
    text, found = _block(name).subn(lambda _: block, card.text, count=1)
    head = text.rstrip() or ("" if title is None else f"\n# {title}")
    card.text = text if found else f"{head}\n\n{block}\n"
    return card


def headings_of_others(card: RepoCard, name: str) -> set[str]:
    """The headings of the second level in a card outside of the section `name`."""
    return set(re.findall(r"^## +(.+?) *$", _block(name).sub("", card.text), re.MULTILINE))


def _block(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(_BEGIN.format(name=name)) + ".*?" + re.escape(_END.format(name=name)), re.DOTALL)


def escape(text: Any, limit: int = 200) -> str:
    """
    Write text of the data, or named by a user, so that Markdown shows it literally: no markup, no link, no end of a table's
    cell.

    Args:
        text: anything.
        limit (`int`, *optional*, defaults to 200): characters after which it is cut, with an ellipsis.

    Returns:
        `str`: one line.
    """
    plain = _INVISIBLE.sub("", str(text).encode("utf-8", "replace").decode("utf-8"))
    plain = " ".join(plain.split())
    plain = html.escape(plain if len(plain) <= limit else f"{plain[: limit - 1]}…", quote=False)
    plain = re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", plain)
    # GitHub's flavour makes links of bare addresses, and the Hub mentions of names.
    return plain.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")


def code(text: str, language: str) -> str:
    """A fenced block that nothing in the text can end."""
    text = text.replace("<!--", "<! --").encode("utf-8", "replace").decode("utf-8")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], texts: int = 1) -> str:
    """A Markdown table; the first columns, as many as `texts`, are text, the others numbers."""
    align = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (head, align, *rows))


def pictures_of(pictures: Sequence[tuple[str, str]]) -> str:
    """Markdown that shows pictures, each a path in the repository and a text below that says what is seen."""
    return "\n\n".join(f"![{escape(caption)}]({path})\n\n*{escape(caption)}.*" for path, caption in pictures)
