"""An OpenAI-compatible endpoint on loopback that fails in every way that one does, and counts what it was asked."""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What may become of a request, in the order in which the digits of its hash choose.
FAULTS = ("429 with Retry-After", "429", "500", "half a JSON", "nothing", "slow", "closed", "closed midway")
Answer = Callable[[dict], str | dict | int]


class Endpoint:
    """
    What the server knows: `asked` and `answered` count requests by the last message's text, `headers` are the last request's.

    Args:
        answer: from a request to the text of the answer, to the whole reply, or to the status of an error.
        faulty (`bool`): whether half of the requests fail once or twice before they are answered.
        status (`int`): of every reply, with `body`.
    """

    def __init__(self, answer: Answer, faulty: bool = False, status: int = 200, body: bytes = b"", headers: dict | None = None):
        self.answer, self.faulty, self.status, self.body, self.reply_headers = answer, faulty, status, body, headers or {}
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests: list[dict] = []
        self.times: list[float] = []
        self.authorization: set[str | None] = set()
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0
        self.url = ""

    def fault(self, text: str) -> str | None:
        """Choose by the text what goes wrong at this attempt: nothing from the third on."""
        digest = hashlib.sha256(text.encode()).digest()
        attempt = self.asked[text]
        if not self.faulty or attempt > digest[0] % 3:
            return None
        return FAULTS[digest[attempt] % len(FAULTS)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: Endpoint

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        endpoint = self.endpoint
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][-1]["content"]
        with endpoint.lock:
            endpoint.under_way += 1
            endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
            endpoint.asked[text] += 1
            endpoint.requests.append(request)
            endpoint.times.append(time.monotonic())
            endpoint.authorization.add(self.headers.get("Authorization"))
            fault = endpoint.fault(text)
            endpoint.faults[fault or "none"] += 1
        try:
            self.reply(request, text, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with endpoint.lock:
                endpoint.under_way -= 1

    def reply(self, request: dict, text: str, fault: str | None) -> None:
        endpoint = self.endpoint
        if endpoint.status != 200:
            return self.send(endpoint.status, endpoint.body, endpoint.reply_headers)
        answer = endpoint.answer(request)
        if isinstance(answer, int):
            return self.send(answer, b'{"error": "not like that"}')
        if isinstance(answer, str):
            usage = {"prompt_tokens": len(text.split()), "completion_tokens": len(answer.split())}
            message = {"role": "assistant", "content": answer}
            answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
        body = json.dumps(answer).encode()
        if fault == "429 with Retry-After":
            return self.send(429, b'{"error": "slow down"}', {"Retry-After": "0.05"})
        if fault in ("429", "500"):
            return self.send(int(fault), b'{"error": "not now"}')
        if fault == "half a JSON":
            return self.send(200, body[: len(body) // 2])
        if fault == "nothing":
            return self.send(200, b"")
        if fault == "closed":
            self.close_connection = True
            self.connection.close()
            return None
        if fault == "closed midway":
            self.send(200, body[:20], {"Content-Length": str(len(body))})
            self.close_connection = True
            return None
        if fault == "slow":
            time.sleep(0.2)
        self.send(200, body)
        with endpoint.lock:
            endpoint.answered[text] += 1
        return None

    def send(self, status: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


@contextmanager
def endpoint(answer: Answer, **settings) -> Iterator[Endpoint]:
    """Serve on a free port of loopback."""
    state = Endpoint(answer, **settings)
    handler = type("Handler", (_Handler,), {"endpoint": state})
    server = _Server(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
