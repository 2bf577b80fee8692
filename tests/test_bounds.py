"""What a file or a row may do to the machine: fill its memory, talk to its terminal, hang its workers."""

import gzip
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import pipeline

from scar_hf import ScarScorer
from scar_hf.cli import main
from scar_hf.cli.terminal import printable
from scar_hf.files import open_shards
from scar_hf.files import text as text_files
from scar_hf.rows.pairs import RowPairs
from scar_hf.scoring.chunks import cut_chunks

HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\u202eevil\x9b31m"


@pytest.fixture(scope="module")
def small(tiny_ranker) -> ScarScorer:
    return ScarScorer.from_pretrained(str(tiny_ranker), device="cpu", dtype="float32")


def test_rows_cannot_command_the_terminal(tmp_path, small, write_jsonl, capsys):
    rows = [{"instruction": f"{HOSTILE} {i}", "response": f"{HOSTILE} {i}", "source": HOSTILE} for i in range(6)]
    data, out = write_jsonl(rows), tmp_path / "[/x] [bold].jsonl"
    common = ["-k", "2", "--model", small.model_name]
    assert main(["select", str(data), "-o", str(out), "--group-by", "source", *common]) == 0
    assert main(["explain", str(data), "--row", "1", *common]) == 0
    assert main(["verify", str(out)]) == 0
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said) and "\\x1b" in said and "[/x]" in said
    assert printable("a\nb\tc") == "a\nb\tc" and printable("\ud800") == "\ufffd"


def test_reasons_that_are_published_hold_no_path(tmp_path, small, write_jsonl):
    rows = [
        {"instruction": f"Tell of {word}.", "response": f"All about {word} is well known. " * 3} for word in ("bees", "tides")
    ]
    data = write_jsonl(rows)
    test = write_jsonl(rows[:1], "test.jsonl")
    assert main(["select", str(data), "-k", "1", "-o", str(tmp_path / "o.jsonl"), "--evaluation", str(test), "--quiet",
                 "--model", small.model_name]) == 0  # fmt: skip
    listed = (tmp_path / "o.jsonl.dropped.jsonl").read_text()
    assert "of test.jsonl" in listed and str(tmp_path) not in listed


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json", "d.csv"])
def test_a_row_of_endless_length_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_ROW", 100_000)
    text = "x" * 300_000
    content = {"d.json": f'[{{"a": "{text}"}}]', "d.csv": f"a\n{text}\n"}.get(name, f'{{"a": "{text}"}}\n').encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(ValueError, match=r"longer than 100,000 (bytes|characters)"):
        list(open_shards(tmp_path / name)[0].batches())


def test_a_dictionary_of_one_long_text_does_not_fill_the_memory(tmp_path):
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"instruction": ["q"] * 2000, "response": texts}), tmp_path / "d.parquet", compression="zstd")
    assert (tmp_path / "d.parquet").stat().st_size < 100_000
    code = (
        "import resource, sys\n"
        "from scar_hf.files import open_shards\n"
        "rows = sum(len(batch) for batch in open_shards(sys.argv[1])[0].batches())\n"
        "print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d.parquet")], capture_output=True, text=True, check=True
    )
    rows, megabytes = map(int, found.stdout.split())
    assert rows == 2000 and megabytes < 1500


def test_chunks_end_by_the_length_of_their_texts_too():
    rows = [RowPairs((("q", str(i) + "x" * 9_000_000),)) for i in range(9)]
    assert [len(chunk.rows) for chunk in cut_chunks(rows)] == [4, 4, 1]


def test_a_scorer_that_was_used_scores_in_forked_workers(small):
    pairs = [(f"Say {i}.", f"It is {i}.") for i in range(4)]
    expected = small.score(*zip(*pairs, strict=True))

    class Scored:
        def __len__(self):
            return len(pairs)

        def __getitem__(self, i):
            return small.score(*pairs[i])

    loader = DataLoader(Scored(), num_workers=1, multiprocessing_context="fork", timeout=60)
    np.testing.assert_allclose([float(score) for score in loader], expected, atol=1e-5)


def test_the_pipeline_takes_a_dataset(tiny_ranker, small, rows):
    ds = Dataset.from_list(rows)
    ranker = pipeline("scar-ranking", model=str(tiny_ranker), device="cpu")
    found = [result["score"] for result in ranker(ds)]
    np.testing.assert_allclose(found, small.score(ds["instruction"][:], ds["response"][:]), atol=1e-5)
