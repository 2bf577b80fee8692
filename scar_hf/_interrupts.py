"""Remembers that the user has interrupted the process, as libraries turn an interrupt during their import into other errors."""

import signal
from types import FrameType
from typing import NoReturn

seen = False


def note_interrupts() -> None:
    """From now on, remember an interrupt before it is raised as usual."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)


def _note(signum: int, frame: FrameType | None) -> NoReturn:
    global seen
    seen = True
    raise KeyboardInterrupt
