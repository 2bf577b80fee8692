"""`scar-hf sft`, alone and on two processes, and TRL's own command on what `scar-hf select` wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, load_dataset

pytest.importorskip("trl")

from scar_hf import scar_select
from scar_hf.manifest.commands import select_command

TRAINING = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--max_length", "128", "--bf16", "False", "--use_cpu",
            "--report_to", "none", "--save_strategy", "no", "--logging_steps", "1", "--disable_tqdm", "True",
            "--dtype", "float32"]  # fmt: skip


def run(command: list, tmp_path: Path) -> str:
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "SCAR_HF_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "ACCELERATE_USE_CPU": "true",
        # where a test leaves what its processes import
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])),
    }
    found = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, timeout=300, cwd=tmp_path)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-4000:]
    return found.stdout + found.stderr


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [
        {"messages": [{"role": "user", "content": f"Tell me about {i}."},
                      {"role": "assistant", "content": f"All of {i}. {'So be it. ' * (i % 7)}"}]}
        for i in range(40)
    ]  # fmt: skip
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_command_adds_one_option_to_those_of_trl(data, tiny_lm, tiny_ranker, tmp_path):
    recipe = tmp_path / "sft.yaml"
    recipe.write_text(
        "learning_rate: 1.0e-4\nuse_peft: true\nlora_r: 2\nlora_target_modules: [q_proj, v_proj]\n"
        f"model_name_or_path: {tiny_lm}\n"
    )
    command = [sys.executable, "-m", "scar_hf", "sft", "--config", recipe, "--dataset_name", data, "--output_dir", "out",
               *TRAINING, "--scar_k", "0.1", "--scar_model", tiny_ranker, "--scar_device", "cpu"]  # fmt: skip
    said = run(command, tmp_path)
    assert "'scar/kept': '4'" in said and (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert "| Rows trained on | 4 (10.0%) |" in (tmp_path / "out" / "README.md").read_text()


def test_files_and_folders_are_taken_as_everywhere(data, write_jsonl, tmp_path, rows):
    from scar_hf.trainer_callbacks.fine_tuning import _load
    from trl import DatasetMixtureConfig, ScriptArguments
    from trl.scripts.utils import DatasetConfig

    from scar_hf.files import write_dataset

    ds = Dataset.from_list(rows)
    names = [write_dataset(ds, tmp_path / f"rows{suffix}") for suffix in (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")]
    ds.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": ds, "test": ds.select([0])}).save_to_disk(tmp_path / "splits")
    for name in [*names, tmp_path / "saved", tmp_path / "splits"]:
        found = _load(ScriptArguments(dataset_name=str(name)), DatasetMixtureConfig())
        assert found["train"]["response"][:] == ds["response"][:]
    assert len(_load(ScriptArguments(dataset_name=str(tmp_path / "splits")), DatasetMixtureConfig())["test"]) == 1
    streamed = _load(ScriptArguments(dataset_name=str(names[0]), dataset_streaming=True), DatasetMixtureConfig())
    assert [row["response"] for row in streamed["train"]] == ds["response"][:]
    mixture = DatasetMixtureConfig(datasets=[DatasetConfig(path=str(names[0])), DatasetConfig(path=str(names[-1]))])
    assert _load(ScriptArguments(), mixture)["train"]["response"][:] == ds["response"][:] * 2
    for asked in (
        (ScriptArguments(dataset_name="absent.jsonl"), DatasetMixtureConfig()),
        (ScriptArguments(), DatasetMixtureConfig(datasets=[DatasetConfig(path="absent.jsonl")])),
    ):
        with pytest.raises(ValueError, match=r"absent.jsonl does not exist. Expected .jsonl"):
            _load(*asked)


def test_trl_trains_on_what_was_selected_of_columns_that_it_does_not_know(rows, write_jsonl, tiny_lm, tiny_ranker, tmp_path):
    data = write_jsonl(rows)
    select = ["select", data, "-k", "4", "-o", "out", "--sft-format", "--model", tiny_ranker, "--device", "cpu"]
    run([sys.executable, "-m", "scar_hf", *select], tmp_path)
    command = [sys.executable, "-c", "from trl.cli.main import main; main()", "sft", "--model_name_or_path", tiny_lm,
               "--dataset_name", "out", "--output_dir", "model"]  # fmt: skip
    assert run([*command, *TRAINING], tmp_path).count("'loss'") == 2
    assert run([sys.executable, "-m", "scar_hf", "verify", "out"], tmp_path).count("FAILED") == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert "--sft-format" in select_command(manifest, "out")


def test_the_other_way_round_trl_trains_on_what_was_selected(data, tiny_lm, tiny_ranker, tmp_path):
    select = ["select", data / "train.jsonl", "-k", "0.1", "-o", "out", "--model", tiny_ranker, "--device", "cpu"]
    run([sys.executable, "-m", "scar_hf", *select], tmp_path)
    code = "from trl.cli.main import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "sft",
        "--model_name_or_path",
        tiny_lm,
        "--dataset_name",
        "out",
        "--output_dir",
        "model",
    ]
    said = run([*command, *TRAINING], tmp_path)
    assert said.count("'loss'") == 2
    written = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hf"))
    expected = scar_select(load_dataset("json", data_files=str(data / "train.jsonl"), split="train"), k=0.1,
                           model=str(tiny_ranker), device="cpu", progress=False)  # fmt: skip
    assert written["messages"][:] == expected["messages"][:] and "scar_score" in written.column_names


def test_two_processes_train_on_the_same_rows_ranked_once(data, tiny_lm, tiny_ranker, tmp_path):
    """Each process notes what it scored and what it trains on; the hooks change nothing."""
    (tmp_path / "noted.py").write_text(
        "import json, os, sys\n"
        "from scar_hf import cli\n"
        "from scar_hf.scoring.scorer import ScarScorer\n"
        "from scar_hf.trainer_callbacks.sft_trainer import ScarSFTTrainer\n"
        "scored, score_chunks, train = [], ScarScorer.score_chunks, ScarSFTTrainer.train\n"
        "def count(self, *args, **kwargs):\n"
        "    for chunk, result in score_chunks(self, *args, **kwargs):\n"
        "        scored.append(len(chunk.rows))\n"
        "        yield chunk, result\n"
        "def note(self, *args, **kwargs):\n"
        "    result = train(self, *args, **kwargs)\n"
        "    rows = sorted(self.processing_class.decode(ids) for ids in self.train_dataset['input_ids'])\n"
        "    found = {'scored': sum(scored), 'rows': rows, 'scores': self.scar_ranking.scores.tolist()}\n"
        "    found['processes'] = self.accelerator.num_processes\n"
        "    json.dump(found, open(f'rank{self.accelerator.process_index}.json', 'w'))\n"
        "    return result\n"
        "ScarScorer.score_chunks, ScarSFTTrainer.train = count, note\n"
        "sys.exit(cli.main())\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "noted"]  # fmt: skip
    command = ["sft", "--model_name_or_path", tiny_lm, "--dataset_name", data, "--output_dir", "out", *TRAINING,
               "--scar_k", "0.2", "--scar_start_k", "4", "--scar_model", tiny_ranker]  # fmt: skip
    run([*launch, *command], tmp_path)
    first, second = (json.loads((tmp_path / f"rank{i}.json").read_text()) for i in range(2))
    assert first["processes"] == second["processes"] == 2
    assert first["scored"] == 40 and second["scored"] == 0
    assert first["rows"] == second["rows"] and len(first["rows"]) == 8 and first["scores"] == second["scores"]
