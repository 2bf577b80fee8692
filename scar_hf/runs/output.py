"""Writes the requested rows of the shards, with their scores, to files that appear complete or not at all."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..files import (
    Batch,
    Shard,
    add_columns,
    merge_schemas,
    schema_of,
    take,
    without_empty_objects,
    write_shard,
)
from ..files.batches import no_rows
from ..manifest.replacing import check_replaceable
from ..manifest.sidecars import hash_file
from ..rows.batches import score_column
from ..rows.sft import SftRows
from ..scoring.datasets import ScoredRows
from ..scoring.scorer import SCORE_COLUMN
from ..selecting.explanations import Explainer
from .observations import Observations

_ROWS = 1000
# The only file of an output folder without shards; `load_dataset` and the Hub take its stem as the split.
PARQUET_NAME = "train.parquet"


class OutputWriter:
    """
    Writes rows of shards with their scores.

    Args:
        shards (`Sequence[Shard]`): the scored shards.
        counts (`Sequence[int]`): number of rows of each shard.
        scored ([`~scar_hf.scoring.datasets.ScoredRows`]): the scores of all rows.
        written (`np.ndarray`): numbers of the rows to write.
        explainer ([`~scar_hf.selecting.explanations.Explainer`], *optional*): explains each row.
        observations ([`~scar_hf.runs.observations.Observations`], *optional*): examines the rows.
        sft ([`~scar_hf.rows.sft.SftRows`], *optional*): converts the rows for TRL; by default they stay as they are.
        safe_csv (`bool`, *optional*, defaults to `False`): as for [`~scar_hf.files.text.format_rows`].
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        counts: Sequence[int],
        scored: ScoredRows,
        written: np.ndarray,
        explainer: Explainer | None = None,
        observations: Observations | None = None,
        sft: SftRows | None = None,
        safe_csv: bool = False,
    ) -> None:
        self.sft, self.safe_csv = sft, safe_csv
        self.shards, self.scored, self.explainer, self.observations = shards, scored, explainer, observations
        self.bar: tqdm | None = None
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.wanted = np.zeros(len(scored.scores), dtype=bool)
        self.wanted[written] = True

    def write(self, target: Path, layout: str, bar: tqdm | None = None) -> list[dict[str, Any]]:
        """
        Write everything.

        Args:
            target (`Path`): a file or a folder.
            layout (`str`): for a folder: `"shards"`, one file per shard with the same name, or `"parquet"`, a single file.
            bar (`tqdm`, *optional*): a progress bar that counts the rows read.

        Returns:
            `list[dict]`: name, SHA-256 and number of rows of each file.

        Raises:
            `ValueError`: if the data has changed since it was scored, or the format cannot hold it.
        """
        self.bar = bar
        every = range(len(self.shards))
        if target.suffix:
            schema = self._schema(every) if target.suffix == ".parquet" else None
            digest = write_shard(target, (batch for i in every for batch in self._batches(i)), schema, self.safe_csv)
            return [{"name": target.name, "sha256": digest, "rows": int(self.wanted.sum())}]
        if layout == "parquet":
            (target / PARQUET_NAME).parent.mkdir(parents=True, exist_ok=True)
            return self.write(target / PARQUET_NAME, layout, bar)
        return [self._write_part(target, i) for i in every if self._rows(i) or (i == 0 and not self.wanted.any())]

    def read(self, parts: Sequence[int] | None = None) -> None:
        """Read the rows for the observations alone, if the output already exists."""
        for i in range(len(self.shards)) if parts is None else parts:
            for _ in self._batches(i):
                pass

    def _write_part(self, target: Path, i: int) -> dict[str, Any]:
        """Write a shard's rows to a file of the same name, unless an earlier run did so and stored the digest next to it."""
        path = target / self.shards[i].name
        mark = path.with_name(f".{path.name}.sha256")
        if path.is_file() and mark.is_file():
            digest = mark.read_text()
            if hash_file(path) == digest:
                if self.observations is not None:
                    self.read([i])
                return {"name": self.shards[i].name, "sha256": digest, "rows": self._rows(i)}
        schema = self._schema([i]) if path.suffix == ".parquet" else None
        digest = write_shard(path, self._batches(i), schema, self.safe_csv)
        mark.write_text(digest)
        return {"name": self.shards[i].name, "sha256": digest, "rows": self._rows(i)}

    def _rows(self, i: int) -> int:
        return int(self.wanted[self.starts[i] : self.starts[i + 1]].sum())

    def _batches(self, i: int) -> Iterator[Batch]:
        start = int(self.starts[i])
        for batch in self.shards[i].batches(_ROWS):
            stop = start + len(batch)
            if stop > self.starts[i + 1]:
                break
            if self.observations is not None:
                self.observations.see(batch, start)
            numbers = np.flatnonzero(self.wanted[start:stop])
            yield add_columns(self._taken(batch, numbers), self._columns(start, stop, numbers))
            start = stop
            if self.bar is not None:
                self.bar.update(len(batch))
        else:
            if start == self.starts[i + 1]:
                return
        raise ValueError(f"The number of rows of {self.shards[i].name} changed while it was scored. Start again.")

    def _taken(self, batch: Batch, numbers: np.ndarray) -> Batch:
        """Return the rows of a batch that are to be written, converted if necessary."""
        rows = take(batch, numbers)
        return rows if self.sft is None else self.sft.convert_batch(rows)

    def _columns(self, start: int, stop: int, numbers: np.ndarray) -> dict[str, pa.Array]:
        columns = {SCORE_COLUMN: score_column(self.scored.scores[start:stop])}
        if self.explainer is not None:
            columns |= self.explainer.columns(start, stop)
        picked = pa.array(numbers)
        return {name: values.take(picked) for name, values in columns.items()}

    def _schema(self, parts: Sequence[int]) -> pa.Schema:
        """
        Return the output's schema; for JSON objects, which have no types, infer it from the rows to write. Values that a
        table cannot hold are stored as JSON, so a run does not fail after scoring.
        """
        schema: pa.Schema | None = None
        for i in parts:
            start = int(self.starts[i])
            for batch in self.shards[i].batches(_ROWS):
                written = self._taken(batch, np.flatnonzero(self.wanted[start : start + len(batch)]))
                schema = merge_schemas(schema, schema_of(written, mixed_as_json=True), isinstance(batch, list))
                start += len(batch)
                if isinstance(batch, pa.Table):
                    break
        empty = no_rows(without_empty_objects(schema or pa.schema([])))
        return schema_of(add_columns(empty, self._columns(0, 0, np.empty(0, dtype=np.int64))))


@contextmanager
def staged(output: Path, plan: Any) -> Iterator[Path]:
    """
    Yield a hidden path next to the output to build it at, and move it into place at the end. Leftovers of a killed run
    with the same plan are reused; those of other runs are removed.

    Args:
        output (`Path`): the final path of the output.
        plan: a JSON-compatible description of the run.

    Returns:
        `Iterator[Path]`: the path to build at, which has the output's name.

    Raises:
        `ValueError`: if another process is writing the same output, or the hidden folder does not belong to a run.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = output.with_name(f".{output.name}.partial")
    known = (".lock", ".plan")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in known):
        raise ValueError(f"{folder} is needed to build the output, but was not created by a run. Move it elsewhere.")
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"Another process is writing {output}. Wait for it, or choose another output.") from error
    with lock:
        key = sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()
        mark = folder / ".plan"
        if not mark.is_file() or mark.read_text() != key:
            for left in folder.iterdir():
                if left.name != ".lock":
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            mark.write_text(key)
        for left in [file for file in folder.rglob(".*.part") if file.is_file()]:
            left.unlink()  # an incomplete file of a killed run
        try:
            yield folder / output.name
        except ValueError:  # invalid data will fail in the next run too
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _put_in_place(folder / output.name, output)
        shutil.rmtree(folder, ignore_errors=True)  # Windows leaves the lock file; the next run reuses it


def _put_in_place(built: Path, output: Path) -> None:
    if built.is_dir():
        for mark in built.rglob(".*.sha256"):
            mark.unlink()
        if output.is_dir():
            check_replaceable(output)
            old = built.with_name(".replaced")
            os.replace(output, old)
    os.replace(built, output)
