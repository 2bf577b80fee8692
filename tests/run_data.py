"""Rows, shards and the contents of folders, for tests of runs over files."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def many_rows(n: int, seed: int = 0) -> list[dict]:
    words = ["bees", "rivers", "bread", "glass", "chess", "wool", "of", "and", "the", "in", "they", "are", "made", "known"]
    draw = random.Random(seed)

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=length))

    return [{"instruction": f"{text(5)}?", "output": text(draw.randint(1, 40)), "id": i} for i in range(n)]


def write_shards(folder: Path, rows: list[dict], shards: int) -> Path:
    folder.mkdir()
    for i in range(shards):
        part = rows[i * len(rows) // shards : (i + 1) * len(rows) // shards]
        pq.write_table(pa.Table.from_pylist(part), folder / f"part-{i:02}.parquet", row_group_size=500)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
