"""The entry point of `scar-hf` and `python -m scar_hf`."""

import sys

from . import _interrupts


def main() -> int:
    """Run the command line. An interrupt, even during imports, ends it with status 130."""
    _interrupts.note_interrupts()
    try:
        from .cli import main as run

        return run()
    except BaseException:
        if not _interrupts.seen:
            raise
        sys.stderr.write("scar-hf: interrupted\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
