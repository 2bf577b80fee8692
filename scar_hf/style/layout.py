"""Layout: the Markdown of a response."""

import re

LAYOUT = ("headings", "list_items", "code", "bold")
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
_BOLD = re.compile(r"\*\*(?=\S)[^*\n]+?(?<=\S)\*\*|(?<!\w)__(?=\S)[^_\n]+?(?<=\S)__(?!\w)")


def count_layout(text: str) -> tuple[int, int, int, int]:
    """
    Count Markdown elements; of fenced code, only the fences count.

    Args:
        text (`str`): a response.

    Returns:
        `tuple(int)`: headings; items of lists; pieces of code, fenced or in a line; pieces in bold.
    """
    parts = text.split("```") if "```" in text else [text]
    prose = "\n".join(parts[::2])
    return (
        len(_HEADING.findall(prose)) if "#" in prose else 0,
        len(_LIST_ITEM.findall(prose)),
        len(parts) // 2 + (len(_INLINE_CODE.findall(prose)) if "`" in prose else 0),
        len(_BOLD.findall(prose)) if "**" in prose or "__" in prose else 0,
    )
