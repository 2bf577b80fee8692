"""Text of the data and of files on a terminal: it moves no cursor, changes no title and hides nothing."""

import re

# Control characters but for the line's end, and the marks that turn the direction of what follows.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: object) -> str:
    """
    Make text safe to print.

    Args:
        text: anything; of text from outside nothing is believed.

    Returns:
        `str`: with a visible escape in the place of each character that a terminal would obey, and U+FFFD for surrogates that
        stand alone.
    """
    plain = str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", plain)
