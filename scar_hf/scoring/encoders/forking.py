"""Threads and locks do not survive a fork: what owns some makes new ones in the child."""

import os
from typing import Protocol
from weakref import WeakSet


class StartsWorkers(Protocol):
    """What owns threads or locks."""

    def start_workers(self) -> None: ...


_OWNERS: "WeakSet[StartsWorkers]" = WeakSet()


def restart_after_fork(owner: StartsWorkers) -> None:
    """Have an owner of threads or locks make new ones in every process that is forked from now on."""
    _OWNERS.add(owner)


def _restart() -> None:
    for owner in list(_OWNERS):
        owner.start_workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart)
