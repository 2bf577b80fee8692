"""Batches of rows: lists of objects from JSON and CSV, Arrow tables from columnar formats."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, Json

Batch: TypeAlias = list[dict[str, Any]] | pa.Table
# Maximum number of bytes of a row. No instruction is that long, but a small compressed file can hold such a row.
MAX_ROW = 64_000_000
# A batch ends after this number of bytes, even if it has few rows.
BATCH_BYTES = 256_000_000
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
# Overhead of a list item, in bytes.
_ITEM = 8

_MIXED = "a column has values of different types, which a table cannot hold"


class LongRow(dict[str, Any]):
    """
    Placeholder for a row that is too long for memory; `reason` describes why. A batch that contains one is a list of
    objects, even for columnar files.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reason = f"the row is longer than {MAX_ROW:,} bytes"


def columns_of(batch: Batch) -> dict[str, list]:
    """
    Turn a batch into columns of Python values.

    Args:
        batch (`Batch`): the rows.

    Returns:
        `dict[str, list]`: values by column; for objects, the keys in order of first appearance, `None` for missing values.
    """
    if isinstance(batch, list):
        names = dict.fromkeys(name for row in batch for name in row)
        return {name: [row.get(name) for row in batch] for name in names}
    return {field.name: _python_values(column, field.type) for field, column in zip(batch.schema, batch.columns, strict=True)}


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    """Return the rows of a batch as objects."""
    if isinstance(batch, list):
        return batch
    columns = columns_of(batch)
    if not columns:
        return [{} for _ in range(batch.num_rows)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def take(batch: Batch, indices: Sequence[int] | np.ndarray) -> Batch:
    """
    Select rows of a batch.

    Args:
        batch (`Batch`): the rows.
        indices (`Sequence[int]` or `np.ndarray`): positions in `[0, len(batch))`, in the requested order.

    Returns:
        `Batch`: a batch of the same kind.
    """
    positions = np.asarray(indices, dtype=np.int64)
    if isinstance(batch, list):
        return [batch[i] for i in positions]
    return batch.take(pa.array(positions))


def add_columns(batch: Batch, columns: Mapping[str, pa.Array]) -> Batch:
    """
    Append columns, replacing existing ones of the same name. The given batch is not modified.

    Args:
        batch (`Batch`): the rows.
        columns (`Mapping[str, pa.Array]`): the columns by name, one value per row.

    Returns:
        `Batch`: a batch of the same kind.

    Raises:
        `ValueError`: if the number of values differs from the number of rows.
    """
    for name, column in columns.items():
        if len(column) != len(batch):
            raise ValueError(f"The column {name!r} has {len(column):,} values for {len(batch):,} rows.")
    if isinstance(batch, list):
        values = columns_of(pa.table(dict(columns)))
        kept = ({name: value for name, value in row.items() if name not in columns} for row in batch)
        return [row | {name: values[name][i] for name in values} for i, row in enumerate(kept)]
    fields = [field for field in batch.schema if field.name not in columns]
    arrays = [batch.column(field.name) for field in fields] + list(columns.values())
    fields += [pa.field(name, column.type) for name, column in columns.items()]
    return pa.Table.from_arrays(arrays, schema=_with_features(fields, batch.schema))


def select_columns(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the named columns of a table, in this order."""
    selected = table.select(list(columns))
    return selected.replace_schema_metadata(_with_features(list(selected.schema), table.schema).metadata)


def schema_of(batch: Batch, mixed_as_json: bool = False) -> pa.Schema:
    """
    Return the types of a batch's columns.

    Args:
        batch (`Batch`): the rows.
        mixed_as_json (`bool`, *optional*, defaults to `False`):
            Whether a column with values of different types becomes a [`~datasets.Json`] feature, which holds any.

    Returns:
        `pa.Schema`: the schema of a table; for objects, inferred from their values.

    Raises:
        `ValueError`: if a column has values of different types.
    """
    if not isinstance(batch, list):
        return batch.schema
    fields, mixed = [], []
    for name, values in columns_of(batch).items():
        try:
            fields.append(pa.field(name, pa.array(values).type))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            if not mixed_as_json:
                raise ValueError(f"{_MIXED}; the column {name!r}: {error}") from error
            fields.append(pa.field(name, pa.null()))
            mixed.append(name)
    return with_json(pa.schema(fields), mixed)


def merge_schemas(a: pa.Schema | None, b: pa.Schema, mixed_as_json: bool = False) -> pa.Schema:
    """
    Return a schema that fits the rows of both schemas, such as float for int and float.

    Args:
        a (`pa.Schema`, *optional*): the schema so far.
        b (`pa.Schema`): the schema to add.
        mixed_as_json (`bool`, *optional*, defaults to `False`): see [`schema_of`].

    Returns:
        `pa.Schema`: the columns of `a`, then those only in `b`.

    Raises:
        `ValueError`: if a column has values of different types.
    """
    if a is None or a.equals(b, check_metadata=True):
        return b
    mixed = []
    if mixed_as_json:
        mixed = [name for name in a.names if name in b.names and not _unite(a.field(name), b.field(name))]
        a, b = with_json(a, [n for n in mixed if n in a.names]), with_json(b, [n for n in mixed if n in b.names])
    try:
        merged = pa.unify_schemas([a, b], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{_MIXED}: {error}") from error
    return _with_features(list(merged), a, b)


def with_json(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """Return the schema with the named columns as [`~datasets.Json`] features."""
    if not names:
        return schema
    features = Features.from_arrow_schema(schema)
    return Features(features | {name: Json() for name in names}).arrow_schema


def without_empty_objects(schema: pa.Schema) -> pa.Schema:
    """Turn columns with empty objects, which Parquet cannot hold, into JSON."""
    return with_json(schema, [field.name for field in schema if _has_empty_object(field.type)])


def _has_empty_object(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return not kind.num_fields or any(_has_empty_object(field.type) for field in kind)
    return pa.types.is_list(kind) and _has_empty_object(kind.value_type)


def _unite(a: pa.Field, b: pa.Field) -> bool:
    try:
        pa.unify_schemas([pa.schema([a]), pa.schema([b])], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def conform(batch: Batch, schema: pa.Schema) -> pa.Table:
    """
    Convert a batch to a table with exactly this schema; missing columns are null.

    Raises:
        `ValueError`: if the batch has other columns, or values that do not fit the types.
    """
    names = columns_of(batch) if isinstance(batch, list) else batch.column_names
    if extra := [name for name in names if name not in schema.names]:
        raise ValueError(f"there is a column {extra[0]!r}, but the schema has only {schema.names}")
    try:
        if isinstance(batch, list):
            encoded = {field.name for field in schema if isinstance(field.type, getattr(pa, "JsonType", ()))}
            rows = batch if not encoded else [_encoded(row, encoded) for row in batch]
            return pa.Table.from_pylist(rows, schema=schema)
        if batch.schema.equals(schema, check_metadata=True):
            return batch
        arrays = [
            batch.column(field.name).cast(field.type) if field.name in names else pa.nulls(len(batch), field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{_MIXED}: {error}") from error


def batched(rows: Iterable[tuple[dict[str, Any], int]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Group objects, given with their sizes in bytes, into lists of `size` objects, fewer if they are long."""
    batch: list[dict[str, Any]] = []
    held = 0
    for row, length in rows:
        if batch and (len(batch) == size or held + length > BATCH_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(row)
        held += length
    if batch:
        yield batch


def check_columns(columns: Sequence[str] | None, schema: pa.Schema, where: object) -> None:
    """Raise a `ValueError` unless all columns exist."""
    if missing := [name for name in columns or [] if name not in schema.names]:
        raise ValueError(f"{where} has no column {', '.join(map(repr, missing))}; its columns: {schema.names}.")


def no_rows(schema: pa.Schema) -> pa.Table:
    """Return an empty table with this schema."""
    return pa.Table.from_batches([], schema=schema)  # Schema.empty_table fails on lists of extension types


def rechunk(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Regroup rows into tables of `size` rows; the last may have fewer."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        start = 0
        while count + len(table) - start >= size:
            held.append(table.slice(start, size - count))
            yield pa.concat_tables(held)
            start += size - count
            held, count = [], 0
        if start < len(table):
            held.append(table.slice(start))
            count += len(table) - start
    if held:
        yield pa.concat_tables(held)


def _with_features(fields: Sequence[pa.Field], *origins: pa.Schema) -> pa.Schema:
    """Return a schema with the metadata of the first origin, in which the features of `datasets` are updated."""
    metadata: dict[bytes, bytes] = {}
    known: dict[tuple[str, pa.DataType], Any] = {}
    for origin in reversed(origins):
        metadata |= origin.metadata or {}
        features = _feature_metadata(origin).get("info", {}).get("features") or {}
        known |= {(name, origin.field(name).type): features[name] for name in origin.names if name in features}
    schema = pa.schema(fields, metadata=metadata)
    if not known:
        return schema
    content = next(filter(None, map(_feature_metadata, origins)))
    content["info"]["features"] = {
        field.name: known.get((field.name, field.type)) or Features.from_arrow_schema(pa.schema([field])).to_dict()[field.name]
        for field in fields
    }
    return schema.with_metadata(metadata | {b"huggingface": json.dumps(content).encode()})


def _feature_metadata(schema: pa.Schema) -> dict[str, Any]:
    return json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))


def _encoded(row: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Encode the values of `datasets.Json` features in a row as text."""
    return {name: json.dumps(value) if name in names and value is not None else value for name, value in row.items()}


def _python_values(column: pa.ChunkedArray, kind: pa.DataType) -> list:
    decode = _json_decoder(kind)
    return [decode(value) for value in column.to_pylist()] if decode else column.to_pylist()


def _json_decoder(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """Return a function that decodes `datasets.Json` features within a value; `None` if there are none."""
    if isinstance(kind, getattr(pa, "JsonType", ())):  # pyarrow < 19 lacks it
        return lambda value: None if value is None else json.loads(value)
    if pa.types.is_struct(kind):
        decoders = {field.name: decode for field in kind if (decode := _json_decoder(field.type))}
        return (lambda row: row and row | {k: f(row[k]) for k, f in decoders.items()}) if decoders else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        decode_item = _json_decoder(kind.value_type)
        return (lambda items: items and [decode_item(item) for item in items]) if decode_item else None
    return None


def batch_bytes(batch: Batch) -> int:
    """Estimate the bytes of a batch's texts."""
    return int(row_bytes(batch).sum()) if isinstance(batch, pa.Table) else sum(map(_object_bytes, batch))


def row_bytes(table: pa.Table) -> np.ndarray:
    """Return the bytes of each row of a table, with dictionaries expanded, as int64."""
    sizes = np.zeros(len(table), dtype=np.int64)
    for column in table.columns:
        sizes += _value_bytes(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    return sizes


def _value_bytes(values: pa.Array) -> np.ndarray:
    """Return the bytes of each value, with dictionaries expanded."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return _value_bytes(values.storage)
    if pa.types.is_dictionary(kind):
        lengths = np.append(_value_bytes(values.dictionary), 0)
        return lengths[pc.fill_null(values.indices.cast(pa.int64()), len(lengths) - 1).to_numpy(zero_copy_only=False)]
    if any(check(kind) for check in _TEXTS):
        return pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_struct(kind):
        return sum(map(_value_bytes, values.flatten()), np.zeros(len(values), dtype=np.int64))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        offsets = values.offsets.to_numpy().astype(np.int64)
        items = values.keys if pa.types.is_map(kind) else values.values
        of_items = _value_bytes(items) + (_value_bytes(values.items) if pa.types.is_map(kind) else 0) + _ITEM
        ends = np.concatenate([[0], np.cumsum(of_items)])
        return ends[offsets[1:]] - ends[offsets[:-1]]
    return np.full(len(values), values.nbytes // max(1, len(values)), dtype=np.int64)


def _object_bytes(value: Any) -> int:
    if isinstance(value, dict):
        return _ITEM + sum(len(key) + _object_bytes(item) for key, item in value.items())
    if isinstance(value, list):
        return _ITEM + sum(map(_object_bytes, value))
    return len(value) if isinstance(value, str) else _ITEM
