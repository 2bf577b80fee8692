"""The call that a predicate of `Dataset.filter` is in: `datasets` does not tell it which dataset, nor which rows."""

import sys
from collections.abc import Iterator
from types import FrameType

import datasets.arrow_dataset
import datasets.fingerprint
import datasets.iterable_dataset
from datasets import Dataset


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


def is_streaming() -> bool:
    """Whether an `IterableDataset` is asking."""
    return any(frame.f_code.co_filename == datasets.iterable_dataset.__file__ for frame in frames())
