"""Handles the rows that `Dataset.map` and `Dataset.filter` pass: one or many, as dictionaries, Arrow tables or data frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets.formatting.formatting import LazyBatch, LazyRow

from ._callers import called_by_map
from .formats import CHAT, formats_of
from .pairs import PairReader


def as_columns(given: Any, reader: PairReader) -> tuple[dict[str, Sequence[Any]], bool]:
    """
    Read one row or a batch of rows as columns.

    Args:
        given (`Mapping`, `pa.Table`, or a pandas or polars data frame): the argument that `map` or `filter` passes.
        reader ([`~scar_hf.rows.pairs.PairReader`]): names the text columns, whose values tell a row from a batch.

    Returns:
        `tuple(dict, bool)`: columns of n values (one value for a single row), and whether `given` was a batch.

    Raises:
        `ValueError`: if `given` has another type.
    """
    if isinstance(given, pa.Table):
        return given.to_pydict(), True
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # a pandas or polars data frame
        columns = given.to_dict(as_series=False) if hasattr(given, "with_columns") else given.to_dict("list")
        return {name: [_plain(value) for value in values] for name, values in columns.items()}, True
    if not isinstance(given, Mapping):
        raise ValueError(f"Expected whole rows, got {type(given).__name__}. Call `map` or `filter` without `input_columns`.")
    is_batch = isinstance(given, LazyBatch) or (not isinstance(given, LazyRow) and _holds_columns(given, reader))
    return {name: given[name] if is_batch else [given[name]] for name in given}, is_batch


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


def _holds_columns(given: Mapping[str, Any], reader: PairReader) -> bool:
    """Tell a batch from a single row: a stream passes both as plain dictionaries."""
    names = reader.needed(list(given))
    values = [given[name] for name in (names or list(given)) if given[name] is not None]
    if not values or not all(isinstance(value, (list, tuple, np.ndarray)) for value in values):
        return False
    # In a single row, a conversation is a list of messages, or a list of texts in a conversation column.
    chats = {name for known in formats_of(list(given)) if known.kind == CHAT for name in known.columns}
    texts = [given[name] for name in names or () if name in chats]
    return not any(len(value) and isinstance(value[0], Mapping) for value in values) and not any(
        value is not None and len(value) and isinstance(value[0], str) for value in texts
    )


def _plain(value: Any) -> Any:
    """Convert a data frame's cell to plain Python: arrays become lists, NaN becomes `None`."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    return None if isinstance(value, float) and value != value else value
