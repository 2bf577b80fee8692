"""Converts docstrings in the style of transformers to ones that mkdocstrings reads; an extension of griffe."""

import re
from typing import Any

from griffe import Extension, Object

_REFERENCE = re.compile(r"\[`~?(?:[\w.]*\.)?(\w+)`\]")
_ENTRY = re.compile(r"^(\s+)(\*{0,2}\w+(?:, \*{0,2}\w+)*)( \((.*?)\))?:(\s|$)")
_SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Yields:")


def readable(text: str) -> str:
    """
    Convert a docstring: references become names, types lose their markup, each name gets a separate entry, and each returned or
    raised object gets one line.

    Args:
        text (`str`): a docstring.

    Returns:
        `str`: the docstring in Google style, for griffe's parser.
    """
    section = ""
    lines: list[str] = []
    for line in _REFERENCE.sub(r"`\1`", text).splitlines():
        if line.strip() in _SECTIONS:
            section, began = line.strip(), len(lines) + 1
            lines.append(line)
            continue
        if line.strip() == "Example:" or (line and not line[0].isspace()):
            section, line = "", line.replace("Example:", "**Example**")
        if not section:
            lines.append(line)
        elif section in ("Args:", "Attributes:"):
            if found := _ENTRY.match(line):
                start, names, _, kind, _ = found.groups()
                typed = "" if kind is None else f" ({_plain(kind)})"
                lines += [f"{start}{name.strip('*')}{typed}: {line[found.end() :].strip()}" for name in names.split(", ")]
            else:
                lines.append(f"{' ' * 8}{line.strip()}" if line.strip() else line)
        elif len(lines) == began or re.match(r"\s*`", line):  # the returned or raised type
            head, colon, rest = line.partition(": ")
            lines.append(f"{head.replace('`', '')}{colon}{rest}" if colon else line)
        elif line.strip():
            lines[-1] = f"{lines[-1]} {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


def _plain(kind: str) -> str:
    """Return a type without markup: `str`, *optional*, defaults to `"auto"` -> str, optional, defaults to "auto"."""
    return kind.replace("`", "").replace("*optional*", "optional")


class ReadableDocstrings(Extension):
    """Converts each docstring before it is parsed."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Convert one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
