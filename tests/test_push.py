"""Pushing to and pulling from a hub on loopback with the real client, in a process of its own: nothing is patched."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import DatasetCard, ModelCard
from scar_hf.hub_cards import ranker_contents, selection_contents

from scar_hf.files import read_dataset
from scar_hf.runs import verify_manifest

hub_server = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "hub_server.py")))
Hub = hub_server.Hub

# Runs what it is sent, and gives what was printed or raised: importing torch once serves all tests.
CLIENT = """
import contextlib, io, json, os, sys, traceback
from scar_hf.cli import main
for line in sys.stdin:
    asked = json.loads(line)
    os.environ["HF_TOKEN"] = asked["token"]
    out, found = io.StringIO(), {"raised": None, "status": None}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            if "arguments" in asked:
                found["status"] = main(asked["arguments"])
            else:
                exec(asked["code"], {})
        except BaseException as error:
            found["raised"] = f"{type(error).__name__}: {error}"
            found["trace"] = traceback.format_exc()
    sys.__stdout__.write(json.dumps(found | {"said": out.getvalue()}) + "\\n")
    sys.__stdout__.flush()
"""


@dataclass
class Client:
    """The other process."""

    process: subprocess.Popen

    def ask(self, token: str = "hf_me", **asked) -> dict:
        self.process.stdin.write(json.dumps({"token": token, **asked}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def push(self, *arguments, status: int = 0, token: str = "hf_me") -> str:
        found = self.ask(token, arguments=["push", *map(str, arguments)])
        assert found["status"] == status, found
        return found["said"]

    def run(self, code: str) -> str:
        found = self.ask(code=code)
        assert found["raised"] is None, found["trace"]
        return found["said"]


def start_client(hub: Hub, folder: Path) -> Client:
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(folder / "hf"),
        "SCAR_HF_CACHE": str(folder / "cache"),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return Client(subprocess.Popen([sys.executable, "-c", CLIENT], text=True, env=env, cwd=folder, **pipes))


@pytest.fixture(scope="module")
def served():
    with hub_server.serve() as hub:
        yield hub


@pytest.fixture
def hub(served) -> Hub:
    """The hub, empty."""
    for held in (served.repos, served.objects, served.requests, served.uploads):
        held.clear()
    served.on_upload = served.on_commit = lambda number: False
    return served


@pytest.fixture(scope="module")
def clients(served, tmp_path_factory):
    """Two of them, begun at once, as most of their time goes into imports."""
    started = [start_client(served, tmp_path_factory.mktemp("client")) for _ in range(2)]
    yield started
    for client in started:
        if not client.process.stdin.closed:
            client.process.stdin.close()
        client.process.wait(30)
        client.process.stdout.close()


@pytest.fixture
def client(clients) -> Client:
    return clients[0]


@pytest.fixture(scope="module")
def selection(tmp_path_factory, tiny_ranker) -> Path:
    """A selection of ten of forty rows, one of which has no response."""
    from scar_hf.cli import main

    folder = tmp_path_factory.mktemp("selection")
    rows = [{"instruction": f"Tell of {i}.", "response": "So it is. " * (i % 9), "source": "ab"[i % 2]} for i in range(40)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--model", str(tiny_ranker), "--device", "cpu", "--dtype", "float32", "--backend", "torch", "--quiet"]
    assert main(["select", str(data), "-k", "10", "-o", str(folder / "out"), *common]) == 0
    assert main(["select", str(data), "-k", "5", "-o", str(folder / "five.jsonl"), *common]) == 0
    return folder


def commits(hub: Hub, kind: str, name: str) -> list[str]:
    """What was committed after the Hub's own first commit."""
    return hub.repo(kind, name).messages[1:]


def test_what_is_pushed_is_pulled_and_verified(hub, client, selection, tmp_path):
    said = client.push(selection / "out", "me/best", "--license", "cc-by-sa-3.0", "--language", "en", "--group-by", "source")
    assert len(commits(hub, "datasets", "me/best")) == 1 and "are in commit" in said
    assert hub.repo("datasets", "me/best").visibility is None  # as the user's settings say
    files = hub.files("datasets", "me/best")
    expected = {"README.md", "manifest.json", "skipped.jsonl", "data/train.parquet", "_images/scores.png"}
    assert set(files) - {".gitattributes"} == expected
    assert str(selection).encode() not in b"".join(files.values()), "a path of this machine was published"
    client.run(
        "from datasets import load_dataset\nfrom huggingface_hub import snapshot_download\n"
        f"load_dataset('me/best', split='train').to_parquet({str(tmp_path / 'pulled.parquet')!r})\n"
        f"snapshot_download('me/best', repo_type='dataset', local_dir={str(tmp_path / 'whole')!r})\n"
    )
    assert read_dataset(tmp_path / "pulled.parquet").to_list() == read_dataset(selection / "out").to_list()
    checks = verify_manifest(tmp_path / "whole" / "manifest.json")
    assert [check.passed for check in checks if check.what.startswith(("output", "rows"))] == [True, True]
    card = DatasetCard(files["README.md"].decode())
    assert card.data.license == "cc-by-sa-3.0" and card.data.language == ["en"]
    assert "| no score: the response is empty | 5 |" in card.text and "| a | 20 |" in card.text


def test_select_and_score_upload_what_they_write(hub, client, selection, tiny_ranker, tmp_path):
    options = ["--model", str(tiny_ranker), "--device", "cpu", "--private"]
    for command in (["select", "-k", "10", "--quiet"], ["score"]):
        name, output = f"me/{command[0]}", tmp_path / f"{command[0]}.jsonl"
        asked = [*command, str(selection / "data.jsonl"), "-o", str(output), "--push-to-hub", name, *options]
        found = client.ask(arguments=asked)
        assert found["status"] == 0, found
        assert found["said"] == "" if "--quiet" in command else f"rows to {name}" in found["said"]
        assert hub.repo("datasets", name).visibility == "private"
        pulled = tmp_path / f"{command[0]}.parquet"
        client.run(f"from datasets import load_dataset\nload_dataset({name!r}, split='train').to_parquet({str(pulled)!r})\n")
        assert read_dataset(pulled).to_list() == read_dataset(output).to_list()
    assert "manifest.json" in hub.files("datasets", "me/select") and "manifest.json" not in hub.files("datasets", "me/score")


def test_a_second_push_sends_nothing_and_makes_no_commit(hub, client, selection):
    client.push(selection / "out", "me/best")
    sent = len(hub.uploads)
    said = client.push(selection / "out", "me/best")
    assert "nothing was changed" in said and len(hub.uploads) == sent and len(commits(hub, "datasets", "me/best")) == 1


def test_another_selection_replaces_the_rows_and_keeps_what_was_written_on_the_hub(hub, client, selection):
    client.push(selection / "out", "me/best")
    repo, files = hub.repo("datasets", "me/best"), hub.files("datasets", "me/best")
    card = DatasetCard(files["README.md"].decode())
    card.text = card.text.replace("<!-- scar-hf", "My own words.\n\n<!-- scar-hf", 1) + "\nAnd more.\n"
    card.data["configs"].append({"config_name": "mine", "data_files": "mine.csv"})
    edited = repo.commits[repo.branches["main"]]["README.md"]
    edited.content = str(card).encode()
    said = client.push(selection / "five.jsonl", "me/best")
    assert "removed  data/train.parquet" in said and len(commits(hub, "datasets", "me/best")) == 2
    files = hub.files("datasets", "me/best")
    assert [name for name in files if name.startswith("data/")] == ["data/train-00000-of-00001.parquet"]
    card = DatasetCard(files["README.md"].decode())
    assert "My own words." in card.text and "And more." in card.text and "5 of 40 rows" in card.text
    assert "10 of 40" not in card.text and [c["config_name"] for c in card.data["configs"]] == ["default", "mine"]
    pulled = client.run("from datasets import load_dataset\nprint(len(load_dataset('me/best', 'default', split='train')))")
    assert pulled.split()[-1] == "5"


def test_a_dry_run_lists_all_and_asks_nothing(hub, client, selection):
    said = client.push(selection / "out", "me/best", "--dry-run", token="")
    assert "data/train.parquet" in said and "manifest.json" in said and "nothing was sent" in said
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        ("me/best", "", "There is no token for the Hub. Run `hf auth login`"),
        ("me/best", "hf_old", "The Hub does not take the token (Invalid credentials in Authorization header)"),
        ("others/best", "hf_me", "The token may not write to others/best"),
        ("me/taken", "hf_me", "is on the Hub already and was not made by scar-hf"),
        ("me/a/b", "hf_me", "me/a/b"),
    ],
)
def test_errors_say_what_to_do_and_nothing_is_pushed(hub, client, selection, repo, token, message):
    hub.make("datasets", "me/taken", {"train.csv": b"a\n1\n"})
    said = client.push(selection / "out", repo, status=1, token=token)
    assert message in said and "Traceback" not in said and len(said.strip().splitlines()) == 1
    assert set(hub.repos) == {("datasets", "me/taken")} and commits(hub, "datasets", "me/taken") == []


def test_offline_and_a_selection_that_was_changed_since(selection, tmp_path, monkeypatch, capsys):
    """Here, in the tests' own process, HF_HUB_OFFLINE is set."""
    from scar_hf.cli import main

    monkeypatch.setenv("HF_TOKEN", "hf_me")
    assert main(["push", str(selection / "out"), "me/best"]) == 1
    changed = shutil.copytree(selection / "out", tmp_path / "out")
    (changed / "train.parquet").write_bytes(b"PAR1")
    assert main(["push", str(changed), "me/best", "--dry-run"]) == 1
    assert main(["push", str(tmp_path), "me/best", "--dry-run"]) == 1
    assert main(["push", str(selection / "out"), "me/best", "--type", "model"]) == 1
    said = capsys.readouterr().err
    for message in ("HF_HUB_OFFLINE is set", "has changed since it was written", "has no manifest", "is a selection, so its"):
        assert message in said


@pytest.mark.parametrize("way", ["a link", "skipped_rows", "dropped_rows", "files", "a linked card"])
def test_no_file_from_elsewhere_is_pushed(way, selection, tmp_path):
    (tmp_path / "secret.jsonl").write_text('{"reason": "private key"}\n')
    out = shutil.copytree(selection / "out", tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    if way == "a link":
        rows = (out / "train.parquet").rename(tmp_path / "rows.parquet")
        (out / "train.parquet").symlink_to(rows)
    elif way == "a linked card":
        (out / "README.md").unlink()
        (out / "README.md").symlink_to(tmp_path / "secret.jsonl")
    elif way == "files":
        manifest["output"]["files"][0]["name"] = "../out/train.parquet"
    else:
        manifest[way] = "../secret.jsonl"
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"symbolic link|is not the name of a file"):
        selection_contents(out, tmp_path / "made")


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "LICENSE"])
def test_no_link_in_a_ranker_is_pushed(name, tiny_ranker, tmp_path):
    ranker = shutil.copytree(tiny_ranker, tmp_path / "ranker")
    (ranker / "vocab.private").write_text("secret")
    (ranker / "LICENSE.key").write_text("secret")
    assert not {"vocab.private", "LICENSE.key"} & set(ranker_contents(ranker, tmp_path / "made"))
    target = tmp_path / "private"
    target.write_bytes((ranker / name).read_bytes() if (ranker / name).exists() else b"secret")
    (ranker / name).unlink(missing_ok=True)
    (ranker / name).symlink_to(target)
    with pytest.raises(ValueError, match=r"symbolic link, which is not followed"):
        ranker_contents(ranker, tmp_path / "again")


def test_a_repository_made_by_hand_is_taken_and_another_only_when_told(hub, client, selection):
    hub.make("datasets", "me/new", {"README.md": b"---\nlicense: mit\n---\n\n# Mine\n"})
    hub.make("datasets", "me/taken", {"train.csv": b"a\n1\n"})
    client.push(selection / "out", "me/new")
    card = hub.files("datasets", "me/new")["README.md"].decode()
    assert "license: mit" in card and "# Mine" in card and "10 of 40 rows" in card
    client.push(selection / "out", "me/taken", "--overwrite")
    assert hub.files("datasets", "me/taken")["train.csv"] == b"a\n1\n"


def test_a_connection_that_drops_in_the_middle_of_a_file_is_taken_up_again(hub, client, selection):
    hub.on_upload = lambda number: number == 1
    client.push(selection / "out", "me/best")
    assert len(hub.uploads) == 3 and len(set(hub.uploads)) == 2  # the picture and the rows, one of them twice
    assert len(commits(hub, "datasets", "me/best")) == 1


def test_a_commit_that_is_lost_is_an_error_and_the_next_push_sends_no_file_again(hub, client, selection):
    hub.on_commit = lambda number: number == 1
    said = client.push(selection / "out", "me/best", status=1)
    assert "Run the same command again" in said and "Traceback" not in said
    assert commits(hub, "datasets", "me/best") == [] and len(hub.uploads) == 2
    client.push(selection / "out", "me/best")
    assert len(commits(hub, "datasets", "me/best")) == 1 and len(hub.uploads) == 2


def test_a_push_that_is_killed_half_way_is_resumed(hub, client, clients, selection):
    doomed = clients[1]
    one_is_there = threading.Event()

    def kill_at_the_second(number: int) -> bool:
        if number == 1:
            one_is_there.set()
            return False
        assert one_is_there.wait(20)
        while not hub.objects:  # the first file is still arriving
            one_is_there.wait(0.01)
        doomed.process.send_signal(signal.SIGKILL)
        doomed.process.wait()
        return True

    hub.on_upload = kill_at_the_second
    asked = {"token": "hf_me", "arguments": ["push", str(selection / "out"), "me/best"]}
    doomed.process.communicate(json.dumps(asked) + "\n", timeout=60)
    assert doomed.process.returncode == -signal.SIGKILL
    assert commits(hub, "datasets", "me/best") == [] and len(hub.objects) == 1
    hub.on_upload = lambda number: False
    client.push(selection / "out", "me/best")
    assert len(commits(hub, "datasets", "me/best")) == 1 and len(hub.uploads) == 3
    assert hub.files("datasets", "me/best")["data/train.parquet"] == (selection / "out" / "train.parquet").read_bytes()


def test_a_branch_and_a_private_repository(hub, client, selection):
    client.push(selection / "out", "me/best", "--private", "--revision", "k10")
    repo = hub.repo("datasets", "me/best")
    assert repo.visibility == "private" and set(hub.files("datasets", "me/best")) == {".gitattributes"}
    assert "manifest.json" in hub.files("datasets", "me/best", "k10")
    client.push(selection / "out", "open", "--public")  # of the user whose token it is
    assert hub.repo("datasets", "me/open").visibility == "public"


def test_a_ranking_is_pushed_from_python(hub, client, selection, tiny_ranker):
    said = client.run(
        "from scar_hf import scar_rank\nfrom scar_hf.files import read_dataset\n"
        f"ranking = scar_rank(read_dataset({str(selection / 'data.jsonl')!r}), model={str(tiny_ranker)!r}, device='cpu',"
        " dtype='float32', backend='torch', progress=False)\n"
        "report = ranking.push_to_hub('me/from-python', 10, stratify_by='source', diversity=0.5, private=True,"
        " card={'license': 'MIT'})\n"
        "from datasets import load_dataset\n"
        "pulled = load_dataset('me/from-python', split='train').to_list()\n"
        "assert pulled == ranking.top(10, stratify_by='source', diversity=0.5).to_list()\n"
        "print(report.changed, len(report.files))\n"
    )
    assert said.split()[-2:] == ["True", "4"] and len(commits(hub, "datasets", "me/from-python")) == 1
    files = hub.files("datasets", "me/from-python")
    manifest = json.loads(files["manifest.json"])
    assert manifest["selection"]["kept"] == manifest["output"]["rows"] == 10
    assert manifest["options"] == {"k": 10, "stratify_by": "source", "diversity": 0.5}
    text = files["README.md"].decode()
    assert "subject to quotas for 'source' and diversity 0.5." in text.replace("\\", "")
    assert "--stratify-by source --diversity 0.5" in text


def test_a_ranker_is_pushed_and_loaded_by_its_id(hub, client, scorer, tmp_path):
    client.push("scar-ranker", "me/ranker", "--license", "apache-2.0")
    assert len(commits(hub, "models", "me/ranker")) == 1
    files = hub.files("models", "me/ranker")
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_scar.py", "_images/calibration.png"} <= set(files)
    client.run(
        "import numpy as np\nfrom transformers import AutoModel\nfrom scar_hf import ScarScorer\n"
        "assert type(AutoModel.from_pretrained('me/ranker')).__name__ == 'ScarModel'\n"
        "scorer = ScarScorer.from_pretrained('me/ranker', device='cpu', dtype='float32', backend='torch')\n"
        f"np.save({str(tmp_path / 'scores.npy')!r}, scorer.score(['What do bees eat?', 'Why?'], ['Nectar.', 'It is so.']))\n"
    )
    expected = scorer.score(["What do bees eat?", "Why?"], ["Nectar.", "It is so."])
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-5)
    said = client.push("scar-ranker", "me/ranker")
    assert "nothing was changed" in said


def test_a_model_in_memory_pushes_itself(hub, client, tiny_ranker):
    client.run(
        "from transformers import AutoModel\nimport scar_hf\n"
        "from transformers import AutoTokenizer\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(tiny_ranker)!r})\n"
        f"model = AutoModel.from_pretrained({str(tiny_ranker)!r})\n"
        "model.push_to_hub('me/mine', tokenizer=tokenizer, card={'license': 'mit'})\n"
        "assert type(AutoModel.from_pretrained('me/mine', trust_remote_code=False)).__name__ == 'ScarModel'\n"
    )
    files = hub.files("models", "me/mine")
    assert len(commits(hub, "models", "me/mine")) == 1 and {"modeling_scar.py", "tokenizer.json"} <= set(files)
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "mit" and card.data.pipeline_tag == "text-ranking" and "me/mine" in card.text
