"""Reads (instruction, response) pairs from rows of any fine-tuning format."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ..files import LongRow
from .conversations import (
    RowError,
    Turns,
    asked,
    begins_with_user,
    common_turns,
    extended,
    is_chat,
    turns_of,
    turns_of_text,
    whole_conversation,
)
from .formats import CHAT, FORMATS_IN_WORDS, PLAIN, PREFERENCE, RowFormat, formats_of

logger = logging.getLogger(__name__)
_TURNS = ("first", "last", "all")
_PREFERENCES = ("chosen", "rejected", "margin")
READER_SETTINGS = ("columns", "turn", "formatting_func", "preference")
Pairs = list[tuple[Any, Any]]
# Matches the start of the row-specific part of a reason.
_OWN_PART = re.compile(r" of row \d|: row \d| \(")


@dataclass(frozen=True, slots=True)
class RowPairs:
    """
    The pairs to score in one row.

    Args:
        pairs (`tuple` of `(instruction, response)`): one pair, or one for each assistant turn with `turn="all"`.
        problem (`str`, *optional*): the reason why the row cannot be scored.
        against (`tuple` of `(instruction, response)`):
            The rejected pairs with `preference="margin"`: their score is subtracted from that of `pairs`.
    """

    pairs: tuple[tuple[Any, Any], ...]
    problem: str | None = None
    against: tuple[tuple[Any, Any], ...] = ()

    @property
    def instruction(self) -> str:
        """The first pair's instruction, as text for display."""
        return str(self.pairs[0][0] or "") if self.pairs else ""

    @property
    def response(self) -> str:
        """The responses of all pairs, joined, as text for display and style measures."""
        return "\n\n".join(str(response or "") for _, response in self.pairs)

    def text(self, part: str = "both") -> str:
        """
        Join the texts of all pairs, to compare rows. The result is empty for a row with a problem.

        Args:
            part (`str`, *optional*, defaults to `"both"`): `"instruction"`, `"response"` or both.
        """
        chosen = {"both": slice(0, 2), "instruction": slice(0, 1), "response": slice(1, 2)}[part]
        return "" if self.problem is not None else "\n".join(text for pair in self.pairs for text in pair[chosen])

    def digest(self) -> bytes:
        """Hash the scored texts to 16 bytes."""
        hasher = blake2b(digest_size=16)
        if self.problem is not None:
            hasher.update(b"?")
        for sign, pairs in () if self.problem is not None else ((b"", self.pairs), (b"-", self.against)):
            for text in (text for pair in pairs for text in pair):
                data = text.encode("utf-8", "surrogatepass")
                hasher.update(sign + len(data).to_bytes(8, "little") + data)
        return hasher.digest()


class PairReader:
    """
    Reads instructions and responses from rows.

    Args:
        columns (`dict` or `tuple`, *optional*):
            `{"instruction": NAME, "response": NAME}`, or the two names in that order. By default the format is detected
            from the column names.
        turn (`str`, *optional*, defaults to `"first"`):
            Which assistant turn of a conversation to score: `"first"`, `"last"`, or `"all"`, which averages the scores of
            all turns. The instruction is the user's last message before the turn; system prompts and tool turns are
            ignored.
        formatting_func (`Callable`, *optional*):
            For other formats: a function that takes a row and returns `(instruction, response)`, a list of messages, a
            rendered text, or a row of a known format.
        preference (`str`, *optional*, defaults to `"chosen"`):
            How to score a preference set: by the `"chosen"` response, the `"rejected"` response, or the `"margin"`, the score
            of the chosen response minus that of the rejected one.

    Raises:
        `ValueError`: if a value is invalid or two of them contradict each other.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | Sequence[str] | None = None,
        turn: str = "first",
        formatting_func: Callable[[dict[str, Any]], Any] | None = None,
        preference: str = "chosen",
    ) -> None:
        if turn not in _TURNS:
            raise ValueError(f"`turn` must be 'first', 'last' or 'all', got {turn!r}.")
        if columns is not None and formatting_func is not None:
            raise ValueError("Pass either `columns` or `formatting_func`, not both.")
        if preference not in _PREFERENCES:
            raise ValueError(f"`preference` must be 'chosen', 'rejected' or 'margin', got {preference!r}.")
        if preference != "chosen" and columns is not None:
            raise ValueError(
                f"preference={preference!r} reads the columns chosen and rejected and cannot be combined with `columns`."
            )
        self.turn = turn
        self.preference = preference
        self._noticed = False
        self.columns = None if columns is None else _column_names(columns)
        self.formatting_func = formatting_func

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "PairReader":
        """
        Create the reader of a scorer with these settings; other settings are ignored. A manifest has only the hash of a
        `formatting_func`; a reader with these settings raises a `ValueError` when it reads.
        """
        given = {name: settings[name] for name in READER_SETTINGS if name in settings}
        if isinstance(given.get("formatting_func"), str):
            given["formatting_func"] = _unknown_function
        return cls(**given)

    @property
    def can_read(self) -> bool:
        """Whether the reader has the `formatting_func` that its settings name."""
        return self.formatting_func is not _unknown_function

    def needed(self, names: Sequence[str]) -> list[str] | None:
        """
        List the columns to load.

        Args:
            names (`Sequence[str]`): the data's columns.

        Returns:
            `list[str]`, or `None` for all columns, because a `formatting_func` may read any.

        Raises:
            `ValueError`: if the columns match no format.
        """
        if self.formatting_func is not None:
            return None
        if self.columns is not None:
            missing = [name for name in self.columns if name not in names]
            if missing:
                raise ValueError(f"`columns` names {missing}, but the data has the columns {list(names)}.")
            return list(self.columns)
        formats = self.formats(names)
        if formats:
            return list(dict.fromkeys(name for known in formats for name in known.columns))
        if self.preference != "chosen":
            raise ValueError(
                f"preference={self.preference!r} needs the columns chosen and rejected, but the data has {list(names)}. Omit "
                "`preference` to score the responses."
            )
        tokens = (
            " These rows are already tokenised: select before tokenising, or pass "
            'formatting_func=lambda row: {"text": tokenizer.decode(row["input_ids"])}.'
            if "input_ids" in names
            else ""
        )
        raise ValueError(
            f"No instruction and response found in the columns {list(names)}.{tokens} Known formats: "
            f'{FORMATS_IN_WORDS}. For any other format, name the two columns with columns={{"instruction": ..., '
            '"response": ...}, or --columns INSTRUCTION,RESPONSE on the command line; or pass a `formatting_func`.'
        )

    def read(self, batch: Mapping[str, Sequence[Any]]) -> list[RowPairs]:
        """
        Read a batch of rows, as `ds.map(..., batched=True)` and `ds[:n]` return it.

        Args:
            batch (`Mapping[str, Sequence]`): columns by name, n values each.

        Returns:
            `list[RowPairs]`: n rows; a row that cannot be scored has a `problem`.

        Raises:
            `ValueError`: if the columns match no format.
        """
        needed = self.needed(list(batch))
        names = list(batch) if needed is None else needed
        formats = [] if needed is None else self.formats(names)
        if formats and formats[0].kind == PREFERENCE and self.preference == "chosen" and not self._noticed:
            self._noticed = True
            logger.warning(
                "The data has chosen and rejected responses; only the chosen ones are scored. Pass preference='margin' "
                "(--preference margin) to score the difference between the two."
            )
        values = zip(*(batch[name] for name in names), strict=True)
        return [self._read_row(dict(zip(names, row, strict=True)), formats) for row in values]

    def formats(self, names: Sequence[str]) -> list[RowFormat]:
        """Return the formats that match these columns, in the order in which to try them."""
        if self.columns is not None:
            return [RowFormat(PLAIN, self.columns)]
        formats = formats_of(names)
        return formats if self.preference == "chosen" else [known for known in formats if known.kind == PREFERENCE]

    def _read_row(self, row: dict[str, Any], formats: Sequence[RowFormat]) -> RowPairs:
        long = next((value for value in row.values() if isinstance(value, LongRow)), None)
        if long is not None:
            return RowPairs((), long.reason)
        try:
            pairs, against = self._formatted(row) if self.formatting_func is not None else self._known(row, formats)
        except RowError as error:
            return RowPairs((), str(error))
        read, other = self._checked(pairs), self._checked(against)
        if read.problem is None and other.problem is not None:
            return RowPairs(read.pairs, other.problem.replace("the response", "the rejected response"))
        return RowPairs(read.pairs, read.problem, other.pairs)

    def _checked(self, pairs: list[tuple[Any, Any]]) -> RowPairs:
        problems = [pair_problem(*pair) for pair in pairs]
        if self.turn == "all" and None in problems:
            return RowPairs(tuple(pair for pair, problem in zip(pairs, problems, strict=True) if problem is None))
        return RowPairs(tuple(pairs), next((problem for problem in problems if problem is not None), None))

    def _known(self, row: Mapping[str, Any], formats: Sequence[RowFormat]) -> tuple[Pairs, Pairs]:
        """Return the pairs of a row of a known format, and the rejected pairs to subtract."""
        known = format_of_row(row, formats)
        values = [row[name] for name in known.columns]
        if known.kind == PREFERENCE:
            return self._read_preference(*values)
        if known.kind == PLAIN:
            return self._read_plain(values[0], values[1], values[2:]), []
        return (self._chosen([], turns_of(values[0])) if known.kind == CHAT else self._read_text(values[0])), []

    def _formatted(self, row: dict[str, Any]) -> tuple[Pairs, Pairs]:
        assert self.formatting_func is not None
        result = self.formatting_func(row)
        if isinstance(result, Mapping):
            reader = PairReader(turn=self.turn, preference=self.preference)
            reader.needed(list(result))
            return reader._known(result, reader.formats(list(result)))
        if self.preference != "chosen":
            raise RowError(
                f"preference={self.preference!r} needs a `formatting_func` that returns rows with chosen and rejected"
            )
        if isinstance(result, str):
            return self._read_text(result), []
        if isinstance(result, (list, tuple)):
            if is_chat(result):
                return self._chosen([], turns_of(result)), []
            if len(result) == 2:
                return self._read_plain(result[0], result[1], ()), []
        raise RowError(
            f"`formatting_func` must return (instruction, response), a list of messages, a rendered text or a row of a known "
            f"format, got {type(result).__name__}"
        )

    def _read_plain(self, instruction: Any, response: Any, extensions: Sequence[Any]) -> list[tuple[Any, Any]]:
        if is_chat(instruction) or is_chat(response):
            before = turns_of(instruction) if is_chat(instruction) else [("user", instruction)]
            after = turns_of(response) if is_chat(response) else [("assistant", response)]
            return self._chosen([] if begins_with_user(after) else before, after)
        for more in extensions:
            instruction = extended(instruction, more)
        return [(instruction, response)]

    def _read_preference(self, chosen: Any, rejected: Any, prompt: Any = None) -> tuple[Pairs, Pairs]:
        ours, others = self._split_pair(
            whole_conversation(prompt, chosen), None if rejected is None else whole_conversation(prompt, rejected)
        )
        return {"chosen": (ours, []), "rejected": (others, []), "margin": (ours, others)}[self.preference]

    def _split_pair(self, chosen: Turns, rejected: Turns | None) -> tuple[Pairs, Pairs]:
        """Return the pairs of two conversations; the turns that they share are the prompt of both."""
        start = common_turns(chosen, rejected)
        others = None if rejected is None else self._chosen(rejected[:start], rejected[start:])
        return self._chosen(chosen[:start], chosen[start:]), others or [(asked(chosen[:start]), None)]

    def _read_text(self, text: Any) -> list[tuple[Any, Any]]:
        if not isinstance(text, str):
            return [(text, text)]
        turns = turns_of_text(text)
        if turns is None:
            raise RowError("the text has no user and assistant markers of a known chat template")
        return self._chosen([], list(turns))

    def _chosen(self, before: Turns, turns: Turns) -> list[tuple[str | None, str | None]]:
        """Return the pairs of the assistant turns that `turn` picks from `turns`, which follow `before`."""
        every = [*before, *turns]
        spoken = [i for i in range(len(before), len(every)) if every[i][0] == "assistant" and every[i][1]]
        if not spoken:
            return [(asked(every), None)]
        positions = {"first": spoken[:1], "last": spoken[-1:], "all": spoken}[self.turn]
        return [(asked(every[:i]), every[i][1]) for i in positions]


def format_of_row(row: Mapping[str, Any], formats: Sequence[RowFormat]) -> RowFormat:
    """Return the first format whose required columns have values in this row, because a file may mix formats."""
    return next((known for known in formats if all(row.get(name) is not None for name in known.required)), formats[0])


def pair_problem(instruction: Any, response: Any) -> str | None:
    """Return the reason why a pair cannot be scored, or `None`. An instruction may be empty, but a response must not be."""
    for name, text in (("instruction", instruction), ("response", response)):
        if text is None:
            return f"the {name} is missing"
        if not isinstance(text, str):
            return f"the {name} must be a string, not {type(text).__name__}"
    return None if response.strip() else "the response is empty"


def check_rows(rows: Sequence[RowPairs], start: int = 0) -> None:
    """Raise a `ValueError` that lists the rows that cannot be scored; `start` is the number of the first row."""
    bad = [(start + i, row.problem) for i, row in enumerate(rows) if row.problem is not None]
    if bad:
        shown = "; ".join(f"row {i}: {problem}" for i, problem in bad[:5])
        raise ValueError(
            f"{len(bad)} of {len(rows)} rows cannot be scored ({shown}{'; ...' if len(bad) > 5 else ''}). Remove or fix "
            "them; without `strict`, scar_rank, scar_select and the command line skip and count such rows."
        )


def kind_of_reason(reason: str) -> str:
    """Strip the row-specific part of a reason, such as the number of the row that it repeats."""
    return _OWN_PART.split(reason, maxsplit=1)[0]


def reasons_in_words(skipped: Mapping[int, str]) -> str:
    """List reasons with their counts, most frequent first."""
    return "; ".join(f"{count:,} × {reason}" for reason, count in Counter(skipped.values()).most_common(10))


def _unknown_function(row: dict[str, Any]) -> Any:
    raise ValueError(
        "These rows were read by a `formatting_func`, of which only the hash is stored. Pass scorer=ScarScorer(..., "
        "formatting_func=...) to Selection.load."
    )


def _column_names(columns: Mapping[str, str] | Sequence[str]) -> tuple[str, str]:
    if isinstance(columns, Mapping):
        if set(columns) != {"instruction", "response"}:
            raise ValueError(f'`columns` must have the keys "instruction" and "response", got {sorted(columns)}.')
        columns = columns["instruction"], columns["response"]
    if isinstance(columns, str) or len(columns) != 2:
        raise ValueError(f"`columns` must be two column names, instruction and response, got {columns!r}.")
    if columns[0] == columns[1]:
        raise ValueError(f"`columns` must name two different columns, instruction and response, got {columns[0]!r} twice.")
    return columns[0], columns[1]
