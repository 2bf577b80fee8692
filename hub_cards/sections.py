"""Fills card templates and updates sections of existing cards. Other text in a card is kept, and data is escaped."""

import html
import re
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData, RepoCard
from yaml import YAMLError

from ..files import atomic_write

PAPER = "https://arxiv.org/abs/2406.10882"
_BEGIN, _END = "<!-- scar-hf:{name} -->", "<!-- /scar-hf:{name} -->"
_EMPTY = "---\n{}\n---\n"
# Control characters, and marks that change the direction of text.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_Card = TypeVar("_Card", ModelCard, DatasetCard)


class Markdown(str):
    """Markdown text, which [`render`] inserts unchanged; it escapes all other strings."""


def read_card(source: str | Path | None, card_class: type[_Card]) -> _Card:
    """
    Read a card, or start an empty one.

    Args:
        source (`str` or `Path`, *optional*): the card's text or path; if missing, the card is empty.
        card_class (`type`): `ModelCard` or `DatasetCard` of huggingface_hub.

    Returns:
        `ModelCard` or `DatasetCard`.

    Raises:
        `ValueError`: if the card's metadata cannot be read.
    """
    name = str(source) if isinstance(source, Path) else "the card"
    if isinstance(source, Path):
        source = source.read_text(encoding="utf-8") if source.is_file() else None
    text = source or _EMPTY
    try:
        # huggingface_hub warns about cards without metadata, so add an empty block.
        return card_class(text if text.lstrip("\ufeff").startswith("---") else _EMPTY + text, ignore_metadata_errors=False)
    except (ValueError, YAMLError) as error:
        raise ValueError(f"The metadata of {name} cannot be read: {' '.join(str(error).split())}") from error


def save_card(card: RepoCard, path: str | Path) -> None:
    """Write a card atomically."""
    with atomic_write(Path(path)) as out:
        out.write(str(card).encode("utf-8"))


def render(card_class: type[_Card], name: str, metadata: Mapping[str, Any], **variables: Any) -> _Card:
    """
    Fill in a template of this folder.

    Args:
        card_class (`type`): `ModelCard` or `DatasetCard` of huggingface_hub.
        name (`str`): the template is `templates/{name}.md`.
        metadata (`Mapping`): the card's metadata.
        variables: the template's variables. All strings are escaped, at any depth, unless they are [`Markdown`].

    Returns:
        `ModelCard` or `DatasetCard`: the complete card, with its section between markers.
    """
    data: Any = ModelCardData(**metadata) if issubclass(card_class, ModelCard) else DatasetCardData(**metadata)
    template = (files(__package__) / "templates" / f"{name}.md").read_text(encoding="utf-8")
    card = card_class.from_template(data, template_str=template, paper=PAPER, **_shown(variables))
    # huggingface_hub folds the evaluation results into `model-index` and reads them back; keep the objects.
    card.data = data
    card.text = re.sub(r"\n{3,}", "\n\n", card.text).replace(" -->\n\n", " -->\n")
    return card


def amend(card: _Card, rendered: _Card, owned: Collection[str] = ()) -> _Card:
    """
    Insert the section of a rendered card into a card. It replaces a section of the same name, or goes to the end.
    Everything else in the card stays as it is.

    Args:
        card (`ModelCard` or `DatasetCard`): the existing card; changed in place. A card without text gets the rendered title.
        rendered (`ModelCard` or `DatasetCard`):
            From [`render`]. Lists in its metadata are added to those of the card; other values only fill gaps.
        owned (`Collection[str]`, *optional*): metadata keys whose values replace those of the card.

    Returns:
        `ModelCard` or `DatasetCard`: the same card.
    """
    for key, value in vars(rendered.data).items():
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
    section = re.search(r"<!-- scar-hf:(\w+) -->.*?<!-- /scar-hf:\1 -->", rendered.text, re.DOTALL)
    assert section is not None
    text, found = _section(section[1]).subn(lambda _: section[0], card.text, count=1)
    head = card.text.rstrip() or rendered.text[: section.start()].rstrip()
    card.text = text if found else f"{head}\n\n{section[0]}\n"
    return card


def headings_of_others(card: RepoCard, name: str) -> set[str]:
    """Return the second-level headings of a card outside the section `name`."""
    return set(re.findall(r"^## +(.+?) *$", _section(name).sub("", card.text), re.MULTILINE))


def escape(text: Any, limit: int = 200) -> str:
    """
    Escape text so that Markdown shows it literally: no markup, links or cell boundaries.

    Args:
        text: anything.
        limit (`int`, *optional*, defaults to 200): maximum number of characters; longer text ends with an ellipsis.

    Returns:
        `str`: one line.
    """
    plain = _INVISIBLE.sub("", str(text).encode("utf-8", "replace").decode("utf-8"))
    plain = " ".join(plain.split())
    plain = html.escape(plain if len(plain) <= limit else f"{plain[: limit - 1]}…", quote=False)
    plain = re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", plain)
    # GitHub's flavour turns bare addresses into links, and the Hub turns names after @ into mentions.
    return plain.replace("://", ":&#47;&#47;").replace("www.", "www&#46;").replace("@", "&#64;")


def code(text: str, language: str) -> Markdown:
    """Return a fenced code block whose fence does not occur in the text."""
    text = text.replace("<!--", "<! --").encode("utf-8", "replace").decode("utf-8")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def _section(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(_BEGIN.format(name=name)) + ".*?" + re.escape(_END.format(name=name)), re.DOTALL)


def _shown(value: Any) -> Any:
    if isinstance(value, Markdown):
        return str(value)
    if isinstance(value, str):
        return escape(value, 500)
    if isinstance(value, Mapping):
        return {name: _shown(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return value
