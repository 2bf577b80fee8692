"""Cards are amended between markers, so that what others wrote stays as it is."""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, RepoCard

from ..files import open_whole

_BEGIN, _END = "<!-- scar-hf:{name} -->", "<!-- /scar-hf:{name} -->"


def amend_card(path: str | Path, name: str, section: str, metadata: Mapping[str, Any], card_class: type = ModelCard) -> None:
    """
    Put a section into a card: in the place of an earlier one of the same name, else at the end. All else in the card stays
    as it is; a card that does not exist is made.

    Args:
        path (`str` or `Path`): a README.md.
        name (`str`): of the section; it stands in the markers.
        section (`str`): Markdown.
        metadata (`Mapping`): what the card's metadata must say: lists are added to, other values are set where there are none.
        card_class (`type`, *optional*, defaults to `ModelCard`): of huggingface_hub.

    Raises:
        `ValueError`: if the card's metadata cannot be read.
    """
    path = Path(path)
    content = path.read_text(encoding="utf-8") if path.is_file() else "---\n{}\n---\n"
    card: RepoCard = card_class(content, ignore_metadata_errors=False)
    for key, value in metadata.items():
        present = card.data.get(key)
        if isinstance(value, (list, tuple)):
            have = [present] if isinstance(present, str) else list(present or [])
            card.data[key] = have + [item for item in value if item not in have]
        elif not present:
            card.data[key] = value
    begin, end = _BEGIN.format(name=name), _END.format(name=name)
    block = f"{begin}\n{section.strip()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    text = card.text
    text, found = pattern.subn(lambda _: block, text, count=1)
    card.text = text if found else f"{text.rstrip()}\n\n{block}\n"
    with open_whole(path) as out:
        out.write(str(card).encode("utf-8"))


def escape(text: Any) -> str:
    """Text of the data, or named by a user, as Markdown shows it literally: no markup, no link, no table cell ends in it."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", plain)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (head, align, *rows))
