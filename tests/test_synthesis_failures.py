"""Requests that an endpoint refuses concern one row; a run that stops keeps what it has paid for."""

import re
import runpy
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset

from scar_hf.synthesis import BackendError, EndpointBackend, synthesize

endpoint = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "fault_server.py"))).endpoint
REFUSED = {3, 8, 9, 15, 21, 30, 33}


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """The client of huggingface_hub talks to nobody in offline mode, not even to loopback."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def number_of(request: dict) -> int:
    return int(re.search(r"Question (\d+)\?", request["messages"][-1]["content"])[1])


def answer(request: dict) -> str | int:
    number = number_of(request)
    return 400 if number in REFUSED else f"Bees eat nectar, pollen and honey in the field with the number {number}."


def rows(count: int) -> Dataset:
    return Dataset.from_list([{"instruction": f"Question {i}?", "response": f"A human answer {i}."} for i in range(count)])


@pytest.mark.parametrize("concurrency", [1, 4])
def test_refused_rows_stop_neither_a_rerun_nor_an_extension(tmp_path, concurrency):
    log = tmp_path / "log.jsonl"
    with endpoint(answer) as server:
        for count, asked in ((40, 40), (40, 7), (50, 17)):
            before = server.asked.total()
            backend = EndpointBackend("m", server.url, concurrency=concurrency)
            made = synthesize(rows(count), backend, kinds=["direct"], log=log, progress=False)
            assert len(made) == count - len(REFUSED)
            assert server.asked.total() - before == asked


def test_requests_in_flight_are_kept_when_a_run_stops(tmp_path):
    log = tmp_path / "log.jsonl"
    slow = threading.Event()

    def fails_late(request: dict) -> str | int:
        number = number_of(request)
        if number < 3:
            slow.wait(10)
            time.sleep(0.5)
            return f"An answer that was paid for, number {number}, about bees."
        slow.set()
        return 404

    with endpoint(fails_late) as server:
        backend = EndpointBackend("m", server.url, concurrency=4)
        with pytest.raises(BackendError, match="has no model"):
            synthesize(rows(20), backend, kinds=["direct"], log=log, progress=False)
    assert log.read_text(encoding="utf-8").count("that was paid for") == 3
