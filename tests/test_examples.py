"""The examples of docstrings run; `ds` in them is an instruction set. Those that need a network or files of a user do not."""

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

import scar_hf
from scar_hf import ScarScorer, scar_filter, scar_rank, scar_score, scar_select

ROOT = Path(__file__).parent.parent
# What a docstring names that is not here: models and datasets on the Hub, a login, files of the user.
ELSEWHERE = re.compile(
    r"load_dataset\(|push_to_hub|http://|\"[\w.-]+/[\w.-]+\"|SFTTrainer|DPOTrainer|data\.jsonl|triples\.jsonl|my-ranker|stream\b"
    r"|model=\"scar-ranker\"|AutoModel\.from_pretrained\(\"scar-ranker\"\)"
)
FENCE = re.compile(r"^ *```\w*$", re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def docstrings() -> Iterator[tuple[str, str, str]]:
    for folder in ("scar_hf", "modeling", "hub_cards", "trainer_callbacks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            inside = file.relative_to(ROOT).with_suffix("").parts
            module = ".".join(inside if folder == "scar_hf" else ("scar_hf", *inside)).removesuffix(".__init__")
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                    text = ast.get_docstring(node) or ""
                    if ">>>" in text:
                        yield module, getattr(node, "name", module), text


EXAMPLES = list(docstrings())
RUNNABLE = [(module, name, text) for module, name, text in EXAMPLES if not ELSEWHERE.search("".join(re.findall(">>>.*", text)))]


def test_most_examples_run():
    assert len(RUNNABLE) >= 25 and len(RUNNABLE) >= len(EXAMPLES) // 2


@pytest.mark.parametrize(("module", "name", "text"), RUNNABLE, ids=[f"{module}:{name}" for module, name, _ in RUNNABLE])
def test_an_example_runs(module, name, text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if module.startswith("scar_hf.trainer_callbacks"):
        pytest.importorskip("trl")
    if re.search(r"report|compar", module):
        pytest.importorskip("matplotlib")
    rows = [
        {"instruction": f"What is {i}?", "response": f"It is {'a word ' * (i % 9)}{i}.", "source": "web" if i % 3 else "book"}
        for i in range(24)
    ]
    scorer = ScarScorer.from_pretrained("scar-ranker", device="cpu")
    names = vars(scar_hf) | {"scar_rank": scar_rank, "scar_select": scar_select, "scar_filter": scar_filter, "np": np}
    names |= {"scar_score": scar_score, "ds": Dataset.from_list(rows), "model": scorer.model, "tokenizer": scorer.tokenizer}
    examples = doctest.DocTestParser().get_examples(FENCE.sub("", text))
    for example in examples:
        example.options.setdefault(doctest.ELLIPSIS, True)
        example.options.setdefault(doctest.NORMALIZE_WHITESPACE, True)
    globs = vars(importlib.import_module(module)) | names
    test = doctest.DocTest(examples, dict(globs), name, module, 0, text)
    printed: list[str] = []
    # An example without an output only has to run: what it would show varies, or is long.
    runner = doctest.DocTestRunner(QuietChecker(), verbose=False, optionflags=FLAGS)
    result = runner.run(test, out=printed.append)
    assert result.failed == 0, "".join(printed)


class QuietChecker(doctest.OutputChecker):
    def check_output(self, want: str, got: str, flags: int) -> bool:
        return not want or super().check_output(want, got, flags)
