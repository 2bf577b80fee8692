"""Recreates threads and locks in forked processes, because they do not survive a fork."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol
from weakref import WeakSet

import torch


class StartsWorkers(Protocol):
    """An object that owns threads or locks."""

    def start_workers(self) -> None:
        """Create the threads or locks anew."""
        ...


_OWNERS: "WeakSet[StartsWorkers]" = WeakSet()


def restart_after_fork(owner: StartsWorkers) -> None:
    """Call `owner.start_workers()` in every process that is forked from now on."""
    _OWNERS.add(owner)


class LastingThreads:
    """
    Threads that last as long as the process, each limited to one thread per operation. A fork while a thread that used MKL
    is ending can leave a lock of MKL held in the new process, where the next multiplication then never returns.

    Args:
        number (`int`): how many threads.
        name (`str`): their name.
    """

    def __init__(self, number: int, name: str) -> None:
        self._number, self._name = number, name
        self.start_workers()
        restart_after_fork(self)

    def start_workers(self) -> None:
        """Start threads. A forked process, such as a DataLoader worker, does not inherit those of its parent."""
        self._executor = ThreadPoolExecutor(self._number, self._name, initializer=torch.set_num_threads, initargs=(1,))

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Call `function(*args)` in one of the threads."""
        return self._executor.submit(function, *args)


@cache
def lasting_threads(number: int, name: str) -> LastingThreads:
    """Return the process's threads of this number and name."""
    return LastingThreads(number, name)


def _restart() -> None:
    for owner in list(_OWNERS):
        owner.start_workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart)
