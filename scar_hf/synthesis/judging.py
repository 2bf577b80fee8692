"""Add ratings to triples, from a judge model or from columns with human ratings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .backends import Backend, Sampling
from .completion_log import CompletionLog
from .engine import Request, Usage, complete_all, run_blocking
from .prompts import Prompt
from .ratings import HIGHEST, SCHEMA, Rating, parse_ratings

MEMBERS = ("direct", "referenced", "human")
JUDGE_PLACEHOLDERS = ("instruction", "response")


@dataclass(frozen=True)
class Judgeable:
    """
    One response to rate.

    Args:
        instruction, response (`str`): the texts.
    """

    instruction: str
    response: str


@dataclass
class Judgement:
    """
    The result of judging.

    Args:
        rated (`list[dict]`): rows with ratings of at least two members.
        unrated (`list[dict]`): the other rows.
        counts (`dict[str, dict[str, int]]`): by member: number of responses `rated`, `unreadable` and `missing`.
        usage ([`Usage`]): the cost of the run.
    """

    rated: list[dict[str, Any]] = field(default_factory=list)
    unrated: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class HumanRatings:
    """
    Ratings from columns.

    Args:
        columns (`dict[str, list[str]]`): the columns of each member, whose mean is its rating.
        lowest, highest (`float`): ends of the scale of the columns, which is mapped to [0, 9].

    Raises:
        `ValueError`: if a member is unknown or the scale is empty.
    """

    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lowest: float = 0.0
    highest: float = float(HIGHEST)

    def __post_init__(self) -> None:
        if unknown := set(self.columns) - set(MEMBERS):
            raise ValueError(f"Ratings can be given for {', '.join(MEMBERS)}, got {sorted(unknown)}.")
        if not self.lowest < self.highest:
            raise ValueError(f"A scale must begin below its end, got {self.lowest} to {self.highest}.")

    def of(self, row: Mapping[str, Any], member: str) -> float | None:
        """
        Return a row's rating of a member (`float` in [0, 9]), or `None` if one of its columns has no number.

        Raises:
            `ValueError`: if a column does not exist or a number is not on the scale.
        """
        values = []
        for name in self.columns[member]:
            if name not in row:
                raise ValueError(f"There is no column {name!r} of ratings; columns: {sorted(row)}.")
            value = row[name]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
                return None
            if not self.lowest <= value <= self.highest:
                scale = f"{self.lowest:g} to {self.highest:g}"
                raise ValueError(f"The column {name!r} has {value}, outside the scale from {scale}.")
            values.append((value - self.lowest) / (self.highest - self.lowest) * HIGHEST)
        return sum(values) / len(values) if values else None


def texts_of(row: Mapping[str, Any], member: str) -> dict[str, str]:
    """Return the texts of a member by model; the key is `""` if the model is not given."""
    value = row.get(member)
    given = value if isinstance(value, Mapping) else {"": value}
    return {name: text for name, text in given.items() if isinstance(text, str) and text.strip()}


def rate(
    items: Sequence[Judgeable],
    backend: Backend,
    prompt: Prompt,
    sampling: Sampling,
    log: CompletionLog,
    usage: Usage,
    progress: bool = True,
) -> list[Rating | None]:
    """
    Let a model rate responses.

    Args:
        items (`Sequence[Judgeable]`): n responses.
        backend ([`Backend`]): the judge.
        prompt ([`Prompt`]): the prompt for the judge.
        sampling ([`Sampling`]): sampling settings; their schema is replaced by that of a rating.
        log ([`CompletionLog`]): stores the judge's replies.
        usage ([`Usage`]): the budget.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar, on a terminal only.

    Returns:
        `list[Rating | None]`: n ratings; `None` if the judge has not replied yet.
    """
    sampling = Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed, SCHEMA)
    requests = [Request(prompt.messages(vars(item), "judge"), sampling, "judge") for item in items]
    try:
        run_blocking(complete_all([(backend, request) for request in requests], log, usage, progress))
    finally:
        log.close()
    replies = [log.get(request.key(backend.model)) for request in requests]
    return [None if reply is None else parse_ratings(reply.text) for reply in replies]


def judge_rows(
    rows: Sequence[Mapping[str, Any]],
    backend: Backend | None,
    prompt: Prompt | None,
    sampling: Sampling,
    log: CompletionLog,
    usage: Usage,
    human: HumanRatings | None = None,
    progress: bool = True,
) -> Judgement:
    """
    Rate every response of triples; the rating of a member is the mean rating of its texts.

    Args:
        rows (`Sequence[Mapping]`): triples.
        backend ([`Backend`], *optional*): the judge; `None` if all ratings are human.
        prompt, sampling, log, usage, progress: see [`rate`].
        human ([`HumanRatings`], *optional*): takes the ratings of some members from columns instead.

    Returns:
        [`Judgement`]: rows with `ratings` (`{member: number}`, `None` if a text has no rating) and `judgements`, a list with
        the ratings of each text.
    """
    human = human or HumanRatings()
    places = [
        (number, member, name, text)
        for number, row in enumerate(rows)
        for member in (MEMBERS if backend is not None else ())
        if member not in human.columns
        for name, text in texts_of(row, member).items()
    ]
    ratings: list[Rating | None] = []
    if backend is not None and prompt is not None:
        items = [Judgeable(str(rows[number].get("instruction") or ""), text) for number, _, _, text in places]
        ratings = rate(items, backend, prompt, sampling, log, usage, progress)
    result = Judgement(usage=usage)
    counts: dict[str, Counter[str]] = {member: Counter() for member in MEMBERS}
    notes: list[list[dict[str, Any]]] = [[] for _ in rows]
    for (number, member, name, _), rating in zip(places, ratings, strict=True):
        mean = None if rating is None else rating.mean
        counts[member]["missing" if rating is None else "unreadable" if mean is None else "rated"] += 1
        known = rating or Rating()
        note = {"member": member, "model": name, "judge": backend.model if backend else ""}
        notes[number].append(note | {"helpfulness": known.helpfulness, "correctness": known.correctness, "mean": mean})
    for row, found in zip(rows, notes, strict=True):
        members = {member: _mean([note["mean"] for note in found if note["member"] == member]) for member in MEMBERS}
        members = {member: members[member] for member in MEMBERS if any(note["member"] == member for note in found)}
        for member in human.columns:
            if texts_of(row, member):
                members[member] = human.of(row, member)
                counts[member]["rated" if members[member] is not None else "missing"] += 1
        written = {**row, "ratings": members, "judgements": [_without(note, "mean") for note in found]}
        enough = sum(value is not None for value in members.values()) >= 2
        (result.rated if enough else result.unrated).append(written)
    result.counts = {member: dict(count) for member, count in counts.items() if count}
    return result


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or `None` unless all values are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _without(note: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in note.items() if key != name}
