"""Direct and referenced responses, from endpoints that fail and from a real server."""

import json
import re
import resource
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset

from scar_hf.cli import main
from scar_hf.synthesis import BackendError, EndpointBackend, RowChoice, Sampling, TransformersBackend, synthesize
from scar_hf.synthesis.endpoint import retry_after
from scar_hf.training import load_triples

endpoint = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "fault_server.py"))).endpoint
DIRECT = "user: '{instruction}'\n"
REFERENCED = "user: 'Say this in other words: {response}'\n"


def answer(request: dict) -> str:
    """A good answer, another one to each message."""
    text = request["messages"][-1]["content"]
    number = "".join(filter(str.isdigit, text)) or "0"
    return f"Clay from pit {number} is fired slowly for about {len(text)} hours until all of it rings like a bell."


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The client of huggingface_hub talks to nobody in offline mode, not even to loopback."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.fixture
def human(tmp_path):
    """A file with so many human answers, and prompt files whose messages a test can tell apart."""

    def make(n: int):
        path = tmp_path / "human.jsonl"
        rows = [{"instruction": f"How is pot {i} made?", "response": f"Pot {i}: clay, wheel, kiln."} for i in range(n)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    (tmp_path / "direct.yaml").write_text(DIRECT)
    (tmp_path / "referenced.yaml").write_text(REFERENCED)
    return make


@pytest.fixture
def command(tmp_path):
    """The arguments of a synthesis."""

    def make(data, *rest, url: str | None = None, output="triples.jsonl") -> list[str]:
        prompts = ["--direct-prompt", str(tmp_path / "direct.yaml"), "--referenced-prompt", str(tmp_path / "referenced.yaml")]
        where = [] if url is None else ["--base-url", url]
        return ["synthesize", str(data), "-o", str(tmp_path / output), "--model", "m", *where, *prompts, *rest]

    return make


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_thousand_requests_through_faults_and_two_kills(tmp_path, human, command):
    log = tmp_path / "triples.jsonl.completions.jsonl"
    with endpoint(answer, faulty=True) as server:
        # The waits of a request between its attempts are the command's own; many at a time make them short in all.
        args = [sys.executable, "-m", "scar_hf", *command(human(500), "--concurrency", "32", url=server.url)]
        logged: list[dict] = []
        for kill_at in (200, 600):
            process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            while server.answered.total() < kill_at:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            time.sleep(0.3)  # what the server is answering
            answered_then = {entry["text"] for entry in read_whole_lines(log)}
            asked_then = Counter(server.asked)
            logged.append((answered_then, asked_then))
        run = subprocess.run(args, capture_output=True, text=True, check=True)
        for answered_then, asked_then in logged:
            again = [text for text, n in server.asked.items() if n > asked_then[text] and answer_to(text) in answered_then]
            assert again == [], "what the log held was asked again"
        assert len(server.asked) == 1000 and all(server.answered.values())
        # A kill loses at most what was under way.
        assert server.answered.total() <= 1000 + 2 * 32
        assert server.most_under_way <= 32
        assert all(server.faults[fault] > 20 for fault in ("429", "429 with Retry-After", "500", "half a JSON", "closed"))
    assert "Wrote 500 triples" in run.stdout
    entries = read_whole_lines(log)
    assert len({entry["key"] for entry in entries}) == len(entries) == 1000
    triples = load_triples(tmp_path / "triples.jsonl")
    assert len(triples) == 500 and all(set(triple.responses) == {"direct", "referenced", "human"} for triple in triples)
    for i, triple in enumerate(triples):
        assert triple.responses["direct"] == [answer_to(f"How is pot {i} made?")]
        assert triple.responses["referenced"] == [answer_to(f"Say this in other words: Pot {i}: clay, wheel, kiln.")]


def answer_to(text: str) -> str:
    return answer({"messages": [{"content": text}]})


def read_whole_lines(path) -> list[dict]:
    entries = []
    for line in path.read_bytes().split(b"\n"):
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def test_it_waits_as_long_as_it_is_told(tmp_path):
    with endpoint(answer, status=429, headers={"Retry-After": "1"}) as server:
        backend = EndpointBackend("m", server.url, attempts=2, concurrency=1)
        with pytest.raises(BackendError, match="HTTP 429"):
            synthesize(Dataset.from_list([{"instruction": "a", "response": "b"}]), backend, kinds=["direct"], progress=False)
        assert server.times[1] - server.times[0] >= 1
    assert retry_after({"retry-after": "7"}) == 7
    assert 50 < retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)}) <= 60
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


def test_an_endpoint_that_asks_for_an_hour_is_not_waited_for():
    rows = Dataset.from_list([{"instruction": "a", "response": "b"}])
    message = "come back in 3600 seconds"
    with endpoint(answer, status=429, headers={"Retry-After": "3600"}) as server, pytest.raises(BackendError, match=message):
        synthesize(rows, EndpointBackend("m", server.url))


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, r"refused the key in \$SCAR_HF_API_KEY \(HTTP 401"), (404, "has no model 'm'"), (400, "did not take the request")],
)
def test_what_no_retry_cures_ends_at_once_without_the_key(tmp_path, human, command, capsys, monkeypatch, status, message):
    monkeypatch.setenv("SCAR_HF_API_KEY", "sk-very-secret")
    monkeypatch.setenv("HF_TOKEN", "hf_also_secret")
    with endpoint(answer, status=status, body=b'{"error": "Bearer sk-very-secret: no"}') as server:
        assert main(command(human(100), url=server.url)) == 1
        assert server.authorization == {"Bearer sk-very-secret"} and sum(server.asked.values()) <= 20
    said = capsys.readouterr()
    assert re.search(message, said.err)
    everything = said.out + said.err + "".join(path.read_text() for path in tmp_path.iterdir())
    assert "sk-very-secret" not in everything


def test_without_a_key_nobody_gets_the_hugging_face_token(tmp_path, human, command, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("SCAR_HF_API_KEY", "sk-secret")
    monkeypatch.setenv("OTHER_KEY", "other")
    with endpoint(answer) as server:
        main(command(human(1), "--key-variable", "UNSET", url=server.url))
        assert "hf_secret" not in str(server.authorization) and "sk-secret" not in str(server.authorization)
        main(command(human(1), "--key-variable", "OTHER_KEY", url=server.url, output="b.jsonl"))
        assert "Bearer other" in server.authorization
    assert "other" not in (tmp_path / "b.jsonl.manifest.json").read_text()


def test_offline_mode_is_told(human, command, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with endpoint(answer) as server:
        assert main(command(human(3), url=server.url)) == 1
        assert not server.asked
    assert "HF_HUB_OFFLINE=0" in capsys.readouterr().err


# Messages about the options themselves, which end with another status than those about files and servers.
WRONG_CALLS = ("No endpoint", "must not hold a password", "must be an address such as")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": None}, "No endpoint"),
        ({"url": "http://user:pw@127.0.0.1:1/v1"}, "must not hold a password"),
        ({"url": "127.0.0.1:8000"}, "must be an address such as"),
        ({"url": "http://127.0.0.1:9/v1"}, "could not be reached"),
        ({"data": ""}, "no rows"),
        ({"data": '{"instruction": "a", "response": ""}\n'}, "None of 1 rows has an instruction with a human response"),
        ({"data": '{"instruction": "a"}\n'}, "No instruction and response found"),
        ({"direct.yaml": "user: Answer this!"}, r"needs \{instruction\} in each `user` prompt, and this one has none"),
        ({"referenced.yaml": "user: ['{response}', 'Rewrite {human}']"}, r"needs \{response\}.* has \{human\}"),
        ({"direct.yaml": "just text"}, "must be YAML with `user`"),
        ({"direct.yaml": None}, "cannot be read"),
        ({"triples.jsonl": "mine"}, "exists and has no manifest"),
    ],
)
def test_bad_input_is_told_clearly(tmp_path, human, command, capsys, change, message):
    data = human(2)
    for name, content in change.items():
        if name == "data":
            data.write_text(content)
        elif name != "url" and content is None:
            (tmp_path / name).unlink()
        elif name != "url":
            (tmp_path / name).write_text(content)
    url = change.get("url", "http://127.0.0.1:9/v1")
    assert main(command(data, url=url)) == (2 if message in WRONG_CALLS else 1)
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error
    if "triples.jsonl" in change:
        assert (tmp_path / "triples.jsonl").read_text() == "mine"


def test_a_full_disk_is_told_and_loses_nothing(tmp_path, human, command, capsys):
    log = tmp_path / "triples.jsonl.completions.jsonl"
    with endpoint(answer) as server:
        args = command(human(40), "--concurrency", "2", url=server.url)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            assert main(args) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        error = capsys.readouterr().err
        assert "File too large" in error and str(log) in error and "are kept in it" in error
        kept = lines(log)  # whole lines only
        assert 10 < len(kept) < 40
        assert main(args) == 0
        assert sum(server.answered.values()) <= 80 + 2
    assert len(lines(tmp_path / "triples.jsonl")) == 40


def test_a_budget_stops_cleanly_and_a_larger_one_continues(tmp_path, human, command, capsys):
    with endpoint(answer) as server:
        assert main(command(human(20), "--max-requests", "7", url=server.url)) == 0
        said = capsys.readouterr().out
        assert "this run: 7 requests" in said and "The budget is used up" in said and sum(server.asked.values()) == 7
        tokens = Counter()
        assert main(command(tmp_path / "human.jsonl", "--max-total-tokens", "150", "--max-tokens", "40", url=server.url)) == 0
        assert sum(server.asked.values()) > 7
        manifest = json.loads((tmp_path / "triples.jsonl.manifest.json").read_text())
        assert manifest["rows"]["answered"] == 20
        assert manifest["data"] == "human.jsonl" and str(tmp_path) not in json.dumps(manifest), "it may be published"
        tokens.update(
            entry["prompt_tokens"] + entry["completion_tokens"]
            for entry in lines(tmp_path / "triples.jsonl.completions.jsonl")[7:]
        )
        assert sum(n * times for n, times in tokens.items()) <= 150
        asked = sum(server.asked.values())
        assert main(command(tmp_path / "human.jsonl", "--max-requests", "0", url=server.url)) == 0
        assert sum(server.asked.values()) == asked
        assert main(command(tmp_path / "human.jsonl", "--max-tokens", "40", url=server.url)) == 0
    assert len(lines(tmp_path / "triples.jsonl")) == 20


def test_a_torn_line_is_passed_over_and_a_second_writer_refused(tmp_path, human, command, capsys):
    log = tmp_path / "triples.jsonl.completions.jsonl"
    with endpoint(answer) as server:
        main(command(human(5), url=server.url))
        whole = log.read_bytes()
        log.write_bytes(whole[:-30])
        main(command(tmp_path / "human.jsonl", url=server.url))
        assert sum(server.asked.values()) == 11
        assert len(read_whole_lines(log)) == 10
        from scar_hf.synthesis import CompletionLog

        other = CompletionLog(log)
        other.open()
        capsys.readouterr()
        assert main(command(human(6), url=server.url)) == 1
        assert "Another process writes to" in capsys.readouterr().err
        other.close()


def test_what_was_left_out_is_counted_with_the_reason(tmp_path, human, command, capsys):
    def bad(request: dict) -> str | dict:
        text = request["messages"][-1]["content"]
        if "pot 0" in text:
            return "I'm sorry, but I can't help with that."
        if "pot 1" in text:
            message = {"role": "assistant", "content": "It begins with"}
            return {"choices": [{"index": 0, "message": message, "finish_reason": "length"}]}
        if "pot 2" in text:
            return {"choices": [{"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}]}
        return answer(request)

    with endpoint(bad) as server:
        main(command(human(4), "--kinds", "direct", "--source", "pots", "--licence", "MIT", url=server.url))
    assert "kept 1; left out 3" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "triples.jsonl.manifest.json").read_text())
    assert manifest["responses"]["direct"]["m"] == {"kept": 1, "refusal": 1, "cut off": 1, "empty": 1}
    assert [row["reason"] for row in lines(tmp_path / "triples.jsonl.rejected.jsonl")] == ["refusal", "cut off", "empty"]
    (row,) = lines(tmp_path / "triples.jsonl")
    assert (row["source"], row["licence"], row["human"]) == ("pots", "MIT", "Pot 3: clay, wheel, kiln.")


def test_what_was_cut_off_can_be_kept_up_to_its_last_sentence(tmp_path, human, command, capsys):
    def cut(request: dict) -> dict:
        text = f"{answer(request)} It is glazed with ash and salt. Then the pot"
        return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}]}

    with endpoint(cut) as server:
        main(command(human(2), "--kinds", "direct", url=server.url))
        assert lines(tmp_path / "triples.jsonl") == []
        main(command(tmp_path / "human.jsonl", "--kinds", "direct", "--trim", url=server.url))
        assert sum(server.asked.values()) == 2
    assert "of those kept, 2 were cut off" in capsys.readouterr().out
    assert all(row["direct"]["m"].endswith("ash and salt.") for row in lines(tmp_path / "triples.jsonl"))


def test_a_folder_of_triples_holds_no_other_rows(tmp_path, human, command):
    with endpoint(answer) as server:
        assert main(command(human(3), url=server.url, output="triples")) == 0
    assert {path.name for path in (tmp_path / "triples").glob("[a-z]*")} == {
        "train.jsonl",
        *(f"train.jsonl.{name}" for name in ("completions.jsonl", "rejected.jsonl", "manifest.json")),
    }
    assert len(load_triples(tmp_path / "triples")) == 3


def test_several_models_and_prompts_and_equal_rows_once(tmp_path):
    rows = [{"prompt": f"What is {i % 10}?", "completion": f"A number, namely {i % 10}."} for i in range(20)]
    prompt = tmp_path / "direct.yaml"
    prompt.write_text("system: ['', 'Be brief.']\nuser: ['{instruction}', 'Please: {instruction}']")
    with endpoint(lambda request: f"{request['model']} says: {answer(request)}") as server:
        models = [EndpointBackend(name, server.url) for name in ("small", "large")]
        sampling = Sampling(temperature=0.3, top_p=0.9, max_tokens=99, seed=5)
        log = tmp_path / "log.jsonl"
        made = synthesize(Dataset.from_list(rows), models, kinds=["direct"], direct_prompt=prompt, sampling=sampling, log=log)
        assert sum(server.asked.values()) == 20, "equal rows are asked once"
        sent = server.requests[0]
        assert {name: sent[name] for name in ("temperature", "top_p", "max_tokens", "seed")} == sampling.settings()
        shapes = {(len(request["messages"]), request["messages"][-1]["content"][:6] == "Please") for request in server.requests}
        assert len(shapes) == 4
        synthesize(Dataset.from_list(rows), models, kinds=["direct"], direct_prompt=prompt, sampling=sampling, log=log)
        assert sum(server.asked.values()) == 20
        synthesize(Dataset.from_list(rows), models, kinds=["direct"], direct_prompt=prompt, log=log)
        assert sum(server.asked.values()) == 40, "other sampling is another answer"
    assert len(made) == 20 and set(made[0]["direct"]) == {"small", "large"}
    assert len(load_triples(made)[0].responses["direct"]) == 2


def test_more_rows_of_a_draw_keep_the_fewer():
    rows = [{"instruction": f"Question {i}", "response": "word " * i} for i in range(1, 40)]
    choice = {"seed": 3, "min_response_words": 5, "max_response_words": 30}
    with endpoint(answer) as server:
        backend = EndpointBackend("m", server.url)
        asked = {}
        for n in (5, 10):
            server.asked.clear()
            synthesize(Dataset.from_list(rows), backend, kinds=["direct"], choice=RowChoice(n, **choice), progress=False)
            asked[n] = set(server.asked)
    assert len(asked[5]) == 5 and asked[5] < asked[10]
    assert all(5 <= int(text.split()[1]) <= 30 for text in asked[10])


def test_a_model_of_this_machine_answers_in_batches(tiny_lm, tmp_path, human, command, capsys):
    backend = TransformersBackend(tiny_lm, batch_size=4, dtype="float32", device="cpu")
    rows = Dataset.from_list([{"instruction": f"Say {i}", "response": "one two"} for i in range(6)])
    log = tmp_path / "log.jsonl"
    synthesize(rows, backend, sampling=Sampling(max_tokens=5, seed=1), log=log, progress=False)
    entries = lines(log)
    assert len(entries) == 12 and {entry["model"] for entry in entries} == {backend.model}
    assert all(entry["completion_tokens"] <= 5 and entry["finish_reason"] in ("length", "stop") for entry in entries)
    args = command(human(2), "--max-tokens", "3")
    args[args.index("m")] = tiny_lm
    assert main(args) == 0
    assert "this run: 4 requests" in capsys.readouterr().out


def test_transformers_serve(tiny_lm, tmp_path):
    pytest.importorskip("openai")
    import socket

    from transformers.cli.serve import Serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Serve(force_model=tiny_lm, host="127.0.0.1", port=port, device="cpu", dtype="float32", non_blocking=True)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        backend = EndpointBackend(tiny_lm, f"http://127.0.0.1:{port}/v1")
        rows = Dataset.from_list([{"instruction": f"Say {i}", "response": "one two"} for i in range(3)])
        log = tmp_path / "log.jsonl"
        synthesize(rows, backend, sampling=Sampling(max_tokens=4), log=log, progress=False)
    finally:
        server.kill_server()
    assert len(lines(log)) == 6 and all(entry["completion_tokens"] for entry in lines(log))
