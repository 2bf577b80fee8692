"""Converts rows to the formats that TRL's `SFTTrainer` accepts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa
from datasets import Dataset, IterableDataset

from ..files import Batch, add_columns, columns_of
from .conversations import (
    CHAT_ROLES,
    RowError,
    Turns,
    begins_with_user,
    common_turns,
    extended,
    is_chat,
    turns_of,
    turns_of_text,
    whole_conversation,
)
from .formats import CHAT, PLAIN, PREFERENCE, TEXT, RowFormat
from .pairs import PairReader, format_of_row

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)
_PAIR, _MESSAGES, _TEXT = ("prompt", "completion"), ("messages",), ("text",)
_MESSAGE_TYPE = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


@dataclass(frozen=True)
class SftRows:
    """
    A plan for converting rows for TRL. Created by [`SftRows.of`].

    Args:
        reader ([`~scar_hf.rows.pairs.PairReader`]): reads the rows.
        formats (`Sequence[RowFormat]`): the formats that the columns match.
        written (`tuple[str, ...]`): the columns to write: `prompt` and `completion`, `messages`, or `text`.
        removed (`tuple[str, ...]`): columns to remove, because they are converted or TRL would read them instead.
        native (`bool`): whether the data already has the columns, so that only rows without values are converted.
        as_text (`bool`): whether prompts and completions are texts rather than messages.
    """

    reader: PairReader
    formats: Sequence[RowFormat]
    written: tuple[str, ...]
    removed: tuple[str, ...]
    native: bool
    as_text: bool

    @classmethod
    def of(cls, names: Sequence[str], reader: PairReader) -> "SftRows | None":
        """
        Plan the conversion of rows with these columns.

        Args:
            names (`Sequence[str]`): the data's columns.
            reader ([`~scar_hf.rows.pairs.PairReader`]): reads the rows.

        Returns:
            [`SftRows`], or `None` for tokenised rows, which need no conversion.

        Raises:
            `ValueError`: if the columns match no format, or the reader has a `formatting_func`.
        """
        if "input_ids" in names:
            return None
        if reader.formatting_func is not None:
            raise ValueError(
                "Rows read by a `formatting_func` cannot be converted. Pass the function to SFTTrainer, or apply it with `map`."
            )
        needed = reader.needed(names) or []
        formats = reader.formats(names)
        first = formats[0].kind
        by_itself = reader.columns is None and first != PREFERENCE
        if by_itself and all(name in names for name in _PAIR):
            written: tuple[str, ...] = _PAIR
        elif by_itself and ("messages" in names or first == CHAT):
            written = _MESSAGES
        elif by_itself and ("text" in names or first == TEXT):
            written = _TEXT
        else:
            written = _PAIR
        native = by_itself and all(name in names for name in written)
        removed = [name for name in ("conversations", "prompt", *(() if native else needed)) if name not in written]
        # A column cannot mix texts and messages, so prompts of several formats are all written as messages.
        as_text = written == _TEXT or (native and written == _PAIR and len(formats) == 1)
        return cls(reader, formats, written, tuple(dict.fromkeys(removed)), native, as_text)

    def convert(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """
        Convert one row.

        Args:
            row (`Mapping`): a row with all its columns.

        Returns:
            `dict[str, Any]`: one value for each name in `written`; empty texts if the row cannot be read.
        """
        keeps = self.native and all(row.get(name) is not None for name in self.written)
        if keeps and self.written == _MESSAGES and is_chat(row["messages"]):
            return {"messages": [_message(message) for message in row["messages"]]}
        if keeps and self.as_text:
            return {name: row[name] for name in self.written}
        try:
            before, after = self._turns(row)
        except RowError:
            before, after = [("user", "")], [("assistant", "")]
        if self.written == _MESSAGES:
            return {"messages": _messages([*before, *after])}
        if self.written == _TEXT:
            return {"text": _rendered([*before, *after])}
        if self.as_text:
            return {"prompt": _joined(before), "completion": _joined(after)}
        return {"prompt": _messages(before), "completion": _messages(after)}

    def convert_batch(self, batch: Batch) -> Batch:
        """
        Convert a batch of rows from a file.

        Args:
            batch (`Batch`): the rows.

        Returns:
            `Batch`: of the same type, with all other columns unchanged.
        """
        if isinstance(batch, list):
            # JSON objects may match formats that no earlier row matched.
            seen = replace(self, formats=self.reader.formats(list(columns_of(batch))) or self.formats)
            return [{n: value for n, value in row.items() if n not in self.removed} | seen.convert(row) for row in batch]
        complete = self.native and all(batch.column(name).null_count == 0 for name in self.written)
        complete = complete and (self.written != _MESSAGES or _has_roles(batch.schema.field("messages").type))
        others = batch.drop_columns([name for name in self.removed if name in batch.column_names])
        if complete and (self.as_text or self.written == _MESSAGES):
            return others
        read = dict.fromkeys((*self.written, *(name for known in self.formats for name in known.columns)))
        columns = columns_of(batch.select([name for name in read if name in batch.column_names]))
        rows = [self.convert(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
        kinds = {name: self._type(batch, name) for name in self.written}
        return add_columns(others, {name: pa.array([row[name] for row in rows], type=kinds[name]) for name in self.written})

    def _type(self, table: pa.Table, name: str) -> pa.DataType:
        own = table.schema.field(name).type if self.native else None
        if own is not None and (self.as_text or (self.written == _MESSAGES and _has_roles(own))):
            return own
        return pa.string() if self.written == _TEXT else _MESSAGE_TYPE

    def _turns(self, row: Mapping[str, Any]) -> tuple[Turns, Turns]:
        """Split a row into the turns before the response and the response."""
        known = format_of_row(row, self.formats)
        values = [row.get(name) for name in known.columns]
        if known.kind == PREFERENCE:
            chosen, rejected = (
                None if value is None else whole_conversation(values[2] if len(values) > 2 else None, value)
                for value in values[:2]
            )
            start = common_turns(chosen or [], rejected)
            scored = (rejected if self.reader.preference == "rejected" else chosen) or []
            return scored[:start], scored[start:]
        if known.kind == PLAIN:
            instruction, response = values[:2]
            for more in values[2:]:
                instruction = extended(instruction, more)
            after = turns_of(response) if is_chat(response) else [("assistant", response)]
            if begins_with_user(after):
                return _split(after)
            return (turns_of(instruction) if is_chat(instruction) else [("user", instruction)]), after
        turns = turns_of(values[0]) if known.kind == CHAT else turns_of_text(str(values[0])) or []
        return _split([*turns])


def to_sft_format(ds: AnyDataset, columns: Mapping[str, str] | Sequence[str] | None = None, **settings: Any) -> AnyDataset:
    """
    Convert rows to a format that TRL's `SFTTrainer` accepts, with the role names that chat templates use.

    Conversations become `messages`. Separate instruction and response columns (Alpaca, Dolly) and the chosen response of a
    preference set become `prompt` and `completion` messages. Formats that `SFTTrainer` accepts stay unchanged.

    Args:
        ds ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): the rows.
        columns (`dict` or `tuple`, *optional*): the two columns of an unknown format, as in [`~scar_hf.ScarScorer`].
        settings: further arguments of [`~scar_hf.rows.pairs.PairReader`].

    Returns:
        [`~datasets.Dataset`] or [`~datasets.IterableDataset`]: the same rows. Other columns are kept, except those that
        `SFTTrainer` would read instead of the new ones.

    Raises:
        `ValueError`: if the columns match no format.

    Example:

    ```python
    >>> SFTTrainer(model, train_dataset=to_sft_format(scar_select(ds, k=0.1)))
    ```
    """
    return for_trl(ds, PairReader(columns, **settings))


def for_trl(ds: Any, reader: PairReader) -> Any:
    """Apply [`to_sft_format`] with an existing reader."""
    names = ds.column_names or list(next(iter(ds), {}))
    plan = SftRows.of(names, reader) if names else None
    if plan is None or (plan.native and not set(plan.removed) & set(names) and _stays(ds, plan)):
        return ds
    return ds.with_format(None).map(
        plan.convert, remove_columns=[name for name in names if name in (*plan.removed, *plan.written)]
    )


def _stays(ds: Dataset | IterableDataset, plan: SftRows) -> bool:
    """Return whether no row needs conversion; `False` for a stream that may mix formats."""
    if not isinstance(ds, Dataset):
        kinds = None if ds.features is None else ds.features.arrow_schema
        typed = kinds is None or plan.written != _MESSAGES or _has_roles(kinds.field("messages").type)
        return typed and len(plan.formats) == 1
    if any(ds.data.column(name).null_count for name in plan.written):
        return False
    first = next(iter(ds.with_format(None)), None)
    return first is None or plan.written == _PAIR or plan.convert(first) == {name: first[name] for name in plan.written}


def _message(message: Any) -> Any:
    """Rename a message's keys and role to the names that chat templates use; keep its other keys."""
    if not isinstance(message, Mapping):
        return message
    role = message.get("role") or message.get("from")
    content = message.get("value") if message.get("content") is None else message["content"]
    more = {name: value for name, value in message.items() if name not in ("role", "from", "content", "value")}
    return {"role": CHAT_ROLES.get(role, role) if isinstance(role, str) else role, "content": content, **more}


def _has_roles(kind: pa.DataType) -> bool:
    """Return whether a column holds messages with role and content."""
    struct = kind.value_type if hasattr(kind, "value_type") else None
    return (
        struct is not None and pa.types.is_struct(struct) and all(struct.get_field_index(n) >= 0 for n in ("role", "content"))
    )


def _messages(turns: Turns) -> list[dict[str, str]]:
    return [{"role": role, "content": text if isinstance(text, str) else ""} for role, text in turns]


def _joined(turns: Turns) -> str:
    return "\n\n".join(text for _, text in turns if isinstance(text, str))


def _split(turns: Turns) -> tuple[Turns, Turns]:
    """Split a conversation before its last response."""
    last = next((i for i in reversed(range(len(turns))) if turns[i][0] == "assistant"), len(turns))
    return turns[:last], turns[last:]


def _rendered(turns: Turns) -> str:
    """Render turns with Alpaca headings, which scar-hf can read back."""
    headings = {"user": "Instruction", "assistant": "Response", "system": "System"}
    return "\n\n".join(f"### {headings[role]}:\n{text or ''}" for role, text in turns if role in headings)
