"""Defines options as dataclass fields and derives signatures, documentation, command line and trainer arguments from them."""

import argparse
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, field
from typing import Any, TypeVar

Documented = TypeVar("Documented", bound=Callable[..., Any])


def option(
    default: Any,
    help_: str,
    parse: Callable[[str], Any] | None = str,
    *,
    type_: str | None = None,
    repeated: bool = False,
    const: Any = None,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    **more: Any,
) -> Any:
    """
    Create a dataclass field for an option.

    Args:
        default: the default value.
        help_ (`str`): the description, for documentation and command line.
        parse (`Callable`, *optional*, defaults to `str`): parses the value on the command line; `None` for options available
            only in Python.
        type_ (`str`, *optional*): the type, for documentation; by default the name of `parse`.
        repeated (`bool`, *optional*, defaults to `False`): whether the option takes several values.
        const (*optional*): the value of the option if it is given without one.
        choices (`Sequence[str]`, *optional*): the allowed values.
        metavar (`str`, *optional*): the value's name in `--help`.
        more: further metadata.
    """
    named = type_ or f"`{getattr(parse, '__name__', parse)}`"
    metadata = {"help": help_, "type": named, "parse": parse, "repeated": repeated, "const": const, "choices": choices}
    return field(default=default, metadata={**metadata, "metavar": metavar, **more})


def parsed(fields: Iterable[Field]) -> tuple[Field, ...]:
    """Return the fields that are available on the command line and as trainer arguments."""
    return tuple(found for found in fields if found.metadata.get("parse") is not None)


def add_options(parser: Any, fields: Iterable[Field]) -> None:
    """Add each field that is available on the command line to the parser."""
    for found in parsed(fields):
        meta, flag = found.metadata, f"--{found.name.replace('_', '-')}"
        described = meta["help"].replace("%", "%%")  # argparse expands % formats
        if meta["parse"] is bool:
            switch: Any = argparse.BooleanOptionalAction if found.default else "store_true"
            parser.add_argument(flag, action=switch, default=found.default, help=described)
            continue
        text = described.removesuffix(".") + ("" if found.default is None else f" (default: {found.default})")
        more: dict[str, Any] = {"action": "append"} if meta["repeated"] else {"choices": meta["choices"]}
        more |= {} if meta["const"] is None else {"nargs": "?", "const": meta["const"]}
        parser.add_argument(flag, type=meta["parse"], default=found.default, help=text, metavar=meta["metavar"], **more)


def prefixed_fields(prefix: str, fields: Iterable[Field]) -> list[tuple[str, Any, Field]]:
    """
    Create fields for `dataclasses.make_dataclass` that `HfArgumentParser` can parse.

    Args:
        prefix (`str`): prefix of the names, such as `"scar_"`.
        fields (`Iterable[Field]`): the options.

    Returns:
        `list[tuple]`: name, type and field of each option that is available on the command line.
    """
    made: list[tuple[str, Any, Field]] = []
    for found in parsed(fields):
        kind: Any = found.metadata.get("kind") or found.metadata["parse"]
        kind = list[kind] if found.metadata["repeated"] else kind
        made.append(
            (
                f"{prefix}{found.name}",
                kind | None if found.default is None else kind,
                field(default=found.default, metadata={"help": found.metadata["help"]}),
            )
        )
    return made


def extend_signature(function: Callable[..., Any], fields: Iterable[Field], catch_all: str) -> None:
    """Add a keyword-only parameter for each field to a signature, in place of `**{catch_all}`; other `**` parameters stay."""
    given = inspect.signature(function)
    kept = [p for p in given.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rest = [p for p in given.parameters.values() if p.kind is p.VAR_KEYWORD and p.name != catch_all]
    added = [
        inspect.Parameter(found.name, inspect.Parameter.KEYWORD_ONLY, default=found.default, annotation=found.type)
        for found in fields
        if found.name not in given.parameters
    ]
    function.__signature__ = given.replace(parameters=[*kept, *added, *rest])  # type: ignore[attr-defined]


def document(documented: Documented, mark: str, fields: Iterable[Field], prefix: str = "") -> Documented:
    """Replace `{mark}` in a docstring with one line per field."""
    before, found_mark, after = (documented.__doc__ or "").partition(f"{{{mark}}}")
    lines = []
    for found in fields:
        default = "" if found.default in (None, ()) else f", defaults to `{found.default!r}`"
        lines.append(f"{prefix}{found.name} ({found.metadata['type']}, *optional*{default}): {found.metadata['help']}")
    indent = " " * (len(before) - before.rfind("\n") - 1)
    documented.__doc__ = before + f"\n{indent}".join(lines) * bool(found_mark) + after
    return documented
