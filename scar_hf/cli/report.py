"""`scar-hf report`: write an HTML page about a selection."""

import argparse
import shlex
from pathlib import Path

from ..scoring.settings import python_arguments
from ..selecting.criteria import OPTIONS
from .common import (
    add_choice_arguments,
    add_scoring_arguments,
    criteria_of,
    engine_of,
    load_scorer,
)
from .terminal import UsageError

HELP = "write an HTML page, readable offline, that shows what a selection kept and why"
EXAMPLE = "scar-hf report data.jsonl selected.jsonl --group-by source -o report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_scoring_arguments(parser)
    parser.add_argument(
        "after", metavar="AFTER", nargs="?", help="output of scar-hf select from DATA; its settings are read from its manifest"
    )
    add_choice_arguments(parser)
    parser.add_argument("-o", "--output", default="report.html", metavar="PAGE", help="page to write (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the page if it exists")
    parser.add_argument("--group-by", metavar="COLUMN", help="column by which to break down the selection, e.g. source")
    parser.add_argument("--lm", metavar="MODEL", help="causal language model for surprisal: a folder, GGUF file or Hub id")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="allow the --lm model to run its own code (default: no)"
    )
    parser.add_argument(
        "--lm-rows", type=int, default=400, metavar="N", help="rows of each set that --lm reads (default: %(default)s)"
    )
    parser.add_argument("--language", default="en", metavar="CODE", help="language of the responses (default: %(default)s)")
    parser.add_argument(
        "--sample", type=int, default=20_000, metavar="N", help="rows of each set to measure (default: %(default)s)"
    )
    parser.add_argument("--map-rows", type=int, default=2000, metavar="N", help="rows on the map (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="sampling seed (default: %(default)s)")
    parser.add_argument("--figures", metavar="FOLDER", help="also write the figures as PNG")
    parser.add_argument("--json", metavar="FILE", help="also write the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Score, reusing cached scores of an earlier selection, measure samples, and write the page."""
    from ..manifest.commands import method_arguments
    from ..manifest.sidecars import manifest_of
    from ..report import report_files

    page = Path(args.output)
    if page.is_dir() or (page.exists() and not args.overwrite):
        raise ValueError(f"{page} exists. Pass --overwrite to replace it, or another path with -o.")
    given = args.k is not None or any(getattr(args, found.name) != found.default for found in OPTIONS)
    if args.after is not None and given:
        raise UsageError(f"{args.after} is already a selection. Omit either AFTER, or -k and the other criteria.")
    manifest = None if args.after is None else manifest_of(args.after)
    _take_settings(args, manifest)
    from ..style import Surprisal

    lm = None if args.lm is None else Surprisal(args.lm, trust_remote_code=args.trust_remote_code)
    report = report_files(
        args.data,
        args.after,
        load_scorer(args, **method_arguments((manifest or {}).get("settings") or {})),
        None if args.after is not None else criteria_of(args),
        split=args.split,
        cache=not args.no_cache,
        engine=engine_of(args),
        group_by=args.group_by,
        lm=lm,
        language=args.language,
        sample=args.sample,
        lm_rows=args.lm_rows,
        map_rows=args.map_rows,
        seed=args.seed,
        command=_command(args),
    )
    report.save(page)
    print(f"{page}: {page.stat().st_size / 1e6:.2f} MB, opens in any browser, offline")
    if args.figures:
        print(f"{args.figures}: {', '.join(path.name for path in report.save_figures(args.figures))}")
    if args.json:
        report.save_numbers(args.json)
        print(f"{args.json}: the numbers")
    return 0


def _take_settings(args: argparse.Namespace, manifest: dict | None) -> None:
    """Take over the selection's settings, except those given on the command line."""
    if manifest is None:
        return
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    settings, ranker = manifest.get("settings") or {}, manifest.get("ranker") or {}
    if settings.get("formatting_func") is not None:
        raise ValueError("The selection used a Python `formatting_func`. Create the report in Python with ranking.report().")
    for name, value in python_arguments({**settings, **ranker}).items():
        if getattr(args, name) == parser.get_default(name):
            setattr(args, name, value)


def _command(args: argparse.Namespace) -> str:
    """Return the command line that reproduces this report, with names for absolute paths, as the page may be published."""
    from ..files import without_local_folders

    parts = ["scar-hf", "report", args.data, *([args.after] if args.after else ["-k", str(args.k)]), "-o", args.output]
    for name in ("group_by", "lm"):
        if getattr(args, name) is not None:
            parts += [f"--{name.replace('_', '-')}", getattr(args, name)]
    for name, default in (("lm_rows", 400), ("language", "en"), ("sample", 20_000), ("map_rows", 2000), ("seed", 0)):
        if getattr(args, name) != default:
            parts += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return shlex.join(without_local_folders(parts))
