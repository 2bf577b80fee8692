"""Handles the rows that `Dataset.map` and `Dataset.filter` pass: one or many, as dictionaries, Arrow tables or data frames."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets.formatting.formatting import LazyBatch, LazyRow

from ..files import columns_of
from ._callers import called_by_map
from .formats import CHAT, formats_of
from .pairs import PairReader

_ARRAYS = (list, tuple, np.ndarray)


def as_columns(given: Any, reader: PairReader) -> tuple[dict[str, list[Any]], bool]:
    """
    Read one row or a batch of rows as columns.

    Args:
        given (`Mapping`, `pa.Table`, or a pandas or polars data frame): the argument that `map` or `filter` passes.
        reader ([`~scar_hf.rows.pairs.PairReader`]): names the text columns, whose values tell a row from a batch.

    Returns:
        `tuple(dict, bool)`:
            the columns that the reader needs, as plain Python, n values each (one for a single row); and whether `given` was
            a batch.

    Raises:
        `ValueError`: if `given` has another type, or its columns match no format.
    """
    if isinstance(given, pa.Table):
        return columns_of(given), True
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # a pandas or polars data frame
        columns = given.to_dict(as_series=False) if hasattr(given, "with_columns") else given.to_dict("list")
        return {name: [plain(value) for value in values] for name, values in columns.items()}, True
    if not isinstance(given, Mapping):
        raise ValueError(f"Expected whole rows, got {type(given).__name__}. Call `map` or `filter` without `input_columns`.")
    # Other columns, such as images, are neither decoded nor copied.
    columns = {name: plain(given[name]) for name in reader.needed(list(given)) or given}
    is_batch = isinstance(given, LazyBatch) or (not isinstance(given, LazyRow) and _holds_columns(columns, given, reader))
    return {name: value if is_batch else [value] for name, value in columns.items()}, is_batch


def plain(value: Any) -> Any:
    """Convert a value of a formatted dataset to plain Python: arrays become lists, NaN becomes `None`."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and value != value else value


def add_scores(given: Any, name: str, scores: np.ndarray, is_batch: bool) -> Any:
    """
    Return scores in the type that `map` passed to its function.

    Args:
        given: see [`as_columns`].
        name (`str`): name of the score column.
        scores (`np.ndarray` of shape `(n,)`, float32): NaN for rows without a score.
        is_batch (`bool`): from [`as_columns`].

    Returns:
        A table or data frame with the score column appended, or a `dict` with that column alone.
    """
    column = score_column(scores)
    if isinstance(given, pa.Table):
        return given.append_column(name, column)
    if hasattr(given, "with_columns"):
        import polars

        return given.with_columns(polars.Series(name, column))
    if hasattr(given, "assign"):
        return given.assign(**{name: column.to_pandas(types_mapper=pd.ArrowDtype).set_axis(given.index)})
    if called_by_map():
        # `Dataset.map` infers the type of a column from its first rows, which may all lack a score. Arrow values have a
        # type even if they are null.
        return {name: list(column) if is_batch else column}
    values = column.to_pylist()
    return {name: values if is_batch else values[0]}


def score_column(scores: np.ndarray) -> pa.Array:
    """Convert scores to a column, with null instead of NaN, which readers would take for a number."""
    return pa.array(scores, type=pa.float32(), mask=~np.isfinite(scores))


def _holds_columns(columns: Mapping[str, Any], given: Mapping[str, Any], reader: PairReader) -> bool:
    """Tell a batch from a single row, from the needed columns of a plain dictionary: streams pass both as such."""
    values = [value for value in columns.values() if value is not None]
    if not values or not all(isinstance(value, (list, tuple)) for value in values):
        return False
    # In a single row, a conversation is a list of messages, or a list of texts in a conversation column.
    chats = {name for known in formats_of(list(given)) if known.kind == CHAT for name in known.columns}
    talks = [columns[name] for name in chats if columns.get(name) is not None]
    if not any(map(len, values)):
        # An empty conversation is a row: `datasets` passes no empty batches, only users do.
        return not talks and all(isinstance(value, _ARRAYS) and not len(value) for value in given.values())
    texts = talks if reader.formatting_func is None else []
    return not any(len(value) and _is_message(value[0]) for value in values) and not any(
        len(value) and isinstance(value[0], str) for value in texts
    )


def _is_message(value: Any) -> bool:
    """Return whether a value is a message rather than a conversation in datasets' old layout, an object of lists."""
    return isinstance(value, Mapping) and not any(isinstance(value.get(name), _ARRAYS) for name in ("role", "from"))
