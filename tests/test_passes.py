"""How often `scar-hf select` reads its input: once each to hash, to score, to write, and for diversity, to compare."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scar_hf.cli import main
from scar_hf.files import Shard

ROWS = [
    {"instruction": f"What is {i % 700}?", "response": f"It is {'a word ' * (i % 9)}{i % 700}.", "source": "ab"[i % 3 == 0]}
    for i in range(2500)
]
STRATIFIED, CURATED = ["--stratify-by", "source"], ["--drop-duplicates", "--drop-near-duplicates", "0.8"]


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"data{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=1000)
        return path
    with gzip.open(path, "wt") if suffix.endswith(".gz") else path.open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in ROWS)
    return path


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """Names each complete pass over a shard."""
    seen: list[str] = []
    batches, hashes = Shard.batches, Shard.hashes

    def counted(self, rows=1000, columns=None):
        count = 0
        for batch in batches(self, rows, columns):
            count += len(batch)
            yield batch
        if count == len(ROWS):
            seen.append("rows" if columns is None else ",".join(columns))

    monkeypatch.setattr(Shard, "batches", counted)
    monkeypatch.setattr(Shard, "hashes", lambda self: seen.append("hash") or hashes(self))
    return seen


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize(
    ("criteria", "most"),
    [
        ([], 3),
        (STRATIFIED, 3),
        (CURATED, 3),
        ([*STRATIFIED, *CURATED], 3),
        # The texts that diversity compares are known only after curation and quotas.
        (["--diversity", "0.3"], 4),
        ([*STRATIFIED, *CURATED, "--diversity", "0.3"], 4),
    ],
)
def test_passes_over_the_input(suffix, criteria, most, passes, tiny_ranker, tmp_path):
    data, out = write(tmp_path, suffix), tmp_path / "out.jsonl"
    ranker = ["--model", str(tiny_ranker), "--device", "cpu"]
    assert main(["select", str(data), "-k", "0.1", "-o", str(out), "--group-by", "source", *criteria, *ranker]) == 0
    assert len(out.read_text().splitlines()) == 250
    assert passes[0] == "hash" and len(passes) == most, passes
    if suffix == ".parquet":  # only the pass that writes reads all columns
        assert passes.count("rows") == 1
