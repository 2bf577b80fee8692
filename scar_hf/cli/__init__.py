"""The command line: what `scar-hf --help` lists."""

import argparse
import sys
from collections.abc import Sequence

from .._version import __version__
from . import card, convert, evaluate, explain, export, judge, push, report, score, select, sft, synthesize, train, verify
from .terminal import printable

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
}
# These read what is not theirs by themselves: their options are fields of dataclasses, known once torch is loaded.
_TAKING_THE_REST = ("train", "sft")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command.

    Args:
        argv (`Sequence[str]`, *optional*): the arguments; by default those of the process.

    Returns:
        `int`: the exit status, 0 if all went well, 2 for bad input.
    """
    parser = argparse.ArgumentParser(
        prog="scar-hf", description="Keep the instruction-response pairs that teach a language model most."
    )
    parser.add_argument("--version", action="version", version=f"scar-hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
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
    args, rest = parser.parse_known_args(argv)
    takes_rest = args.command in _TAKING_THE_REST
    if rest and not takes_rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        run = _COMMANDS[args.command].run
        return run(args, rest) if takes_rest else run(args)
    except (ValueError, ImportError, OSError) as error:
        print(f"scar-hf {args.command}: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"scar-hf {args.command}: interrupted", file=sys.stderr)
        return 130
