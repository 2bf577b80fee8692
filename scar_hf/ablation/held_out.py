"""Instructions held out of training, with answers by people or models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from datasets import Dataset

from ..rows.pairs import PairReader, RowPairs
from ..rows.source import rows_of

# Kinds of answers in triples. Other rows have one kind, or one for each value of a column.
_KINDS = ("direct", "referenced", "human")
_HELD_OUT = "held out"


@dataclass(frozen=True)
class HeldOut:
    """
    Held-out instructions and answers, on which tuned models are measured.

    Args:
        instructions (`list[str]`): n instructions.
        answers (`dict[str, list[str | None]]`): n answers for each kind, such as `"direct"` and `"human"`; `None` for a
            missing answer.
    """

    instructions: list[str]
    answers: dict[str, list[str | None]]

    def __len__(self) -> int:
        return len(self.instructions)

    def identity(self) -> str:
        """Return the SHA-256 of all texts."""
        digest = sha256()
        every: list[list[Any]] = [self.instructions, *self.answers.values()]
        for texts in every:
            for text in texts:
                digest.update(b"\0" if text is None else text.encode("utf-8", "surrogatepass") + b"\1")
        return digest.hexdigest()


def hold_triples(rows: Sequence[Mapping[str, Any]], count: int) -> HeldOut:
    """
    Take held-out data from triples written by `scar-hf synthesize`.

    Args:
        rows (`Sequence[Mapping]`): `instruction` and any of `direct`, `referenced` and `human`, texts or `{model: text}`.
        count (`int`): number of triples to take; those with the most kinds of answers come first.

    Returns:
        [`HeldOut`].

    Raises:
        `ValueError`: if there are fewer than two such rows.
    """
    found = []
    for row in rows:
        texts = {kind: _text(row.get(kind)) for kind in _KINDS}
        if isinstance(row.get("instruction"), str) and row["instruction"].strip() and any(texts.values()):
            found.append((row["instruction"], texts))
    if len(found) < 2:
        raise ValueError(
            "The evaluation data must have at least two rows with an `instruction` and a `direct`, `referenced` or `human` "
            f"answer, as scar-hf synthesize writes them; it has {len(found)}."
        )
    found.sort(key=lambda item: -sum(text is not None for text in item[1].values()))
    found = found[:count]
    answers = {kind: [texts[kind] for _, texts in found] for kind in _KINDS}
    return HeldOut([x for x, _ in found], {kind: texts for kind, texts in answers.items() if any(texts)})


def hold_out(ds: Dataset, count: int, group_by: str | None = None, reader: PairReader | None = None) -> tuple[HeldOut, Dataset]:
    """
    Hold rows out of the data, chosen by a hash of their content.

    Args:
        ds ([`~datasets.Dataset`]): the rows.
        count (`int`): number of rows to hold out; at most a third of the usable rows are taken.
        group_by (`str`, *optional*): a column, such as `source`, whose values are the kinds of answers.
        reader ([`~scar_hf.rows.pairs.PairReader`], *optional*): how rows are read.

    Returns:
        `tuple([`HeldOut`], [`~datasets.Dataset`])`: the held-out rows and the remaining rows.
    """
    rows = list(rows_of(ds, reader or PairReader()))
    usable = [i for i, row in enumerate(rows) if row.problem is None]
    usable.sort(key=lambda i: sha256(b"held out" + rows[i].digest()).digest())
    taken = sorted(usable[: min(count, len(usable) // 3)])
    if len(taken) < 2:
        raise ValueError(f"There are {len(usable)} rows that can be read: too few to hold some out. Pass evaluation data.")
    kinds = [_HELD_OUT] * len(taken) if group_by is None else [str(value) for value in ds.select(taken)[group_by]]
    answers: dict[str, list[str | None]] = {
        kind: [rows[i].response if own == kind else None for i, own in zip(taken, kinds, strict=True)]
        for kind in sorted(set(kinds))
    }
    held = HeldOut([rows[i].instruction for i in taken], answers)
    return held, ds.select(np.setdiff1d(np.arange(len(ds)), taken))


def without_held_out(ds: Dataset, held: HeldOut, reader: PairReader) -> Dataset:
    """Return the rows whose instructions are not held out."""
    known = set(map(_normal, held.instructions))

    def is_new(row: RowPairs) -> bool:
        return not any(isinstance(x, str) and _normal(x) in known for x, _ in row.pairs)

    return ds.select([i for i, row in enumerate(rows_of(ds, reader)) if is_new(row)])


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


def _text(value: Any) -> str | None:
    """Return a text; of texts by several models, the first by model name."""
    if isinstance(value, Mapping):
        value = next((value[name] for name in sorted(value) if isinstance(value[name], str) and value[name].strip()), None)
    return value if isinstance(value, str) and value.strip() else None
