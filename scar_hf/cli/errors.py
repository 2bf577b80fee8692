"""Mistakes in how a command is called, which end with another status than mistakes in the data."""

from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """Options that contradict each other, or a value that no option takes."""


@contextmanager
def usage() -> Iterator[None]:
    """Take what is wrong with values as a mistake in the options that they come from."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error
