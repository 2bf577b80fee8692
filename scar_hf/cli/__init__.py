"""The command line `scar-hf`."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .. import _interrupts
from .._version import __version__
from . import (
    ablate,
    card,
    compare,
    convert,
    evaluate,
    explain,
    export,
    judge,
    push,
    report,
    score,
    select,
    sft,
    synthesize,
    train,
    verify,
)
from .terminal import UsageError, printable

_COMMANDS = {
    "select": select,
    "score": score,
    "explain": explain,
    "verify": verify,
    "report": report,
    "card": card,
    "push": push,
    "export": export,
    "convert": convert,
    "synthesize": synthesize,
    "judge": judge,
    "train": train,
    "evaluate": evaluate,
    "sft": sft,
    "compare": compare,
    "ablate": ablate,
}
# These commands parse the remaining arguments themselves: their options are dataclass fields, known only after torch is loaded.
_TAKING_THE_REST = ("train", "sft")
# Metavars of options that take file names, for shell completion.
_PATHS = ("DATA", "OUT", "FILE", "FOLDER", "PAGE", "TRIPLES", "SOURCE", "HUMAN", "CHECKPOINT", "AFTER")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command; without one, print the help.

    Args:
        argv (`Sequence[str]`, *optional*): the arguments, by default `sys.argv[1:]`.

    Returns:
        `int`: the exit status: 0 for success, 2 for wrong usage, 1 for all other errors and for a failed `verify`.
    """
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    takes_rest = args.command in _TAKING_THE_REST
    if rest and not takes_rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if args.print_completion is not None:
            print(_completion(parser, args.print_completion))
            return 0
        if args.command is None:
            parser.print_help()
            return 0
        run = _COMMANDS[args.command].run
        with _said_as_asked(args):
            return run(args, rest) if takes_rest else run(args)
    except (ValueError, ImportError, OSError) as error:
        if _interrupts.seen:
            raise KeyboardInterrupt from error
        print(f"scar-hf {args.command or ''}".rstrip() + f": {printable(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"scar-hf {args.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scar-hf", description="Keep the instruction-response pairs that teach a language model most."
    )
    parser.add_argument("--version", action="version", version=f"scar-hf {__version__}")
    parser.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "tcsh"),
        metavar="SHELL",
        help="print what makes bash, zsh or tcsh complete commands and options (of the extra [completion])",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=f"{module.HELP[0].upper()}{module.HELP[1:]}.",
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=name not in _TAKING_THE_REST,
        )
        module.add_arguments(command)
        if name not in _TAKING_THE_REST:
            command.add_argument("--no-progress", action="store_true", help="show no bars; without a terminal there are none")
    return parser


def _completion(parser: argparse.ArgumentParser, shell: str) -> str:
    try:
        import shtab
    except ImportError as error:
        raise ImportError('--print-completion needs shtab: pip install "scar-hf[completion]"') from error
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for command in commands.choices.values():
        for action in command._actions:
            if action.metavar in _PATHS:
                action.complete = shtab.FILE
    return str(shtab.complete(parser, shell))


@contextmanager
def _said_as_asked(args: argparse.Namespace) -> Iterator[None]:
    """Show notices and progress bars according to the options while the command runs."""
    if args.command in _TAKING_THE_REST:
        yield
        return
    logging.basicConfig(format="%(message)s")
    quiet = getattr(args, "quiet", False)
    if quiet or args.no_progress or not sys.stderr.isatty():
        from ..progress import disable_progress_bars

        disable_progress_bars()
    logger = logging.getLogger("scar_hf")
    before = logger.level
    try:
        if quiet:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        logger.setLevel(before)
