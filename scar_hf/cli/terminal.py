"""Usage errors of commands, and text that is safe to print."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Control characters except tab and newline, and marks that change the text direction.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class UsageError(ValueError):
    """Raised if options contradict each other or a value is invalid; the command exits with status 2."""


@contextmanager
def usage() -> Iterator[None]:
    """Convert a `ValueError` to a [`UsageError`], because the values come from options."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def printable(text: object) -> str:
    """
    Make text safe to print.

    Args:
        text: any object, converted with `str`.

    Returns:
        `str`: the text, with a visible escape for each terminal control character, and U+FFFD for lone surrogates.
    """
    plain = str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", plain)
