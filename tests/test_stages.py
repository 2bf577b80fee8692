"""From human answers to a ranker with one command: stages that are skipped, continued and run again."""

import gzip
import json
import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from scar_hf import ScarScorer
from scar_hf.cli import main
from scar_hf.training import load_triples
from scar_hf.training.stages import Stage, last_checkpoint, run_stages

endpoint = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "fault_server.py"))).endpoint


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The client of huggingface_hub talks to nobody in offline mode, not even to loopback."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def answer(request: dict) -> str:
    """Ratings to a judge's prompt, else an answer that is another one for each pot."""
    text = request["messages"][-1]["content"]
    number = "".join(c for c in text.split("pot", 1)[-1][:6] if c.isdigit()) or "0"
    if "helpfulness" in text.lower():
        return json.dumps({"helpfulness": 8, "correctness": 8})
    return (
        f"Certainly! Clay for pot {number} is shaped on a wheel, dried slowly, and fired in a kiln until it rings like a bell."
    )


@pytest.fixture
def recipe(tmp_path, encoder_folder):
    """Writes 40 human answers and a recipe, and returns the arguments of the one command."""
    rows = [
        {
            "instruction": f"How is pot {i} made?",
            "response": f"well pot {i} is clay on a wheel, then a kiln i guess, fired long",
        }
        for i in range(40)
    ]
    (tmp_path / "human.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(url: str, **changes) -> list[str]:
        settings = {
            "synthesis": {"data": "human.jsonl", "model": ["m"], "base_url": url, "kinds": "direct", "source": "pots"},
            "judge": {"model": "j", "base-url": url},
            "evaluation": {"model": ["scar-ranker"], "samples": 20},
            "card": {"license": "apache-2.0", "licences": {"pots": "CC0 1.0"}},
            "encoder": str(encoder_folder),
            "split": [0.6, 0.1, 0.3],
            "max_length": 48,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "epoch",
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings | changes))
        args = ["train", "--config", tmp_path / "recipe.yaml", "--data_dir", tmp_path, "--output_dir", tmp_path / "ranker"]
        return [str(arg) for arg in args]

    return make


def test_one_command_from_human_answers_to_a_ranker(recipe, tmp_path, capsys):
    made, ranker = tmp_path / "ranker-data", tmp_path / "ranker"
    with endpoint(answer) as server:
        assert main(recipe(server.url)) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        for number, name in enumerate(("synthesis", "judge", "training", "evaluation", "card"), 1):
            assert f"[{number}/5] {name}: starts" in shown and f"[{number}/5] {name}: done" in shown
        asked = sum(server.asked.values())
        assert asked == 40 + 80  # answers, and the ratings of both sides
        rated = load_triples(made / "rated.jsonl")
        assert len(rated) == 40 and all(t.ratings == {"direct": 8, "human": 8} and t.source == "pots" for t in rated)
        assert len(ScarScorer.from_pretrained(str(ranker), device="cpu").score(["a"], ["b"])) == 1
        found = json.loads((ranker / "evaluation.json").read_text())
        assert list(found["rankers"]) == [ranker.name, "scar-ranker"] and 5 <= found["rows"] <= 20
        test_part = json.loads((ranker / "metrics.json").read_text())["test"]
        assert found["rankers"][ranker.name]["all"]["pairs"] == test_part["all"]["pairs"]
        assert "CC0 1.0" in (ranker / "README.md").read_text()

        assert main(recipe(server.url)) == 0
        shown = capsys.readouterr().out
        assert shown.count(": unchanged, ") == 5 and "starts" not in shown

        # Another learning rate trains, measures and describes again, and asks no model.
        assert main(recipe(server.url, learning_rate=1e-3)) == 0
        shown = capsys.readouterr().out
        assert "[2/5] judge: unchanged" in shown and "[3/5] training: starts" in shown and "[4/5] evaluation: starts" in shown
        assert "[5/5] card: starts" in shown and sum(server.asked.values()) == asked


def test_a_budget_that_ends_is_continued(recipe, tmp_path, capsys):
    with endpoint(answer) as server:
        section = {"data": "human.jsonl", "model": ["m"], "base_url": server.url, "kinds": "direct", "source": "pots"}
        assert main(recipe(server.url, synthesis=section | {"max_requests": 30})) == 0, capsys.readouterr().err
        assert "[1/5] synthesis: not complete" in capsys.readouterr().out
        assert len(load_triples(tmp_path / "ranker-data" / "rated.jsonl")) == 30
        assert main(recipe(server.url, synthesis=section)) == 0
        shown = capsys.readouterr().out
        assert "[1/5] synthesis: continues" in shown and "[2/5] judge: starts" in shown
        assert len(load_triples(tmp_path / "ranker-data" / "rated.jsonl")) == 40
        assert all(n == 1 for n in server.asked.values())


def stop(*_):
    raise ValueError("stopped before training")


def test_another_prompt_asks_again(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scar_hf.cli.staged_training.train_ranker", stop)
    asking, judging = tmp_path / "asking.yaml", tmp_path / "judging.yaml"
    asking.write_text("user: 'Say briefly: {instruction}'\n")
    judging.write_text("user: 'Rate helpfulness of {response} to {instruction}'\n")
    with endpoint(answer) as server:
        named = {"model": "m", "base_url": server.url}
        synthesis = named | {"data": "human.jsonl", "kinds": "direct", "direct_prompt": str(asking)}
        args = recipe(server.url, synthesis=synthesis, judge=named | {"judge_prompt": str(judging)})

        def asked() -> int:
            before = sum(server.asked.values())
            assert main(args) == 1
            return sum(server.asked.values()) - before

        assert asked() == 40 + 80
        assert "stopped before training" in capsys.readouterr().err and asked() == 0
        judging.write_text("user: 'Judge the helpfulness of {response} to {instruction}'\n")
        assert asked() == 80
        asking.write_text("user: 'Say at length: {instruction}'\n")
        capsys.readouterr()
        assert asked() >= 40 and "[1/5] synthesis: starts" in capsys.readouterr().out


def test_another_model_in_a_folder_is_asked_and_measured_again(recipe, tmp_path, capsys, monkeypatch):
    lm, other, ranker = (tmp_path / name for name in ("lm", "other", "ranker"))
    for folder in (lm, other):
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    def write(*paths: Path) -> int:
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}")
        return 0

    def command(args) -> int:
        return write(Path(args.output), Path(f"{args.output}.manifest.json"))

    monkeypatch.setattr("scar_hf.cli.synthesize.run", command)
    monkeypatch.setattr("scar_hf.cli.judge.run", command)
    monkeypatch.setattr("scar_hf.cli.evaluate.evaluate_on", lambda args, triples: command(args))
    stages = "scar_hf.cli.staged_training"
    monkeypatch.setattr(f"{stages}.read_parts", lambda recipe: {"test": []})
    files = [ranker / name for name in ("config.json", "model.safetensors", "metrics.json")]
    monkeypatch.setattr(f"{stages}.train_ranker", lambda *given: write(*files))
    monkeypatch.setattr(f"{stages}.ranker_card", lambda *given, **options: SimpleNamespace(save=write))
    synthesis = {"data": "human.jsonl", "model": str(lm), "kinds": "direct"}
    args = recipe("http://127.0.0.1:9/v1", synthesis=synthesis, evaluation={"model": str(other)})

    def started() -> list[str]:
        assert main(args) == 0, capsys.readouterr().err
        return [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.endswith(": starts")]

    assert len(started()) == 5 and started() == []
    (other / "config.json").write_text("{ }")
    assert started() == ["evaluation:"]
    (lm / "config.json").write_text("{ }")
    assert started() == ["synthesis:"]


def test_a_useless_judge_leaves_triples_of_any_format(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scar_hf.cli.staged_training.train_ranker", stop)
    pots = [
        {"instruction": f"How is pot {i} made?", "human": f"clay on wheel {i}", "direct": {"m": f"Clay is turned {i} times."}}
        for i in range(12)
    ]
    with gzip.open(tmp_path / "triples.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in pots)
    with endpoint(lambda request: "Who knows?") as server:
        judge = {"model": "j", "base_url": server.url, "data": "triples.jsonl.gz", "check": 10}
        assert main(recipe(server.url, judge=judge)) == 1
    assert "stopped before training" in capsys.readouterr().err
    rated = load_triples(tmp_path / "ranker-data" / "rated.jsonl")
    assert [t.instruction for t in rated] == [row["instruction"] for row in pots] and not rated[0].ratings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"synthesis": {"data": "human.jsonl", "modle": "m"}},
            r"section `synthesis` of the recipe has unknown options: ['modle']",
        ),
        ({"synthesis": {"model": "m"}}, "section `synthesis` of the recipe needs `data`"),
        (
            {"judge": {"concurrency": "many"}},
            "section `judge` of the recipe: argument --concurrency: invalid int value",
        ),
        ({"evaluation": ["scar-ranker"]}, "section `evaluation` of the recipe must map options to values"),
        ({"card": {"licence": "MIT"}}, "section `card` of the recipe has unknown options: ['licence']"),
        (
            {"synthesis": {"data": "nobody.jsonl", "model": "m", "base_url": "http://127.0.0.1:9/v1"}},
            "nobody.jsonl does not exist",
        ),
    ],
)
def test_wrong_sections_are_named(recipe, changes, message, tmp_path, capsys):
    assert main(recipe("http://127.0.0.1:9/v1", **changes)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "ranker").exists()


def test_stages_follow_their_inputs(tmp_path):
    source, middle, end = (tmp_path / name for name in ("source", "middle", "end"))
    record, began, ran = tmp_path / "r" / "stages.json", [], []

    def copy(name, a, b, complete=True):
        def run(began_at):
            ran.append(name)
            began.append(began_at)
            b.write_text(a.read_text() + name)
            return complete

        return Stage(name, {"x": 1}, [a], [b], run)

    stages = [copy("one", source, middle), copy("two", middle, end)]
    source.write_text("a")
    said = []
    assert run_stages(stages, record, said.append) == ["one", "two"] and end.read_text() == "aonetwo"
    assert run_stages(stages, record, said.append) == []
    middle.write_text("mine")  # what somebody has changed is used, not made again
    assert run_stages(stages, record, said.append) == ["two"] and end.read_text() == "minetwo"
    end.unlink()
    assert run_stages(stages, record, said.append) == ["two"]
    source.write_text("b")
    assert run_stages(stages, record, said.append) == ["one", "two"]

    def breaks(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages([Stage("three", {}, [end], [tmp_path / "three"], breaks)], record, said.append)
    broken_at = json.loads(record.read_text())["three"]["began"]
    resumed = []
    three = Stage(
        "three", {}, [end], [tmp_path / "three"], lambda t: resumed.append(t) or bool((tmp_path / "three").write_text(""))
    )
    run_stages([three], record, said.append)
    assert resumed == [broken_at] and "[1/1] three: continues" in said
    with pytest.raises(ValueError, match="four did not make"):
        run_stages([Stage("four", {}, [], [tmp_path / "four"], lambda t: True)], record, said.append)
    record.write_text("[")
    with pytest.raises(ValueError, match="not valid JSON"):
        run_stages(stages, record, said.append)


def test_only_checkpoints_of_this_training_are_continued(tmp_path):
    for step, when in ((2, 100), (10, 100), (4, 300), (6, 300)):
        state = tmp_path / f"checkpoint-{step}" / "trainer_state.json"
        state.parent.mkdir()
        state.write_text("{}")
        os.utime(state, (when, when))
    assert last_checkpoint(tmp_path, 200) == str(tmp_path / "checkpoint-6")
    assert last_checkpoint(tmp_path, 50) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path, 400) is None and last_checkpoint(tmp_path / "none", 0) is None
