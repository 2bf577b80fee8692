"""`scar-hf push`: upload a selection or a ranker to the Hub, with its card, in one commit."""

import argparse
from pathlib import Path
from typing import Any

from .card import add_card_arguments, is_ranker, ranker_options, selection_options

HELP = "upload a selection or ranker to the Hub in one commit, with manifest, card and figures"
EXAMPLE = "scar-hf push selected/ me/dolly-scar-10pct --license cc-by-sa-3.0 --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("source", metavar="SOURCE", help="output of scar-hf select, or a ranker")
    parser.add_argument("repo", metavar="REPO", help="repository, such as me/dolly-scar-10pct")
    parser.add_argument("--type", choices=("dataset", "model"), help="repository type; by default that of SOURCE")
    visibility = parser.add_mutually_exclusive_group()
    visibility.add_argument(
        "--private",
        action="store_true",
        default=None,
        help="make a new repository private; by default as in your Hub settings",
    )
    visibility.add_argument("--public", dest="private", action="store_false", help="make a new repository public")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to, created if needed (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="commit message")
    parser.add_argument("--dry-run", action="store_true", help="list the files without uploading them")
    parser.add_argument("--overwrite", action="store_true", help="allow pushing to a repository that scar-hf did not create")
    add_card_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Collect the files, upload them and print a summary."""
    from ..hub_cards import push, ranker_contents, selection_contents

    found = "model" if is_ranker(args.source) else "dataset"
    if args.type not in (None, found):
        raise ValueError(f"{args.source} is a {'ranker' if found == 'model' else 'selection'}, so its repository is a {found}.")
    options: dict[str, Any] = ranker_options(args) if found == "model" else selection_options(args)

    def build(repo_id: str, card: str | None, folder: Path) -> dict[str, Path]:
        card_options = options | {"repo_id": repo_id} | ({} if card is None else {"card": card})
        if found == "model":
            return ranker_contents(args.source, folder, **card_options)
        return selection_contents(args.source, folder, data=args.data, **card_options)

    report = push(
        build,
        args.repo,
        found,
        private=args.private,
        revision=args.revision,
        message=args.message,
        dry_run=args.dry_run,
        overwrite=args.overwrite,
    )
    for path, size in report.files.items():
        print(f"{size:>14,}  {path}")
    for path in report.deleted:
        print(f"{'removed':>14}  {path}")
    count = f"{len(report.files)} files, {sum(report.files.values()):,} bytes"
    if args.dry_run:
        print(f"{count} would be uploaded to {report.url}; nothing was sent.")
    elif report.changed:
        print(f"{count} are in commit {report.commit} of {report.url}.")
    else:
        print(f"{count} are already in {report.url}; nothing was changed.")
    return 0
