"""Finds the calling dataset in the call stack, because `map` and `filter` do not pass it to their functions."""

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
    """Walk up the call stack, innermost frame first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def calling_dataset() -> Dataset | None:
    """Return the dataset whose `filter` is running, from the frame of `filter` or of the wrapper that fingerprints it."""
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
    """Return the numbers of the rows that `Dataset.filter` is currently filtering; works in worker processes too."""
    for frame in frames():
        code = frame.f_code
        if code.co_filename == datasets.arrow_dataset.__file__ and code.co_name == "get_indices_from_mask_function":
            indices, i = frame.f_locals.get("indices"), frame.f_locals.get("i")
            if indices is None:
                return None
            return list(indices) if i is None else [indices[i]]
    return None


def called_by_map() -> bool:
    """Return whether the caller is `Dataset.map`, which writes to Arrow, rather than a stream or the user."""
    for frame in frames():
        if frame.f_code.co_filename == datasets.iterable_dataset.__file__:
            return False
        if frame.f_code.co_filename == datasets.arrow_dataset.__file__ and frame.f_code.co_name == "_map_single":
            return True
    return False


def is_fingerprinting() -> bool:
    """Return whether the object is being pickled only to compute a fingerprint."""
    names = ("hash", "update")
    return any(f.f_code.co_filename == datasets.fingerprint.__file__ and f.f_code.co_name in names for f in frames())


def calling_stream() -> Any:
    """Return the source of the calling `IterableDataset`, an iterable of keys and rows, or `None` if no stream calls."""
    for frame in frames():
        if frame.f_code.co_filename == datasets.iterable_dataset.__file__:
            found = frame.f_locals.get("self")
            if isinstance(found, FilteredExamplesIterable):
                return found.ex_iterable
    return None


def from_the_start(stream: Any) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a stream's source from the start, without advancing the stream itself."""
    return (row for _, row in stream.shard_data_sources(num_shards=1, index=0))
