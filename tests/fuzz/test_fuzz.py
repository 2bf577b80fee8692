"""Any rows, bytes or damage: rows in are rows scored and skipped, and errors are in words."""

import contextlib
import gzip
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scar_hf import ScarScorer
from scar_hf.files import open_shards
from scar_hf.rows.pairs import PairReader
from scar_hf.rows.source import rows_of_shard
from scar_hf.runs import select_files, verify_manifest
from scar_hf.training.saving import save_ranker

# `make fuzz` sets SCAR_HF_FUZZ to some thousands; the suite takes a short turn.
LONG = "SCAR_HF_FUZZ" in os.environ
EXAMPLES = int(os.environ.get("SCAR_HF_FUZZ", "20"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=not LONG)
PLAIN = ("instruction", "output", "response", "input", "prompt", "completion", "question", "answer")
COLUMNS = ("messages", "conversations", "text", *PLAIN)
texts = st.text(max_size=20) | st.sampled_from(["user", "gpt", "text"])
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), texts)
keys = st.sampled_from(["role", "content", "from", "value", "type", "text", "x"])
values = st.recursive(scalars, lambda one: st.lists(one, max_size=3) | st.dictionaries(keys, one, max_size=4), max_leaves=8)
roles = st.sampled_from(["user", "assistant", "system", "tool"])
message = st.fixed_dictionaries({"role": roles, "content": st.text(max_size=12) | values})
rows = st.dictionaries(st.sampled_from(COLUMNS), values | st.lists(message, max_size=4), max_size=5)
FILES = st.sampled_from(["d.jsonl", "d.jsonl.gz", "d.json", "d.csv", "d.parquet"])
PARTS = st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])


@pytest.fixture(scope="module")
def small(tiny_ranker) -> ScarScorer:
    return ScarScorer.from_pretrained(str(tiny_ranker), device="cpu", dtype="float32", backend="torch")


@pytest.fixture(scope="module")
def ranker(tmp_path_factory, tiny_model, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "ranker"
    save_ranker(tiny_model(vocab_size=len(tokenizer)), tokenizer, folder)
    return folder


@given(rows, st.sampled_from(["first", "last", "all"]))
@fuzz
def test_any_row_is_read_or_has_a_reason(row, turn):
    reader = PairReader(turn=turn)
    try:
        reader.needed(list(row))
    except ValueError:
        return
    found = reader.read({name: [value] for name, value in row.items()})
    assert len(found) == 1
    if found[0].problem is None:
        assert found[0].pairs and all(isinstance(text, str) for pair in found[0].pairs for text in pair)
    found[0].digest()


@given(st.lists(rows, min_size=1, max_size=6), st.sampled_from(["o.jsonl", "o.parquet", "out"]))
@fuzz
def test_rows_in_are_rows_scored_and_skipped(tmp_path_factory, small, several, name):
    folder = tmp_path_factory.mktemp("run")
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in [{"instruction": "q", "output": "a"}, *several]))
    result = select_files(data, folder / name, small, all_rows=True, cache=False, progress=False)
    scored = np.isfinite(result.scored.scores)
    assert result.rows == len(several) + 1 == int(scored.sum()) + len(result.scored.skipped) and scored[0]
    assert set(np.flatnonzero(~scored).tolist()) == set(result.scored.skipped)
    assert all(check.passed is not False for check in verify_manifest(folder / name))
    read = [row for shard in open_shards(data) for row in rows_of_shard(shard, small.reader)]
    for i in np.flatnonzero(scored):
        alone = small.score(*read[i].pairs[0])
        assert abs(float(result.scored.scores[i]) - alone) < 1e-4


@given(
    st.binary(max_size=30),
    st.floats(0, 1),
    st.sampled_from(["d.jsonl", "d.jsonl.gz", "d.json", "d.csv", "d.parquet"]),
    st.booleans(),
)
@fuzz
def test_files_cut_or_corrupted_anywhere_are_errors_in_words(tmp_path_factory, noise, place, name, cut):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path_factory.mktemp("file") / name
    plain = [{"instruction": f"q {i}", "output": f"a {i}"} for i in range(20)]
    if name == "d.parquet":
        pq.write_table(pa.Table.from_pylist(plain), path)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in plain)
        text = {"d.json": json.dumps(plain), "d.csv": "instruction,output\n" + "q,a\n" * 20}.get(name, lines).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    content = path.read_bytes()
    at = int(place * len(content))
    path.write_bytes(content[:at] if cut else content[:at] + noise + content[at + len(noise) :])
    with contextlib.suppress(ValueError):
        assert sum(len(batch) for shard in open_shards(path) for batch in shard.batches()) >= 0


def check_refused_or_unchanged(folder: Path, ranker: Path) -> None:
    """Check that a changed copy of a ranker, which is removed, is refused in words or scores as before."""
    found = []
    try:
        for place in (folder, ranker):
            scorer = ScarScorer.from_pretrained(str(place), device="cpu", dtype="float32", backend="torch")
            found.append(scorer.score("Explain what bees eat, in 2 sentences.", "Bees eat nectar & pollen."))
    except ValueError:
        assert not found, "the ranker itself is refused"
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert abs(found[0] - found[1]) < 0.1


@given(PARTS, st.floats(0, 1), st.integers(0, 255) | st.none())
@fuzz
def test_a_ranker_damaged_anywhere_is_refused_or_scores_as_before(tmp_path_factory, ranker, name, place, byte):
    """One byte is another, or the file ends there."""
    folder = shutil.copytree(ranker, tmp_path_factory.mktemp("damaged") / "ranker")
    content = bytearray((folder / name).read_bytes())
    at = int(place * (len(content) - 1))
    content[at:] = b"" if byte is None else bytes([byte]) + content[at + 1 :]
    (folder / name).write_bytes(content)
    check_refused_or_unchanged(folder, ranker)


# Of a config: numbers of any size and sign, other types, nesting.
config_values = st.one_of(st.integers(-(2**70), 2**70), st.integers(-3, 100), st.floats(), st.none(), st.booleans(), values)


@given(st.sampled_from(["", "encoder_config"]), st.integers(0, 10**6), config_values)
@fuzz
def test_a_config_with_any_value_is_refused_or_scores_as_before(tmp_path_factory, ranker, part, which, value):
    folder = shutil.copytree(ranker, tmp_path_factory.mktemp("hostile") / "ranker")
    config = json.loads((folder / "config.json").read_text())
    changed = config[part] if part else config
    name = sorted(changed)[which % len(changed)]
    changed[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    check_refused_or_unchanged(folder, ranker)
