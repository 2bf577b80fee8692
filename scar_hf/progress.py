"""Controls progress bars: they appear only on a terminal or in a notebook, unless they are turned off."""

from collections.abc import Iterator
from contextlib import contextmanager

_off = False


def disable_progress_bars() -> None:
    """Turn off the progress bars of scar-hf and of the libraries that it calls, in this process."""
    global _off
    _off = True
    import datasets
    from huggingface_hub.utils import disable_progress_bars as disable_bars_of_the_hub
    from transformers.utils import logging

    datasets.disable_progress_bars()
    disable_bars_of_the_hub()
    logging.disable_progress_bar()


def hidden(progress: bool) -> bool | None:
    """
    Return the value of `disable` for `tqdm`.

    Args:
        progress (`bool`): whether a bar is wanted.

    Returns:
        `bool` or `None`: `True` for no bar; `None` for a bar if there is a terminal or a notebook to show it.
    """
    return None if progress and not _off else True


@contextmanager
def no_loading_bars(report: bool = True) -> Iterator[None]:
    """
    Keep transformers from showing a bar while it loads weights.

    Args:
        report (`bool`, *optional*, defaults to `True`): whether it prints a table of weights that do not fit the model.
    """
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    if not report:
        logging.set_verbosity(max(verbosity, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
