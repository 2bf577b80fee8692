"""Records interrupts by the user, because libraries turn an interrupt during their import into other errors."""

import signal
from types import FrameType
from typing import NoReturn

seen = False


def note_interrupts() -> None:
    """Install a handler that records an interrupt and then raises it as usual."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)


def _note(signum: int, frame: FrameType | None) -> NoReturn:
    global seen
    seen = True
    raise KeyboardInterrupt
