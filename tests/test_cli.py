"""The commands, start to finish, as a user runs them."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from scar_hf.cli import main
from scar_hf.files import read_dataset

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*args):
    return main([str(arg) for arg in args])


@pytest.mark.parametrize("output", ["out.jsonl", "out.json", "out.parquet", "out"])
def test_select_keeps_exactly_the_share(rows, write_jsonl, tmp_path, output, capsys):
    assert run("select", write_jsonl(rows), "-k", "0.35", "-o", tmp_path / output) == 0
    kept = read_dataset(tmp_path / output)
    assert len(kept) == 3
    assert kept.column_names == ["instruction", "response", "id", "scar_score"]
    assert kept["id"][:] == sorted(kept["id"][:])
    shown = capsys.readouterr().out
    assert "Kept 3 of 10 rows (30.0%)" in shown and "Threshold" in shown and "Best" in shown and "Worst" in shown
    assert f"{max(kept['scar_score'][:]):.3f}" in shown


def test_the_summary_of_many_rows_draws_its_baselines_from_a_sample(write_jsonl, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("scar_hf.runs.observations._SAMPLE", 20)
    monkeypatch.setenv("COLUMNS", "160")
    data = write_jsonl([{"instruction": f"Q{i}", "response": "It is so. " * (1 + i * 7 % 50)} for i in range(100)])
    assert run("select", data, "-k", "0.5", "--method", "random", "-o", tmp_path / "o.jsonl") == 0
    shown = capsys.readouterr().out
    assert "random draw" in shown and "same lengths" in shown  # 25 of the rows kept are measured, 20 of all


def test_select_from_conversations_by_a_column(tmp_path, capsys):
    chats = [
        {
            "conversations": [{"from": "human", "value": f"Q{i}"}, {"from": "gpt", "value": "[red]A[/red] " * i}],
            "source": "ab"[i % 2],
        }
        for i in range(1, 9)
    ]
    (tmp_path / "v.json").write_text(json.dumps(chats))
    assert (
        run("select", tmp_path / "v.json", "-k", "2", "-o", tmp_path / "o.json", "--group-by", "source", "--turn", "last") == 0
    )
    assert [row["conversations"] for row in read_dataset(tmp_path / "o.json")] != []
    shown = capsys.readouterr().out
    assert "Rows by source" in shown
    assert "[red]A[/red]" in shown  # text of the data is never read as markup


def test_score_keeps_all_rows_and_columns(rows, write_jsonl, tmp_path, scorer, capsys):
    assert run("score", write_jsonl(rows), "-o", tmp_path / "s.parquet", "--dtype", "float32") == 0
    scored = read_dataset(tmp_path / "s.parquet")
    expected = scorer.score([r["instruction"] for r in rows], [r["response"] for r in rows])
    assert scored["scar_score"][:] == pytest.approx(expected.tolist(), abs=1e-5)
    assert scored.remove_columns("scar_score").to_list() == rows
    assert "Scored 10 rows" in capsys.readouterr().out


@pytest.mark.parametrize("count", [0, 1])
def test_select_from_hardly_any_rows(count, write_jsonl, tmp_path, rows, capsys):
    data = write_jsonl(rows[:count])
    assert run("select", data, "-k", "0.1", "-o", tmp_path / "o.jsonl") == 0
    assert len(read_dataset(tmp_path / "o.jsonl")) == count
    assert f"Kept {count} of {count} rows" in capsys.readouterr().out


def test_rows_without_a_response_are_listed_or_an_error(rows, write_jsonl, tmp_path, capsys):
    rows[3]["response"] = "  "
    data = write_jsonl(rows)
    assert run("select", data, "-k", "1.0", "-o", tmp_path / "o.jsonl", "--strict") == 1
    assert "row 3: the response is empty" in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()
    assert run("select", data, "-k", "1.0", "-o", tmp_path / "o.jsonl") == 0
    assert len(read_dataset(tmp_path / "o.jsonl")) == 9
    assert "Skipped without a score: 1 rows" in capsys.readouterr().out
    skipped = read_dataset(tmp_path / "o.jsonl.skipped.jsonl").to_list()
    assert skipped == [{"shard": "data.jsonl", "row": 3, "reason": "the response is empty"}]


def test_explanations_as_columns_and_in_words(rows, write_jsonl, tmp_path, capsys):
    data = write_jsonl(rows)
    assert run("score", data, "-k", "3", "--explain", "-o", tmp_path / "o.csv") == 0
    explained = read_dataset(tmp_path / "o.csv")
    assert explained["scar_decision"][:].count("kept") == 3
    kept = explained["scar_decision"][:].index("kept")
    capsys.readouterr()
    assert run("explain", data, "-k", "3", "--row", kept) == 0
    shown = capsys.readouterr().out
    assert f"row {kept} of data.jsonl: kept" in shown and explained[kept]["scar_reason"] in shown
    assert rows[kept]["instruction"] in shown and "words:" in shown
    assert run("explain", data, "-k", "3", "--row", "10") == 1
    assert "There is no row 10" in capsys.readouterr().err
    assert run("score", data, "-k", "3", "-o", tmp_path / "x.csv") == 2
    assert "-k requires --explain" in capsys.readouterr().err


def test_verify(rows, write_jsonl, tmp_path, capsys):
    data, out = write_jsonl(rows), tmp_path / "o.parquet"
    assert run("select", data, "-k", "4", "-o", out, "--quiet") == 0
    assert run("verify", out) == 0
    shown = capsys.readouterr().out
    assert shown.count(" ok ") == 8 and "its seal" in shown and "SHA-256" in shown and "FAILED" not in shown
    out.write_bytes(out.read_bytes() + b"x")
    assert run("verify", out) == 1
    assert "FAILED" in capsys.readouterr().out
    assert run("verify", data) == 1
    assert "has no manifest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message", "status"),
    [
        (("-k", "0"), "`k` must be a share in (0, 1] or a count >= 1, got 0", 2),
        (("-k", "1.5"), "got 1.5", 2),
        (("-k", "-1"), "got -1", 2),
        (("-k", "0.1", "--columns", "question,answer"), "names ['question', 'answer']", 1),
        (("-k", "0.1", "--columns", "response"), "must be two column names", 2),
        (("-k", "0.1", "--group-by", "nothing"), "--group-by names the column 'nothing'", 1),
        (("-k", "0.1", "--model", "/no/such/folder"), "No SCAR ranker found at '/no/such/folder'", 1),
        (("-k", "0.1", "--max-length", "9999"), "at most 512", 1),
        (("-k", "0.1", "--no-such-option"), "unrecognized arguments", SystemExit),
        (("--quiet",), "Pass -k", 2),
    ],
)
def test_errors_say_what_to_do_and_write_nothing(args, message, status, rows, write_jsonl, tmp_path, capsys):
    command = ["select", write_jsonl(rows), "-o", tmp_path / "o.jsonl", *args]
    if status is SystemExit:
        with pytest.raises(SystemExit, match="2"):
            run(*command)
    else:
        assert run(*command) == status
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "o.jsonl").exists()


def test_an_existing_output_is_refused_before_any_work(rows, write_jsonl, tmp_path, capsys):
    (tmp_path / "o.jsonl").write_text("precious")
    assert run("select", tmp_path / "missing.jsonl", "-k", "0.1", "-o", tmp_path / "o.jsonl") == 1
    assert "exists. Pass --overwrite" in capsys.readouterr().err
    assert run("score", write_jsonl(rows), "-o", tmp_path / "o.jsonl", "--overwrite") == 0
    assert len(read_dataset(tmp_path / "o.jsonl")) == 10


def test_a_set_on_the_hub_is_read_by_its_id(rows, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("scar_hf.files.reading.load_dataset", lambda *a, **k: asked.append((a, k)) or Dataset.from_list(rows))
    assert run("select", "someone/set", "--split", "test", "-k", "2", "-o", tmp_path / "o.jsonl", "--quiet") == 0
    assert asked == [(("someone/set",), {"split": "test"})]
    assert len(read_dataset(tmp_path / "o.jsonl")) == 2
    assert run("verify", tmp_path / "o.jsonl") == 0
    assert "not checked  input someone/set" in capsys.readouterr().out


def test_backend_and_engine_say_what_is_missing(rows, write_jsonl, tmp_path, monkeypatch, capsys):
    data = write_jsonl(rows)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert run("select", data, "-k", "2", "-o", tmp_path / "o.jsonl", "--backend", "openvino") == 1
    assert 'pip install "scar-hf[cpu]"' in capsys.readouterr().err
    assert run("select", data, "-k", "2", "-o", tmp_path / "o.jsonl", "--ray-address", "auto") == 2
    assert "--ray-address requires --engine ray" in capsys.readouterr().err


def test_export_refuses_what_it_would_spoil(tmp_path, capsys, encoder_folder):
    assert run("export", "no-such-ranker", "-o", tmp_path / "x") == 1
    assert "expected 'scar-ranker'" in capsys.readouterr().err
    assert run("export", encoder_folder, "-o", tmp_path / "x") == 1
    assert "not a SCAR ranker" in capsys.readouterr().err
    assert run("export", "scar-ranker", "-o", tmp_path / "r") == 0
    assert run("export", "scar-ranker", "-o", tmp_path / "r") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run("export", "scar-ranker", "-o", tmp_path / "r", "--overwrite") == 0
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "README.md").write_text("precious")
    assert run("export", "scar-ranker", "-o", tmp_path / "work", "--overwrite") == 1
    assert "does not hold a ranker" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "work").iterdir()] == ["README.md"]


def test_help_needs_no_torch_and_shows_a_line_to_copy():
    code = (
        "import sys; sys.argv[0] = 'scar-hf'\n"
        "from scar_hf.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    for command in ("", "select", "score", "explain", "verify", "export"):
        args = [command, "--help"] if command else ["--help"]
        run = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
        assert run.stdout.splitlines()[-1] == "False False"
        assert f"scar-hf {command}".strip() in run.stdout and (not command or "example:" in run.stdout)


def test_the_installed_command_runs_on_the_shipped_example(tmp_path):
    data = EXAMPLES / "mixed_styles" / "mixed_styles.jsonl"
    lines = data.read_text(encoding="utf-8").splitlines()[:60]
    (tmp_path / "part.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = Path(sys.executable).parent / "scar-hf"
    args = [command, "select", tmp_path / "part.jsonl", "-k", "0.1", "-o", tmp_path / "o.jsonl", "--group-by", "source"]
    run = subprocess.run(args, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "140"})
    assert "Kept 6 of 60 rows" in run.stdout and "human" in run.stdout
    assert len(read_dataset(tmp_path / "o.jsonl")) == 6


def test_without_a_command_there_is_the_help(capsys):
    assert run() == 0
    assert "select" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_of_a_shell_knows_commands_and_options(shell, capsys, monkeypatch):
    pytest.importorskip("shtab")
    assert run("--print-completion", shell) == 0
    shown = capsys.readouterr().out
    # tcsh is told of options without their dashes, all in one list
    options = re.search(r"c/--/\((.*?)\)/", shown)[1].split() if shell == "tcsh" else re.findall(r"--([\w-]+)", shown)
    assert {"sft-format", "no-progress"} <= set(options) and "verify" in shown
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert run("--print-completion", shell) == 1
    assert 'pip install "scar-hf[completion]"' in capsys.readouterr().err


def test_bash_completes_a_command(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert run("--print-completion", "bash") == 0
    (tmp_path / "c").write_text(capsys.readouterr().out)
    code = "source c; COMP_WORDS=(scar-hf sel); COMP_CWORD=1; _shtab_scar_hf; echo ${COMPREPLY[*]}"
    found = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["select"]


class Terminal(io.StringIO):
    """What a command writes where a terminal would be."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch):
    """Runs a command, and returns what it writes to a terminal, or to no terminal."""

    def run_on(stream: io.StringIO, *args) -> str:
        with monkeypatch.context() as patch:
            patch.setattr("scar_hf.progress._off", False)
            patch.setattr(sys, "stderr", stream)
            assert run(*args) == 0
        return stream.getvalue()

    return run_on


def test_bars_are_for_terminals_and_quiet_is_quiet(rows, write_jsonl, tmp_path, tiny_ranker, shown, capsys):
    data = write_jsonl([*rows, {"instruction": "no response", "response": None}])
    select = ["select", data, "-k", "3", "--model", tiny_ranker, "--device", "cpu", "--no-cache", "-o"]
    assert "Scoring" not in shown(io.StringIO(), *select, tmp_path / "a.jsonl")
    bars = shown(Terminal(), *select, tmp_path / "b.jsonl")
    assert "Scoring: " in bars and "Writing: " in bars and "Loading weights" not in bars
    assert "Scoring" not in shown(Terminal(), *select, tmp_path / "c.jsonl", "--no-progress")
    assert "Kept 3 of 11" in capsys.readouterr().out
    assert shown(Terminal(), *select, tmp_path / "d.jsonl", "--quiet") == "" and capsys.readouterr().out == ""
    score = ["score", data, "--model", tiny_ranker, "--device", "cpu", "-o", tmp_path / "e.jsonl", "--quiet"]
    assert shown(Terminal(), *score) == "" and capsys.readouterr().out == ""
    assert len({(tmp_path / f"{name}.jsonl").read_text() for name in "abcd"}) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"a: [1\n", b"- 1\n", b"[" * 20_000, b"no_such_option: 1\n"])
def test_a_recipe_that_is_none_is_named_in_a_line(content, tmp_path, capsys):
    (tmp_path / "r.yaml").write_bytes(content)
    assert run("train", "--config", tmp_path / "r.yaml") == 1
    said = capsys.readouterr().err
    assert "The recipe" in said and "r.yaml" in said and said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
@pytest.mark.parametrize("moment", [0.05, 0.5, 1.5, 3])
def test_an_interrupt_at_any_time_ends_with_130_and_no_traceback(moment, rows, write_jsonl, tmp_path, tiny_ranker):
    command = ["select", write_jsonl(rows * 200), "-k", "3", "-o", tmp_path / "o.jsonl", "--model", tiny_ranker, "--no-cache"]
    # The signal comes when the command has begun, however long Python itself took to start.
    code = (
        "import os, signal, sys, threading\n"
        f"timer = threading.Timer({moment}, os.kill, (os.getpid(), signal.SIGINT)); timer.daemon = True; timer.start()\n"
        "from scar_hf.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, timeout=120)
    assert done.returncode in (130, 0) and "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0 or "interrupted" in done.stderr
