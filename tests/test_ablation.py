"""Ablations: a grid of fine-tunes that goes on where it was killed, and the numbers that come out of it."""

import ast
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from transformers import AutoTokenizer

from scar_hf.ablation import (
    AblationSettings,
    HeldOut,
    ablate,
    cells_of,
    compare_cells,
    hold_out,
    result_of,
    run_grid,
    sentence_of,
)
from scar_hf.ablation.constraints import CONSTRAINTS, constrained_prompts, verify
from scar_hf.ablation.grid import read_grid
from scar_hf.ablation.problems import PROBLEMS, passes
from scar_hf.ablation.tuning import training_rows
from scar_hf.cli import main
from scar_hf.rows.pairs import PairReader

ROOT = Path(__file__).parent.parent
COMMAND = ["-k", "0.25", "--methods", "random", "longest", "everything", "--budgets", "steps", "--seeds", "1", "--steps", "2"]
COMMAND += ["--batch-size", "2", "--prompts", "6", "--constraints", "4", "--max-new-tokens", "6", "--max-length", "96"]
COMMAND += ["--dtype", "float32", "--group-by", "source"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("rows") / "data.jsonl"
    rows = [
        {"instruction": f"Name thing {i}.", "response": f"{'A ' * (i % 7)}thing, number {i}.", "source": "ab"[i % 2]}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def command(data: str, model: str, folder: Path) -> list[str]:
    return ["ablate", data, "--model", model, "-o", str(folder), *COMMAND]


def table(folder: Path) -> dict:
    numbers = json.loads((folder / "ablation.json").read_text())
    for cell in numbers["cells"]:
        (cell["training"] or {}).pop("seconds", None)
    return numbers


def test_a_killed_grid_goes_on_and_gives_the_same_table(data, tiny_lm, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    cells = killed / "cells"
    with subprocess.Popen([sys.executable, "-m", "scar_hf", *command(data, tiny_lm, killed)], env=env, **quiet) as process:
        try:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline and len(list(cells.glob("*.json"))) < 2:
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
    assert main(command(data, tiny_lm, whole)) == 0
    before = {file.name: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    assert len(before) >= 2
    # However far it came before the signal, the last cells are missing.
    for name in [name for name in before if "everything" in name]:
        (cells / name).unlink()
        del before[name]
    capsys.readouterr()
    assert main(command(data, tiny_lm, killed)) == 0
    assert "against random" in capsys.readouterr().out
    assert all((cells / name).stat().st_mtime_ns == when for name, when in before.items())
    assert table(killed) == table(whole)
    page = (killed / "ablation.html").read_text()
    assert "SCAR against random rows" not in page, "SCAR is not among the methods"
    assert "Longest" not in page and "longest, k = 0.25" in page and "<script" not in page
    assert (killed / "ablation" / "steps-nll-a.png").read_bytes()[:4] == b"\x89PNG"
    numbers = table(whole)
    assert numbers["missing"] == 0 and {row["measure"] for row in numbers["comparisons"]} >= {"nll:a", "nll:b", "constraints"}
    steps = {cell["training"]["steps"] for cell in numbers["cells"] if cell["training"]}
    rows = {cell["cell"]["method"]: cell["training"]["rows"] for cell in numbers["cells"] if cell["training"]}
    assert steps == {2} and rows == {"random": 8, "longest": 8, "everything": 34}


def test_a_folder_holds_one_grid_and_equal_epochs_take_more_steps_for_more_rows(data, tiny_lm, tmp_path):
    rows = load_dataset("json", data_files=data, split="train")
    given = {"prompts": 4, "constraints": 0, "max_new_tokens": 4, "max_length": 64, "dtype": "float32", "seeds": 1}
    settings = AblationSettings(tiny_lm, (0.2,), ("random", "everything"), ("epochs",), epochs=1, batch_size=4, **given)
    result = ablate(rows, settings, tmp_path, progress=False)
    steps = {cell["cell"]["method"]: cell["training"]["steps"] for cell in result.numbers["cells"] if cell["training"]}
    assert steps == {"random": 2, "everything": 9}
    other = AblationSettings(tiny_lm, (0.2,), ("random", "everything"), ("epochs",), epochs=2, batch_size=4, **given)
    with pytest.raises(ValueError, match="holds another grid: settings differ"):
        ablate(rows, other, tmp_path, progress=False)

    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
    more = AblationSettings(
        tiny_lm, (0.2,), ("random", "everything"), ("epochs",), epochs=1, batch_size=4, **given | {"seeds": 2}
    )
    assert ablate(rows, more, tmp_path, progress=False).numbers["missing"] == 0
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "cells").iterdir()}
    assert set(after) - set(before) == {"epochs-random-k0.2-seed1.json", "epochs-everything-k1.0-seed1.json"}
    assert all(after[name] == before[name] for name in before)
    assert read_grid(tmp_path)["settings"]["seeds"] == 2


def test_a_folder_holds_cells_of_one_ranker_and_one_language_model(tiny_lm, tiny_ranker, tmp_path):
    ranker, lm = shutil.copytree(tiny_ranker, tmp_path / "ranker"), shutil.copytree(tiny_lm, tmp_path / "lm")
    ds, held = Dataset.from_dict({"ask": ["a", "b"], "reply": ["c", "d"]}), HeldOut(["x", "y"], {"human": ["1", "2"]})
    settings = AblationSettings(tiny_lm, methods=("scar", "ifd", "random"), seeds=1)

    def check(folder: str, **rank) -> dict:
        def own_format(row):  # at another address in each call, as in each process
            return row["ask"], row["reply"]

        run_grid(ds, settings, held, tmp_path / folder, rank={"formatting_func": own_format, **rank}, most_cells=0)
        return read_grid(tmp_path / folder)

    first = check("grid", model=str(ranker), lm=str(lm))
    assert check("grid", model=str(ranker), lm=str(lm)) == first and " at 0x" not in first["rank"]["formatting_func"]
    for name, folder in (("model", ranker), ("lm", lm)):
        check(name, model=str(ranker), lm=str(lm))
        config = folder / "config.json"
        config.write_text(config.read_text() + "\n")
        with pytest.raises(ValueError, match="holds another grid: rank_weights differ"):
            check(name, model=str(ranker), lm=str(lm))
    assert set(check("bundled", lm=tiny_lm)["rank_weights"]) == {"model", "lm"}


def made(method: str, seed: int, nll: np.ndarray, style: np.ndarray, **more) -> dict:
    cell = {"method": method, "k": 0.1, "budget": "steps", "seed": seed}
    return {"cell": cell, "nll": {"human": nll.tolist()}, "style": {"words": style.tolist()}, **more}


def test_rows_of_any_columns_and_turns_are_ablated(tiny_lm, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    lines = [{"ask": f"Name thing {i}.", "reply": f"{'A ' * (i % 7)}thing, number {i}."} for i in range(30)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = [part for part in COMMAND if part not in ("--group-by", "source")] + ["--columns", "ask,reply"]
    assert main(["ablate", str(rows), "--model", tiny_lm, "-o", str(tmp_path / "grid"), *settings]) == 0
    grid = json.loads((tmp_path / "grid" / "grid.json").read_text())
    assert grid["rank"]["columns"] == "('ask', 'reply')" and grid["data"]["rows"] == 24


def test_every_scored_turn_is_trained_on(tiny_lm):
    talk = [{"role": role, "content": f"{role} {i}"} for i in range(2) for role in ("user", "assistant")]
    ds, tokenizer = Dataset.from_list([{"messages": talk}]), AutoTokenizer.from_pretrained(tiny_lm)
    found = {turn: training_rows(ds, tokenizer, PairReader(turn=turn))["completion"][:] for turn in ("first", "last", "all")}
    said = {turn: [messages[0]["content"] for messages in rows] for turn, rows in found.items()}
    assert said == {"first": ["assistant 0"], "last": ["assistant 1"], "all": ["assistant 0", "assistant 1"]}


def test_differences_have_paired_intervals_and_words():
    draw = np.random.default_rng(0)
    base, width = draw.normal(3, 1, size=(3, 200)), draw.normal(size=(3, 200))
    cells = []
    for seed in range(3):
        cells.append(made("random", seed, base[seed], 50 + 10 * width[seed]))
        # Much smaller than the differences between instructions, and seen all the same: it is paired.
        cells.append(made("scar", seed, base[seed] - 0.05 + 0.02 * draw.normal(size=200), 50 + 5 * width[seed]))
        cells.append(made("longest", seed, base[seed] + 0.5 * draw.normal(size=200), 50 + 10 * draw.normal(size=200)))
    found = {(row["method"], row["measure"]): row for row in compare_cells(cells)}
    scar = found["scar", "nll:human"]
    assert scar["verdict"] == "better" and scar["low"] < scar["difference"] < scar["high"] < 0
    assert scar["difference"] == pytest.approx(-0.05, abs=0.005) and scar["rows_needed"] < 200
    assert found["scar", "spread"]["verdict"] == "narrower"
    assert found["scar", "spread"]["difference"] == pytest.approx(-0.5, abs=1e-6)
    unclear = found["longest", "nll:human"]
    assert unclear["verdict"] == found["longest", "spread"]["verdict"] == "no difference shown"
    # The standard error of such a mean, from its formula, against the bootstrap's.
    expected = 2.8016 * 0.5 / math.sqrt(600)
    assert unclear["detectable"] == pytest.approx(expected, rel=0.5)
    assert sentence_of(scar).startswith("SCAR beats random: NLL of human answers (-0.0")
    assert "no difference shown" in sentence_of(unclear) and "200 instructions and 3 seeds" in sentence_of(unclear)
    against = {row["measure"]: row for row in compare_cells(cells, baseline="longest") if row["method"] == "scar"}
    assert against["nll:human"]["difference"] == pytest.approx(scar["difference"] - unclear["difference"], abs=1e-9)
    assert "longest" in sentence_of(against["nll:human"]) and not any(row["method"] == "longest" for row in against.values())
    worse = [made("random", 0, base[0], width[0]), made("scar", 0, base[0] + 1 + 0.1 * width[0], width[0])]
    assert sentence_of(compare_cells(worse)[0]).startswith("SCAR is beaten by random")


def test_the_page_compares_scar_with_random_rows_and_with_each_other_method():
    values = np.random.default_rng(0).normal(3, 1, size=30)
    shifts = {"random": 0.0, "scar": -0.5, "longest": 0.5}
    noise = {method: np.random.default_rng(i).normal(0, 0.1, size=30) for i, method in enumerate(shifts)}
    cells = [made(method, 0, values + shift + noise[method], values) for method, shift in shifts.items()]
    settings = AblationSettings("lm", methods=tuple(shifts), budgets=("steps",), seeds=1)
    grid = {"settings": settings.describe(), "data": {"rows": 300}, "versions": {}}
    result = result_of(grid | {"held_out": {"rows": 30, "kinds": ["human"]}}, settings, cells)
    assert {(row["method"], row["against"]) for row in result.numbers["between"]} == {("scar", "longest")}
    assert any(line.startswith("SCAR beats longest: NLL of human answers (-") for line in result.sentences)
    page = result.html()
    assert "SCAR against random rows" in page and "SCAR against the other methods" in page


def test_figures_of_any_kind_of_answers_have_plain_names(tmp_path):
    values = np.random.default_rng(0).random((2, 9))
    kinds = ["tatsu-lab/alpaca", 'x"y<b>', "x y", "x_y<b>"]
    cells = [made(method, 0, values[i], values[i]) for i, method in enumerate(("random", "scar"))]
    cells = [cell | {"nll": dict.fromkeys(kinds, cell["nll"]["human"])} for cell in cells]
    settings = AblationSettings("lm", methods=("scar", "random"), budgets=("steps",), seeds=1)
    grid = {"settings": settings.describe(), "data": {"rows": 300}, "versions": {}, "held_out": {"rows": 9, "kinds": kinds}}
    result_of(grid, settings, cells).save(tmp_path / "ablation.html")
    names = [file.stem for file in (tmp_path / "ablation").rglob("*.png")]
    assert len(names) == 5 and "steps-nll-x-y" in names and (tmp_path / "ablation").is_dir()
    assert all(file.is_file() for file in (tmp_path / "ablation").iterdir())
    assert all(re.fullmatch(r"[\w-]+", name) for name in names)
    assert set(re.findall(r' id="(steps-[\w-]+)-[^"-]*"', (tmp_path / "ablation.html").read_text()))
    assert 'x"y<b>' not in (tmp_path / "ablation.html").read_text()


def test_values_that_never_differ_are_not_certainty():
    cells = [made(method, 0, np.ones(20), np.arange(20.0), constraints=[1] * 20) for method in ("random", "scar")]
    row = next(row for row in compare_cells(cells) if row["measure"] == "constraints")
    assert row["low"] is None and row["detectable"] is None and row["verdict"] == "no difference shown"


GOOD = {
    "one sentence": "Bees make honey.",
    "three sentences": "One. Two is here! Is it three?",
    "at most 30 words": "Short.",
    "at least 60 words": "word " * 60,
    "a given word": "By the light of a lantern.",
    "a word left out": "Sand is fine.",
    "a given beginning": "In short, yes.",
    "a given end": "Yes. That is all.",
    "four list items": "- a\n- b\n- c\n- d",
    "numbered steps": "1. a\n2. b\n3. c",
    "lower case": "all small.",
    "capitals": "ALL LARGE.",
    "no comma": "No pause here.",
    "two paragraphs": "One.\n\nTwo.",
    "JSON": '```json\n{"title": "a", "summary": "b"}\n```',
    "a heading": "# Bees\nThey fly.",
}
BAD = {
    "one sentence": "Bees make honey. They fly.",
    "three sentences": "One. Two.",
    "at most 30 words": "word " * 31,
    "at least 60 words": "word " * 59,
    "a given word": "By the light of a lamp.",
    "a word left out": "Salt and sand.",
    "a given beginning": "Yes, in short.",
    "a given end": "That is all. Yes.",
    "four list items": "- a\n- b\n- c",
    "numbered steps": "1. a\n2. b\n4. c",
    "lower case": "All small.",
    "capitals": "ALL large.",
    "no comma": "One, two.",
    "two paragraphs": "One.\nTwo.",
    "JSON": '{"title": "a"}',
    "a heading": "Bees\nThey fly.",
}


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda constraint: constraint.name)
def test_a_program_verifies_constraints(constraint):
    assert verify(constraint, GOOD[constraint.name]) and not verify(constraint, BAD[constraint.name])
    assert not verify(constraint, "  ")


def test_prompts_are_of_all_kinds_and_differ():
    prompts = constrained_prompts(64)
    assert len({text for text, _ in prompts}) == 64 and len({c.name for _, c in prompts[:16]}) == 16
    with pytest.raises(ValueError, match="There are 192 instructions"):
        constrained_prompts(193)


def test_programs_run_apart_and_only_what_passes_counts(tmp_path):
    double = PROBLEMS[0]
    assert passes(double, "Here:\n```python\ndef double(n):\n    return 2 * n\n```\nDone.")
    assert passes(double, "def double(n):\n    return n + n")
    assert not passes(double, "def double(n):\n    return n")
    assert not passes(double, "def double(n)\n    return")
    trap = tmp_path / "written"
    body = "\ndef double(n):\n    return 2 * n\n"
    for mischief in (
        f"open({str(trap)!r}, 'w').write('x')",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "x = 'a' * 10**10",
    ):
        assert not passes(double, mischief + body), mischief
    assert not trap.exists()
    began = time.monotonic()
    assert not passes(double, "while True: pass" + body)
    assert time.monotonic() - began < 20


def test_what_a_program_prints_is_bounded():
    double = PROBLEMS[0]
    assert passes(double, "def double(n):\n    return 2 * n\nprint('twice 4 is', double(4))")
    body = "def double(n):\n    return 2 * n\ntext = 'x' * 10**6\n"
    for endless in (
        "while True:\n    print(text)",
        "while True:\n    try:\n        print(text)\n    except OSError:\n        pass",
    ):
        tracemalloc.start()
        began = time.monotonic()
        assert not passes(double, body + endless)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 * 2**20 and time.monotonic() - began < 20


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_a_constant_solves_no_problem(problem):
    expected = [
        ast.unparse(node.comparators[0]) for node in ast.walk(ast.parse(problem.tests)) if isinstance(node, ast.Compare)
    ]
    for constant in ("True", "False", "None", *expected):
        with pytest.raises(AssertionError):
            exec(f"{problem.name} = lambda *given: {constant}\n{problem.tests}", {})
    exec(f"{problem.name} = {SOLUTIONS[problem.name]}\n{problem.tests}", {})


SOLUTIONS = {
    "double": "lambda n: 2 * n",
    "larger": "max",
    "is_even": "lambda n: n % 2 == 0",
    "total": "sum",
    "mean": "lambda numbers: sum(numbers) / len(numbers)",
    "backwards": "lambda text: text[::-1]",
    "vowels": "lambda text: sum(c in 'aeiou' for c in text.lower())",
    "unique": "lambda items: list(dict.fromkeys(items))",
    "factorial": "__import__('math').factorial",
    "squares": "lambda n: [i * i for i in range(1, n + 1)]",
    "is_prime": "lambda n: n > 1 and all(n % i for i in range(2, n))",
    "longest_word": "lambda text: max(text.split(), key=len)",
    "count_words": "lambda text: len(text.split())",
    "flatten": "lambda lists: sum(lists, [])",
    "initials": "lambda name: ''.join(word[0].upper() for word in name.split())",
    "clamp": "lambda x, low, high: max(low, min(x, high))",
    "common": "lambda a, b: sorted(set(a) & set(b))",
    "fibonacci": "lambda n: [0, 1, 1, 2, 3, 5, 8][:n]",
    "palindrome": "lambda text: text.lower() == text.lower()[::-1]",
    "digits": "lambda n: sum(map(int, str(n)))",
}


def test_rows_are_held_out_by_content(data):
    rows = load_dataset("json", data_files=data, split="train")
    held, rest = hold_out(rows, 10, "source")
    backwards, _ = hold_out(rows.select(range(39, -1, -1)), 10, "source")
    assert len(held) == 10 and len(rest) == 30 and set(held.answers) == {"a", "b"}
    assert set(held.instructions) == set(backwards.instructions) and not set(held.instructions) & set(rest["instruction"])


def test_what_makes_no_grid_is_told():
    for wrong, match in (
        ({"methods": ("scar",)}, "must hold 'random'"),
        ({"k": (2.0,)}, "share in"),
        ({"budgets": ("hours",)}, "`budgets` must be of"),
        ({"seeds": 0}, "`seeds` must be at least 1"),
        ({"epochs": 0}, "must be above 0"),
    ):
        with pytest.raises(ValueError, match=match):
            AblationSettings("model", **wrong)
    cells = cells_of(AblationSettings("model", k=(0.1, 0.2), methods=("scar", "random", "everything"), seeds=2))
    assert len(cells) == 1 + 2 * 2 * (2 * 2 + 1)
