"""Parse ratings from a judge's reply; ambiguous replies give no rating."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .filters import clean

HIGHEST = 9
ASPECTS = ("helpfulness", "correctness")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {aspect: {"type": "integer", "minimum": 0, "maximum": HIGHEST} for aspect in ASPECTS},
    "required": list(ASPECTS),
    "additionalProperties": False,
}
_OBJECT = re.compile(r"\{[^{}]*\}")
_LABEL = re.compile(rf"\b({'|'.join(ASPECTS)})\b", re.IGNORECASE)
_NUMBER = r"(\d+(?:\.\d+)?)"
_GAP = r"(?:[^\S\n]|[*`])*"
# A number, alone or followed by "/9", with no other number after it; "0 errors" is a count.
_RATING = re.compile(
    rf"\W*(?:\(0\s*(?:-|–|to)\s*{HIGHEST}\)\W*)?(?:(?:rating|score|is|of|the)\W+)*(?<![-\u2212\d.]){_NUMBER}"
    rf"(?:[\s*]*(?:/|out of)\s*{HIGHEST}(?:\.0)?(?!\d))?(?![\d/%]|\.\d|,\d|\s*(?:/|out of)|\s*(?:-|–|to|or|and)\s*\d)"
    rf"{_GAP}(?:points?\b{_GAP})?(?:\Z|\n|and\s*\Z|[^\w\s%*`-]|-(?!\w))[^\d]*",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Rating:
    """
    A judge's rating of a response.

    Args:
        helpfulness, correctness (`float`, *optional*): in [0, 9]; `None` if the reply could not be parsed.
    """

    helpfulness: float | None = None
    correctness: float | None = None

    @property
    def mean(self) -> float | None:
        """The mean of both ratings, or `None` unless both are known."""
        if self.helpfulness is None or self.correctness is None:
            return None
        return (self.helpfulness + self.correctness) / 2


def parse_rating(text: str) -> float | None:
    """
    Parse one rating.

    Args:
        text (`str`): the part of a reply that should hold the rating.

    Returns:
        `float`: in [0, 9]; `None` if the text has no number, several numbers, a number out of range or on another scale, or a
        number of something else.

    Example:

    ```python
    >>> [parse_rating(text) for text in ("7.5", "**4**", "8/9", "Helpfulness: 7", "8/10", "6 or 7", "2 errors")]
    [7.5, 4.0, 8.0, 7.0, None, None, None]
    ```
    """
    found = _RATING.fullmatch(_LABEL.sub("", text))
    return float(found[1]) if found is not None and float(found[1]) <= HIGHEST else None


def parse_ratings(text: str) -> Rating:
    """
    Parse both ratings from a judge's reply, from a JSON object or otherwise from the text after each keyword.

    Args:
        text (`str`): the reply.

    Returns:
        [`Rating`]: with `None` for ratings that could not be parsed.

    Example:

    ```python
    >>> parse_ratings('{"helpfulness": 7, "correctness": 8}')
    Rating(helpfulness=7.0, correctness=8.0)
    >>> parse_ratings("Helpfulness: **7**\\nCorrectness: hard to say")
    Rating(helpfulness=7.0, correctness=None)
    ```
    """
    text = clean(text)
    objects = [value for value in map(_object, _OBJECT.findall(text)) if value is not None]
    found = [rating for rating in map(_from_object, objects) if rating is not None]
    if not found:
        return _from_labels(text)
    return found[0] if all(rating == found[0] for rating in found) else Rating()


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, Mapping) else None


def _from_object(value: Mapping[str, Any]) -> Rating | None:
    values = {str(name).strip().lower(): given for name, given in value.items()}
    if not set(ASPECTS) & set(values):
        return None
    return Rating(*(_value(values.get(aspect)) for aspect in ASPECTS))


def _value(given: Any) -> float | None:
    if isinstance(given, str):
        return parse_rating(given)
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return None
    return float(given) if 0 <= given <= HIGHEST else None


def _from_labels(text: str) -> Rating:
    """Parse the text between each keyword and the next; a keyword with two different ratings gives none."""
    labels = list(_LABEL.finditer(text))
    ends = [label.start() for label in labels[1:]] + [len(text)] * bool(labels)
    found: dict[str, set[float | None]] = {aspect: set() for aspect in ASPECTS}
    for label, end in zip(labels, ends, strict=True):
        found[label[1].lower()].add(parse_rating(text[label.end() : end]))
    return Rating(*(next(iter(values)) if len(values) == 1 else None for values in found.values()))
