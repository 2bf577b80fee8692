"""Recreates threads and locks in forked processes, because they do not survive a fork."""

import os
from typing import Protocol
from weakref import WeakSet


class StartsWorkers(Protocol):
    """An object that owns threads or locks."""

    def start_workers(self) -> None:
        """Create the threads or locks anew."""
        ...


_OWNERS: "WeakSet[StartsWorkers]" = WeakSet()


def restart_after_fork(owner: StartsWorkers) -> None:
    """Call `owner.start_workers()` in every process that is forked from now on."""
    _OWNERS.add(owner)


def _restart() -> None:
    for owner in list(_OWNERS):
        owner.start_workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart)
