"""Reads instruction sets on disk and on the Hub in shards and batches, and writes them atomically."""

from .batches import Batch, LongRow, add_columns, columns_of, merge_schemas, schema_of, take, without_empty_objects
from .names import file_named, without_local_folders
from .reading import Shard, dataset_of, is_arrow_folder, open_shards, read_dataset
from .streams import INPUT_FORMATS, INPUT_SUFFIXES, OUTPUT_FORMATS, OUTPUT_SUFFIXES, atomic_write, suffix_of
from .text import read_json_rows
from .writing import check_output, write_dataset, write_shard

__all__ = [
    "Batch",
    "INPUT_FORMATS",
    "INPUT_SUFFIXES",
    "LongRow",
    "OUTPUT_FORMATS",
    "OUTPUT_SUFFIXES",
    "Shard",
    "add_columns",
    "check_output",
    "columns_of",
    "dataset_of",
    "file_named",
    "is_arrow_folder",
    "merge_schemas",
    "open_shards",
    "atomic_write",
    "read_dataset",
    "read_json_rows",
    "schema_of",
    "suffix_of",
    "take",
    "without_empty_objects",
    "without_local_folders",
    "write_dataset",
    "write_shard",
]
