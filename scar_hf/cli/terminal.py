"""Makes text from data and files safe to print on a terminal."""

import re

# Control characters except tab and newline, and marks that change the text direction.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: object) -> str:
    """
    Make text safe to print.

    Args:
        text: any object, converted with `str`.

    Returns:
        `str`: with a visible escape for each terminal control character, and U+FFFD for lone surrogates.
    """
    plain = str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", plain)
