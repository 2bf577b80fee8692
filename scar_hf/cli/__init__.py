"""The command line: `scar-hf select`, `score`, `explain`, `verify`, `export` and `train`."""

import argparse
import sys
from collections.abc import Sequence

from .._version import __version__
from . import explain, export, score, select, train, verify

_COMMANDS = {
    "select": select,
    "score": score,
    "explain": explain,
    "verify": verify,
    "export": export,
    "train": train,
}


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
            add_help=name != "train",
        )
        module.add_arguments(command)
    args, rest = parser.parse_known_args(argv)  # `train` reads the rest itself: its options are dataclass fields
    if rest and args.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # The Auto classes learn the ranker here: `import scar_hf` leaves it to the command line, whose --help needs no torch.
    from .. import modeling as modeling

    try:
        return train.run(args, rest) if args.command == "train" else _COMMANDS[args.command].run(args)
    except (ValueError, ImportError, OSError) as error:
        print(f"scar-hf {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"scar-hf {args.command}: interrupted", file=sys.stderr)
        return 130
