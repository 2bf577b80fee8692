"""The call that a predicate of `Dataset.filter` is in: `datasets` does not tell it which dataset, nor which rows."""

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import datasets.arrow_dataset
import datasets.fingerprint
import datasets.iterable_dataset
from datasets import Dataset
from datasets.iterable_dataset import FilteredExamplesIterable


def frames() -> Iterator[FrameType]:
    """The frames of the call, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def calling_dataset() -> Dataset | None:
    """The dataset whose `filter` is being called, in its body or in the wrapper that makes its fingerprint."""
    for frame in frames():
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file == datasets.arrow_dataset.__file__ and name == "filter":
            found = frame.f_locals.get("self")
        elif file == datasets.fingerprint.__file__ and name == "wrapper":
            function = frame.f_locals.get("func")
            found = frame.f_locals.get("dataset") if getattr(function, "__name__", "") == "filter" else None
        else:
            continue
        if isinstance(found, Dataset):
            return found
    return None


def calling_numbers() -> list[int] | None:
    """The numbers of the rows that `Dataset.filter` is asking about, in a worker too."""
    for frame in frames():
        code = frame.f_code
        if code.co_filename == datasets.arrow_dataset.__file__ and code.co_name == "get_indices_from_mask_function":
            indices, i = frame.f_locals.get("indices"), frame.f_locals.get("i")
            if indices is None:
                return None
            return list(indices) if i is None else [indices[i]]
    return None


def is_fingerprinting() -> bool:
    """Whether this object is being pickled for the sake of a hash."""
    names = ("hash", "update")
    return any(f.f_code.co_filename == datasets.fingerprint.__file__ and f.f_code.co_name in names for f in frames())


def calling_stream() -> Any:
    """What the `IterableDataset` that is asking reads its rows from, an iterable of keys and rows; `None` if none is."""
    for frame in frames():
        if frame.f_code.co_filename == datasets.iterable_dataset.__file__:
            found = frame.f_locals.get("self")
            if isinstance(found, FilteredExamplesIterable):
                return found.ex_iterable
    return None


def from_the_start(stream: Any) -> Iterator[dict[str, Any]]:
    """The rows of such a stream from its first one, read apart, so that it stays where it is."""
    return (row for _, row in stream.shard_data_sources(num_shards=1, index=0))
