"""Read the rows to answer: instructions with human responses, filtered by length and drawn at random."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..rows.pairs import PairReader

# Columns of the data that are copied to the output.
KEPT_COLUMNS = ("source", "domain", "licence", "license", "category")


@dataclass(frozen=True)
class HumanRow:
    """
    One row to answer.

    Args:
        instruction, human (`str`): the texts.
        kept (`dict`): values of the columns that are copied to the output.
    """

    instruction: str
    human: str
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RowChoice:
    """
    Criteria for the rows to answer.

    Args:
        rows (`int`, *optional*): number of rows to draw at random; a larger number adds rows to the same draw. By default all.
        seed (`int`, *optional*, defaults to 0): seed of the draw.
        max_instruction_words, min_response_words, max_response_words (`int`, *optional*): limits of the lengths in words.

    Raises:
        `ValueError`: if a number is negative.
    """

    rows: int | None = None
    seed: int = 0
    max_instruction_words: int | None = None
    min_response_words: int | None = None
    max_response_words: int | None = None

    def __post_init__(self) -> None:
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"`rows` must be 1 or more, got {self.rows}.")

    def too_long_or_short(self, row: HumanRow) -> str | None:
        """Return the reason if the lengths of a row rule it out, otherwise `None`."""
        instruction, human = len(row.instruction.split()), len(row.human.split())
        if self.max_instruction_words is not None and instruction > self.max_instruction_words:
            return "the instruction is too long"
        if self.min_response_words is not None and human < self.min_response_words:
            return "the response is too short"
        if self.max_response_words is not None and human > self.max_response_words:
            return "the response is too long"
        return None


def read_human_rows(
    batches: Iterator[Mapping[str, Sequence[Any]]],
    reader: PairReader,
    choice: RowChoice,
    kept: Mapping[str, Any] | None = None,
) -> tuple[list[HumanRow], Counter[str]]:
    """
    Read the rows to answer.

    Args:
        batches (`Iterator[Mapping]`): columns by name.
        reader ([`~scar_hf.rows.pairs.PairReader`]): finds instruction and response.
        choice ([`RowChoice`]): selects the rows to answer.
        kept (`Mapping[str, Any]`, *optional*): constant columns to add, such as `{"source": "dolly"}`.

    Returns:
        `tuple(list[HumanRow], Counter)`: the rows, and the number of skipped rows by reason.

    Raises:
        `ValueError`: if no row has an instruction with a human response.
    """
    rows: list[HumanRow] = []
    passed_over: Counter[str] = Counter()
    read = 0
    for batch in batches:
        pairs = reader.read(batch)
        read += len(pairs)
        for i, pair in enumerate(pairs):
            own = {name: batch[name][i] for name in KEPT_COLUMNS if name in batch and batch[name][i] is not None}
            problem = pair.problem or (None if pair.instruction.strip() else "the instruction is empty")
            row = HumanRow(pair.instruction, pair.response, own | dict(kept or {}))
            problem = problem or choice.too_long_or_short(row)
            if problem is not None:
                passed_over[problem] += 1
            else:
                rows.append(row)
    if not read:
        raise ValueError("The data has no rows. Expected instructions with their human responses.")
    if not rows:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in passed_over.most_common())
        raise ValueError(f"None of {read:,} rows has an instruction with a human response to work from ({reasons}).")
    if choice.rows is not None:
        drawn = list(range(len(rows)))
        random.Random(choice.seed).shuffle(drawn)
        if len(rows) > choice.rows:
            passed_over["not drawn"] = len(rows) - choice.rows
        rows = [rows[i] for i in drawn[: choice.rows]]
    return rows, passed_over
