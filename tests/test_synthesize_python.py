"""What `synthesize` returns in Python: the columns of the triples."""

import json

import pytest
from datasets import Dataset

from scar_hf.synthesis import Completion, synthesize, synthesize_files
from scar_hf.synthesis.synthesizing import load_prompts
from scar_hf.training import load_triples

ROWS = [
    {
        "instruction": "How is a pot made?",
        "response": "Clay, wheel, kiln.",
        "category": None,
        "source": "pots",
        "licence": None,
    },
    {"instruction": "What do bees eat?", "response": "Nectar, pollen.", "category": "open", "source": None, "licence": "MIT"},
]


class Model:
    """A backend that gives every request the same good answer."""

    model = "small"
    concurrency = 1

    async def complete(self, messages, sampling):
        return Completion("This is a fresh answer that everyone can follow.", "stop")

    async def close(self):
        pass

    def describe(self):
        return {"model": self.model}


def test_a_column_that_the_first_row_lacks_is_kept():
    made = synthesize(Dataset.from_list(ROWS), Model(), progress=False)
    assert made["category"][:] == [None, "open"] and made["source"][:] == ["pots", None]
    assert made["licence"][:] == [None, "MIT"] and "domain" not in made.column_names


@pytest.mark.parametrize("kind", ["direct", "referenced"])
def test_triples_of_one_kind_are_written_as_parquet(tmp_path, kind):
    made = synthesize(Dataset.from_list(ROWS), Model(), kinds=[kind], progress=False)
    made.to_parquet(tmp_path / "triples.parquet")
    triples = load_triples(tmp_path / "triples.parquet")
    assert triples == load_triples(made) and [set(triple.responses) for triple in triples] == [{kind, "human"}] * 2


def test_lines_of_a_file_have_the_same_columns(tmp_path):
    data, output = tmp_path / "human.jsonl", tmp_path / "triples.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    synthesize_files(data, output, [Model()], load_prompts(kinds=["direct"]), progress=False)
    first, second = (json.loads(line) for line in output.read_text().splitlines())
    assert list(first) == list(second) and first["referenced"] is None and first["category"] is None
    assert [triple.source for triple in load_triples(output)] == ["pots", "unknown"]
