"""`scar-hf verify`: check an output against its manifest."""

import argparse

HELP = "check that an output and its inputs match the manifest byte for byte"
EXAMPLE = "scar-hf verify selected.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("path", metavar="OUT", help="output of scar-hf score or select, or its manifest.json")


def run(args: argparse.Namespace) -> int:
    """Check and print the results; return 1 if a check failed."""
    from ..runs import verify_manifest
    from .terminal import printable

    checks = verify_manifest(args.path)
    words = {True: "ok", False: "FAILED", None: "not checked"}
    for check in checks:
        print(f"{words[check.passed]:>11}  {printable(check.what)}{': ' + printable(check.detail) if check.detail else ''}")
    return 1 if any(check.passed is False for check in checks) else 0
