"""Rows as `map` and `filter` of datasets hand them over: one or many, as objects, Arrow tables or data frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets.formatting.formatting import LazyBatch, LazyRow

from .formats import CHAT, formats_of
from .pairs import PairReader


def as_columns(given: Any, reader: PairReader) -> tuple[dict[str, Sequence[Any]], bool]:
    """
    Read one row or a batch of rows as columns.

    Args:
        given (`Mapping`, `pa.Table` or data frame of pandas or polars): what a function of `map` or `filter` is called with.
        reader ([`~scar_hf.rows.pairs.PairReader`]): knows which columns hold texts, which tell a row from a batch.

    Returns:
        `tuple(dict, bool)`: columns of n values, and whether it was a batch; a row makes columns of one value.

    Raises:
        `ValueError`: if it is none of these.
    """
    if isinstance(given, pa.Table):
        return given.to_pydict(), True
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # a data frame, by what pandas and polars have
        columns = given.to_dict(as_series=False) if hasattr(given, "with_columns") else given.to_dict("list")
        return {name: [_plain(value) for value in values] for name, values in columns.items()}, True
    if not isinstance(given, Mapping):
        raise ValueError(f"Expected whole rows, got {type(given).__name__}: call it without input_columns.")
    is_batch = isinstance(given, LazyBatch) or (not isinstance(given, LazyRow) and _holds_columns(given, reader))
    return {name: given[name] if is_batch else [given[name]] for name in given}, is_batch


def add_scores(given: Any, name: str, scores: np.ndarray, is_batch: bool) -> Any:
    """
    Give scores back in the kind that a function of `map` was called with.

    Args:
        given: as for [`as_columns`].
        name (`str`): of the column.
        scores (`np.ndarray` of shape `(n,)`, float32): NaN where a row has none.
        is_batch (`bool`): from [`as_columns`].

    Returns:
        Of a table or data frame the same with one column more, else a `dict` of that column.
    """
    column = pa.array(scores, mask=~np.isfinite(scores))
    if isinstance(given, pa.Table):
        return given.append_column(name, column)
    if hasattr(given, "with_columns"):
        import polars

        return given.with_columns(polars.from_arrow(column).alias(name))
    if hasattr(given, "assign"):
        return given.assign(**{name: column.to_pandas(types_mapper=pd.ArrowDtype).set_axis(given.index)})
    # `Dataset.map` takes the type of a column from the first rows, of which none may have a score. An array has a type; that of
    # Arrow, which `map` takes for single rows, has nulls too.
    if isinstance(given, LazyRow):
        return {name: column}
    typed = isinstance(given, LazyBatch) or any(hasattr(value, "dtype") for value in given.values())
    values: Any = scores if typed else column.to_pylist()
    return {name: values if is_batch else values[0]}


def _holds_columns(given: Mapping[str, Any], reader: PairReader) -> bool:
    """Tell columns of texts or conversations from one row: a stream hands over both as plain objects."""
    names = reader.needed(list(given))
    values = [given[name] for name in (names or list(given)) if given[name] is not None]
    if not values or not all(isinstance(value, (list, tuple, np.ndarray)) for value in values):
        return False
    # A row may hold a conversation, which is a list of messages, or of texts where conversations are.
    chats = {name for known in formats_of(list(given)) if known.kind == CHAT for name in known.columns}
    texts = [given[name] for name in names or () if name in chats]
    return not any(len(value) and isinstance(value[0], Mapping) for value in values) and not any(
        value is not None and len(value) and isinstance(value[0], str) for value in texts
    )


def _plain(value: Any) -> Any:
    """A cell of a data frame as Python has it: lists for arrays, and nothing where there is nothing."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    return None if isinstance(value, float) and value != value else value
