"""What a manifest says of where rows come from, and with what they were chosen, as cards show it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ..selection import criteria_in_words, kind_of_reason
from .sections import escape

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILE = re.compile(r"hf://datasets/([^@]+)@([^/]+)/")


def is_hub_id(text: Any) -> bool:
    """Whether a text can be the id of a repository on the Hub."""
    return isinstance(text, str) and _HUB_ID.fullmatch(text) is not None


def hub_id(manifest: Mapping[str, Any]) -> str | None:
    """The id on the Hub of the data that a selection was made of; `None` if it was not from there."""
    return _hub_source(manifest)[0]


def hub_revision(manifest: Mapping[str, Any]) -> str | None:
    """The commit of that data, where the manifest has it."""
    return _hub_source(manifest)[1]


def _hub_source(manifest: Mapping[str, Any]) -> tuple[str | None, str | None]:
    for entry in manifest.get("inputs", []):
        for file in entry.get("files", []):
            found = _HUB_FILE.match(file)
            if found:
                return found[1], found[2]
        # What the command line read from the Hub; files have a hash, datasets in memory one of their pairs.
        if "fingerprint" in entry and not {"sha256", "pairs_sha256"} & set(entry) and is_hub_id(entry["path"]):
            return entry["path"], None
    return None, None


def source_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table: the data and what identifies it."""
    source, revision = _hub_source(manifest)
    if source is not None:
        facts = [("Source", f"[{escape(source)}](https://huggingface.co/datasets/{source})")]
    else:
        facts = [("Source", escape(manifest["data"]))]
    if revision is not None:
        facts.append(("Its revision", f"`{revision}`"))
    hashes = [entry["sha256"] for entry in manifest.get("inputs", []) if "sha256" in entry]
    prints = [entry["fingerprint"] for entry in manifest.get("inputs", []) if "fingerprint" in entry]
    if len(hashes) == 1:
        facts.append(("Its SHA-256", f"`{hashes[0]}`"))
    elif hashes:
        facts.append(("Its files", f"{len(hashes):,}, whose SHA-256 are in `manifest.json`"))
    if prints and revision is None:
        facts.append(("Its fingerprint", ", ".join(f"`{escape(found)}`" for found in prints)))
    return facts


def choice_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table: what decided besides the score, if anything did."""
    options = manifest.get("options", {})
    criteria = criteria_in_words(options.get("stratify_by"), options.get("diversity") or 0.0)
    return [("Besides the score", escape(criteria))] if criteria else []


def ranker_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table: the ranker and what identifies it."""
    ranker = manifest["ranker"]
    revision = f" at {escape(ranker['revision'])}" if ranker.get("revision") else ""
    return [
        ("Ranker", escape(ranker["model"]) + revision),
        ("Its weights, SHA-256 or commit", f"`{str(ranker.get('weights') or 'unknown')[:16]}`"),
    ]


def share(part: int, whole: int) -> str:
    """A share in per cent; a dash of nothing."""
    if not whole:
        return "-"
    return "< 0.1%" if 0 < part / whole < 0.0005 else f"{part / whole:.1%}"


def without_local_folders(value: Any) -> Any:
    """
    Take a manifest for others to read: of absolute paths, which tell of the machine and its user, only the last name stays.

    Args:
        value: a manifest, or a part of one.

    Returns:
        The same, with names for absolute paths; those are looked for beside the manifest, too.
    """
    if isinstance(value, Mapping):
        return {without_local_folders(key): without_local_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_local_folders(item) for item in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute():
                return kind(value).name
    return value


def count_reasons(reasons: Iterable[str]) -> Counter[str]:
    """Count reasons, without what is each row's own, such as the number of the row that it repeats."""
    return Counter(map(kind_of_reason, reasons))
