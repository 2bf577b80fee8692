"""Load and split training data: triples of direct, referenced and human responses to an instruction."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from ..files import read_dataset, read_json_rows, suffix_of
from .augmentation import Augmentation
from .negatives import Negatives

MEMBERS = ("direct", "referenced", "human")
# Rating of a response if the reply of the judge could not be parsed.
UNREADABLE = float("-inf")


@dataclass
class Triple:
    """
    One instruction and its responses by kind. A kind may have several responses; one is drawn per epoch.

    Args:
        instruction (`str`): the instruction.
        responses (`dict[str, list[str]]`): texts of `direct`, `referenced` and `human`, without absent kinds.
        ratings (`dict[str, float]`): quality by kind in [0, 9], the mean of helpfulness and correctness; may be empty.
        source, domain (`str`): origin of the row; metrics are computed for each.
        group (`str`, *optional*): rows of the same group, such as those made from one human text, stay in the same split.
    """

    instruction: str
    responses: dict[str, list[str]]
    ratings: dict[str, float] = field(default_factory=dict)
    source: str = "unknown"
    domain: str = "unknown"
    group: str | None = None


def load_triples(data: str | Path | Dataset | Iterable[Mapping[str, Any]]) -> list[Triple]:
    """
    Load triples from JSON Lines, JSON, Parquet, an Arrow folder, or rows in memory.

    Args:
        data (`str`, `Path`, [`~datasets.Dataset`] or an iterable of mappings):
            Rows with `instruction`, at least two of `direct`, `referenced` and `human` (each a text or `{model: text}`), and
            optionally `ratings` (`{kind: number}`; in a rated row, `None` excludes a response from ranked pairs), `source`,
            `domain` and `group`.

    Returns:
        `list[Triple]`: the rows with at least two kinds of response.

    Raises:
        `ValueError`: if a row has no instruction or a member of the wrong type, or if no row is left.
    """
    if isinstance(data, (str, Path)):
        name, path = str(data), Path(data)
        # Read row by row, because a table column cannot hold both texts and {model: text}.
        rows: Iterable[Mapping[str, Any]] = (
            read_json_rows(path) if suffix_of(path).startswith(".jsonl") and path.exists() else read_dataset(path)
        )
    else:
        name, rows = "the data", data
    triples = [_triple(row, f"{name}, row {i}") for i, row in enumerate(rows)]
    triples = [triple for triple in triples if len(triple.responses) >= 2]
    if not triples:
        raise ValueError(f"{name} has no row with at least two of direct, referenced and human responses.")
    return triples


def _triple(row: Mapping[str, Any], where: str) -> Triple:
    instruction = row.get("instruction")
    if not isinstance(instruction, str):
        raise ValueError(f"{where}: expected a text in `instruction`, got {instruction!r}; columns: {sorted(row)}.")
    responses: dict[str, list[str]] = {}
    for member in MEMBERS:
        value = row.get(member)
        if value is not None and not isinstance(value, (str, Mapping)):
            raise ValueError(f"{where}: `{member}` must be a text or {{model: text}}, got {type(value).__name__}.")
        given = value.values() if isinstance(value, Mapping) else [value]
        texts = [text for text in given if isinstance(text, str) and text.strip()]
        if texts:
            responses[member] = texts
    given_ratings = row.get("ratings") or {}
    ratings = {kind: float(value) for kind, value in given_ratings.items() if value is not None}
    unknown = set(ratings) - set(MEMBERS)
    if unknown or any(not 0 <= value <= 9 for value in ratings.values()):
        raise ValueError(f"{where}: `ratings` must map {', '.join(MEMBERS)} to numbers from 0 to 9, got {ratings}.")
    if ratings:
        # In a judged row, a response whose rating could not be read is excluded from ranked pairs.
        ratings |= {kind: UNREADABLE for kind in responses if given_ratings.get(kind, UNREADABLE) is None}
    group = row.get("group")
    return Triple(
        instruction,
        responses,
        ratings,
        row.get("source") or "unknown",
        row.get("domain") or "unknown",
        None if group is None else str(group),
    )


def split_by_prompt(triples: Sequence[Triple], shares: Sequence[float], seed: int = 13) -> list[list[Triple]]:
    """
    Split triples so that all rows with the same instruction, human response or group are in the same part.

    Args:
        triples (`Sequence[Triple]`): the rows.
        shares (`Sequence[float]`): share of the instructions in each part; they sum to 1 (the paper: .8, .1, .1).
        seed (`int`, *optional*, defaults to 13): seed of the split.

    Returns:
        `list[list[Triple]]`: one list per share, in the order of the input.
    """
    if abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"`shares` must sum to 1, got {list(shares)}.")
    parts: list[list[Triple]] = [[] for _ in shares]
    for triple, key in zip(triples, _together(triples), strict=True):
        position = int.from_bytes(hashlib.sha256(f"{seed}\n{key}".encode()).digest()[:8], "big") / 2**64
        part = 0
        while part < len(shares) - 1 and position >= shares[part]:
            position -= shares[part]
            part += 1
        parts[part].append(triple)
    return parts


def unrelated(triples: Iterable[Triple], others: Iterable[Triple]) -> list[Triple]:
    """
    Leave out the triples that share their instruction, human response or group with others.

    Args:
        triples, others (`Iterable[Triple]`): the rows, and those to compare with.

    Returns:
        `list[Triple]`: the rest, in their order.
    """
    known = {key for triple in others for key in _links(triple)}
    return [triple for triple in triples if known.isdisjoint(_links(triple))]


def same_instruction(text: str) -> str:
    """Return the key of an instruction: its words in lower case."""
    return " ".join(text.lower().split())


def _links(triple: Triple) -> list[str]:
    """Return what links a row to others, its instruction first."""
    group = [] if triple.group is None else [f"group\n{triple.group}"]
    return [same_instruction(triple.instruction), *(f"human\n{text}" for text in triple.responses.get("human", ())), *group]


def _together(triples: Sequence[Triple]) -> list[str]:
    """Return a key for each row, equal for rows linked by instruction, human response or group."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    firsts = []
    for triple in triples:
        keys = _links(triple)
        for key in keys:
            # The smaller key becomes the root, so that the order of the rows does not matter.
            low, high = sorted((root(keys[0]), root(key)))
            parent[high] = low
        firsts.append(keys[0])
    return [root(key) for key in firsts]


class TripleDataset(torch.utils.data.Dataset):
    """
    Triples for training. Each epoch draws anew: the rows of sources with a quota, one text of each kind, negatives and
    augmentation. All draws depend only on (seed, epoch, position), so a resumed run sees the same data.

    Args:
        triples (`Sequence[Triple]`): the rows.
        rows_per_source (`dict[str, int]`, *optional*):
            Number of rows per epoch from a source; sources not named contribute all their rows, and rows are repeated if a
            source has too few. Rows are spread evenly over the instructions of the source, so that one instruction with
            hundreds of responses counts no more than another.
        augmentation ([`Augmentation`], *optional*): changes to the texts of a row.
        negatives (`dict[str, float]`, *optional*):
            Share of rows that get a negative of each kind; see [`~scar_hf.training.negatives.Negatives`]. Rows with only
            one kind of response always get one.
        seed (`int`, *optional*, defaults to 13): seed of all draws.
    """

    def __init__(
        self,
        triples: Sequence[Triple],
        rows_per_source: Mapping[str, int] | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 13,
        negatives: Mapping[str, float] | None = None,
    ) -> None:
        self.triples = list(triples)
        self.negatives = Negatives(
            negatives or {},
            [triple.source for triple in self.triples],
            [triple.instruction for triple in self.triples],
            [[text for texts in triple.responses.values() for text in texts] for triple in self.triples],
        )
        self.rows_per_source = dict(rows_per_source or {})
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        unknown = set(self.rows_per_source) - {triple.source for triple in self.triples}
        if unknown:
            raise ValueError(f"`rows_per_source` names sources that the data does not have: {sorted(unknown)}.")
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the rows of an epoch; called by the data loader of the trainer."""
        self.epoch = int(epoch)
        rng = random.Random(f"{self.seed}-{self.epoch}")
        by_source: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, triple in enumerate(self.triples):
            by_source[triple.source][triple.instruction].append(i)
        self._rows = []
        for source, prompts in by_source.items():
            available = sum(map(len, prompts.values()))
            self._rows += _spread(list(prompts.values()), self.rows_per_source.get(source, available), rng)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return the texts of a row (`None` for an absent member) and its ratings in the order of `MEMBERS`."""
        triple = self.triples[self._rows[position]]
        rng = random.Random(f"{self.seed}-{self.epoch}-{position}")
        texts = {member: rng.choice(triple.responses[member]) for member in MEMBERS if member in triple.responses}
        negative = self.negatives.draw(self._rows[position], rng, always=len(texts) == 1)
        if negative is None:
            # Do not combine with a negative, which may itself be a truncated response.
            texts = self.augmentation(texts, triple.domain, rng)
        row: dict[str, Any] = {"instruction": triple.instruction, "negative": negative}
        row.update({member: texts.get(member) for member in MEMBERS})
        row["ratings"] = [triple.ratings.get(member, float("nan")) for member in MEMBERS]
        return row

    def lengths(self) -> list[int]:
        """Return the length in characters of each row's longest response, for batches of similar lengths."""
        longest = [max(len(t) for texts in triple.responses.values() for t in texts) for triple in self.triples]
        return [longest[i] for i in self._rows]


def _spread(prompts: list[list[int]], quota: int, rng: random.Random) -> list[int]:
    """Draw `quota` rows, taking prompts in turn, and the rows of each prompt in random order."""
    drawn: list[int] = []
    while len(drawn) < quota:
        queues = [rng.sample(rows, len(rows)) for rows in prompts]
        while any(queues) and len(drawn) < quota:
            waiting = [queue for queue in queues if queue]
            rng.shuffle(waiting)
            drawn += [queue.pop() for queue in waiting[: quota - len(drawn)]]
    return drawn
