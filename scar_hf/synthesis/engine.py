"""Send requests to models with limited concurrency and within a budget, and store each completion once."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tqdm.auto import tqdm

from ..progress import hidden
from .backends import Backend, BackendError, CompletionError, Messages, Sampling
from .completion_log import CompletionLog, completion_key

T = TypeVar("T")
# Number of consecutive failures after which a run stops using a backend.
_FAILURES_IN_A_ROW = 5
# Seconds that paid requests in flight get to finish once a run stops.
_GRACE = 60
_CHARACTERS_PER_TOKEN = 3  # a low ratio, so that the tokens of a prompt are not underestimated


@dataclass(frozen=True)
class Request:
    """
    One chat for one model.

    Args:
        messages (`Sequence[Mapping]`): the chat.
        sampling ([`Sampling`]): the sampling settings.
        kind (`str`): purpose of the answer, recorded in the log.
    """

    messages: Messages
    sampling: Sampling
    kind: str

    def key(self, model: str) -> str:
        """Return the log key of a model's completion of this request (`str`)."""
        return completion_key(self.messages, model, self.sampling)

    def most_tokens(self) -> int:
        """Estimate the maximum number of tokens that this request costs."""
        return sum(len(message["content"]) for message in self.messages) // _CHARACTERS_PER_TOKEN + self.sampling.max_tokens


@dataclass
class Usage:
    """
    The budget and usage of a run.

    Args:
        max_requests, max_tokens (`int`, *optional*): the budget of this run; completions already in the log are free.

    Raises:
        `ValueError`: if a budget is negative.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    requests: int = 0
    tokens: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    exhausted: bool = False
    _reserved: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        for name, value in (("max_requests", self.max_requests), ("max_tokens", self.max_tokens)):
            if value is not None and value < 0:
                raise ValueError(f"`{name}` must be 0 or more, got {value}.")

    def allows(self, tokens: int) -> bool | None:
        """Return whether a request may be sent; `None` if that depends on the requests in flight."""
        if self.exhausted or (self.max_requests is not None and self.requests >= self.max_requests):
            return False
        if self.max_tokens is None or self.tokens + self._reserved + tokens <= self.max_tokens:
            return True
        return None if self._reserved else False

    def begin(self, tokens: int) -> None:
        """Count a new request and reserve its maximum cost."""
        self.requests += 1
        self._reserved += tokens

    def end(self, reserved: int, tokens: int) -> None:
        """Replace the reserved cost of a request by its actual cost."""
        self._reserved -= reserved
        self.tokens += tokens


async def complete_all(
    requests: Sequence[tuple[Backend, Request]], log: CompletionLog, usage: Usage, progress: bool = True
) -> None:
    """
    Request the completions missing from the log, and append each to it on arrival. Equal requests are sent once.

    Args:
        requests (`Sequence` of `(Backend, Request)`): the requests and the backends to send them to.
        log ([`CompletionLog`]): stores the completions.
        usage ([`Usage`]): the budget. Once it is exhausted, requests in flight finish and no new ones are sent.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar, on a terminal only.

    Raises:
        `BackendError`: if a backend cannot answer at all. Earlier completions remain in the log.
        `OSError`: if the log cannot be written.
    """
    missing: dict[str, tuple[Backend, Request]] = {}
    for backend, request in requests:
        key = request.key(backend.model)
        if log.get(key) is None:
            missing.setdefault(key, (backend, request))
    if not missing:
        return
    if usage.max_requests == 0:
        usage.exhausted = True
        return
    log.open()
    missing = {key: value for key, value in missing.items() if log.get(key) is None}
    done = len(requests) - len(missing)
    with tqdm(total=len(requests), initial=done, unit="answer", disable=hidden(progress)) as bar:
        workers: list[Coroutine[Any, Any, None]] = []
        problems: list[BackendError] = []
        for backend in {id(backend): backend for backend, _ in missing.values()}.values():
            queue = iter([(key, request) for key, (other, request) in missing.items() if other is backend])
            channel = _Channel(backend, queue, log, usage, bar, problems)
            workers += [channel.work() for _ in range(backend.concurrency)]
        try:
            await _run_until(workers, problems)
        finally:
            for backend in {id(backend): backend for backend, _ in missing.values()}.values():
                with contextlib.suppress(Exception):
                    await backend.close()
    if problems:
        raise problems[0]


class _Channel:
    """
    The requests to one backend; each worker sends the next request once its previous one is answered. All channels stop
    as soon as `problems`, which they share, holds an error.
    """

    def __init__(
        self,
        backend: Backend,
        queue: Iterator[tuple[str, Request]],
        log: CompletionLog,
        usage: Usage,
        bar: tqdm,
        problems: list[BackendError],
    ) -> None:
        self.backend, self.queue, self.log, self.usage, self.bar = backend, queue, log, usage, bar
        self.problems = problems
        self.failures = 0

    async def work(self) -> None:
        for key, request in self.queue:
            tokens = request.most_tokens()
            while (allowed := self.usage.allows(tokens)) is None and not self.problems:
                await asyncio.sleep(0.05)
            if self.problems:
                return
            if not allowed:
                self.usage.exhausted = True
                return
            await self._complete(key, request, tokens)

    async def _complete(self, key: str, request: Request, tokens: int) -> None:
        self.usage.begin(tokens)
        used = 0
        try:
            completion = await self.backend.complete(request.messages, request.sampling)
            used = completion.tokens
            self.log.add(key, completion, kind=request.kind, model=self.backend.model)
            self.failures = 0
        except CompletionError as error:
            self.usage.failed[str(error)] = self.usage.failed.get(str(error), 0) + 1
            # A rerun begins with the requests that were refused before, so they must not stop it.
            self.failures += not (error.of_request and len(self.log))
            if self.failures >= _FAILURES_IN_A_ROW or (self.failures >= self.backend.concurrency and not len(self.log)):
                self.problems.append(BackendError(str(error)))
        except BackendError as error:
            self.problems.append(error)
        finally:
            self.usage.end(tokens, used)
        self.bar.update()
        self.bar.set_postfix_str(f"{self.usage.requests:,} requests, {self.usage.tokens:,} tokens", refresh=False)


async def _run_until(workers: Sequence[Coroutine[Any, Any, None]], problems: Sequence[BackendError]) -> None:
    """Run all coroutines until one finds a problem; the others then have a minute to finish. Another error cancels them."""
    tasks = [asyncio.ensure_future(worker) for worker in workers]
    pending = set(tasks)
    try:
        while pending and not problems:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        if pending:
            await asyncio.wait(pending, timeout=_GRACE)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion; use a separate thread if an event loop is already running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
