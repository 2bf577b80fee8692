"""Converts manifests and source cards to card metadata that the Hub's validator accepts."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, RepoCard
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from huggingface_hub.utils import OfflineModeIsEnabled, httpx

from ..rows.pairs import kind_of_reason
from ..selecting.criteria import criteria_in_words
from .sections import Markdown, escape, read_card

logger = logging.getLogger(__name__)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_FILE = re.compile(r"hf://datasets/([^@]+)@([\w.-]+)/", re.ASCII)
# Metadata that a selection inherits from the card of its source.
_INHERITED = ("license", "license_name", "license_link", "license_details", "language", "task_categories")
# The ids of https://huggingface.co/docs/hub/repositories-licenses; other licences are "other", with a name.
LICENSES = frozenset(
    re.findall(
        r"\S+",
        """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research intel-research isc lgpl
    lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by
    ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """,
    )
)
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)


def license_metadata(license: str | None) -> dict[str, str]:
    """
    Return license metadata for a card; empty if there is no licence.

    Args:
        license (`str`, *optional*): a licence id of the Hub, or a name.

    Returns:
        `dict`: `license`; for a name without an id, `"other"` and `license_name`.
    """
    words = " ".join((license or "").split())
    if not words:
        return {}
    if words.lower() in LICENSES:
        return {"license": words.lower()}
    name = re.sub(r"[^a-z0-9.+]+", "-", words.lower()).strip("-")
    return {"license": "other", "license_name": name or "unnamed"}


def drop_another_license(card: RepoCard, licence: Mapping[str, str]) -> None:
    """Remove the name, link and details of the licence that a card has, unless it is this one."""
    if licence and any(card.data.get(name) != licence.get(name) for name in ("license", "license_name")):
        for name in ("license_name", "license_link", "license_details"):
            card.data.pop(name)


def size_category(rows: int) -> str:
    """Return the Hub's size category for a number of rows."""
    return next((name for bound, name in _SIZES if rows < bound), "1B<n<10B")


def source_metadata(manifest: Mapping[str, Any], data: str | Path | None = None, token: str | None = None) -> dict[str, Any]:
    """
    Read the licence, language and task of a selection from the card of its source.

    Args:
        manifest (`Mapping`): the manifest of the selection.
        data (`str` or `Path`, *optional*): the source, if it was moved: a file, folder or Hub id.
        token (`str`, *optional*): for private datasets on the Hub.

    Returns:
        `dict`: empty if there is no card or it cannot be reached.
    """
    place = Path(data or manifest["data"])
    try:
        if place.exists():
            found = _local_card(place)
        else:
            source = str(data) if is_hub_id(data) else hub_id(manifest)
            found = None if source is None else DatasetCard.load(source, token=token)
    except (EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()
        logger.warning("The source's card cannot be read, so no licence is inherited: %s", first[0] if first else error)
        return {}
    return {} if found is None else {name: found.data.get(name) for name in _INHERITED if found.data.get(name)}


def is_hub_id(text: Any) -> bool:
    """Return whether a text is a valid repository id on the Hub."""
    return isinstance(text, str) and _HUB_ID.fullmatch(text) is not None


def hub_id(manifest: Mapping[str, Any]) -> str | None:
    """Return the Hub id of the source; `None` if it is not on the Hub."""
    return _hub_source(manifest)[0]


def source_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return table rows that identify the data."""
    source, revision = _hub_source(manifest)
    facts: list[tuple[str, str]] = [("Source", str(manifest["data"]))]
    if source is not None:
        facts = [("Source", Markdown(f"[{escape(source)}](https://huggingface.co/datasets/{source})"))]
    if revision is not None:
        facts.append(("Source revision", literal(revision)))
    hashes = [entry["sha256"] for entry in manifest.get("inputs", []) if "sha256" in entry]
    prints = [entry["fingerprint"] for entry in manifest.get("inputs", []) if "fingerprint" in entry]
    if len(hashes) == 1:
        facts.append(("Source SHA-256", literal(hashes[0])))
    elif hashes:
        facts.append(("Source files", Markdown(f"{len(hashes):,}; `manifest.json` lists their SHA-256")))
    if prints and revision is None:
        facts.append(("Source fingerprint", Markdown(", ".join(map(literal, prints)))))
    return facts


def choice_in_words(manifest: Mapping[str, Any]) -> str:
    """Name the criteria other than the score; empty if there are none."""
    options = manifest.get("options", {})
    return criteria_in_words(options.get("stratify_by"), options.get("diversity") or 0.0)


def method_of(manifest: Mapping[str, Any]) -> str | None:
    """Return the method that scored the rows; `None` if it is the ranker."""
    method = (manifest.get("settings") or {}).get("method")
    return str(method) if method else None


def ranker_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return table rows that identify the ranker."""
    ranker, method = manifest["ranker"], method_of(manifest)
    named = [("Method", method)] if method else []
    if method and not ranker.get("model"):
        return named
    revision = f" at {ranker['revision']}" if ranker.get("revision") else ""
    return [
        *named,
        ("Ranker", f"{ranker['model']}{revision}"),
        ("Ranker weights (SHA-256 or commit)", literal(str(ranker.get("weights") or "unknown")[:16])),
    ]


def literal(text: Any) -> Markdown:
    """Format a hash, revision or version as inline code, without other characters."""
    return Markdown(f"`{re.sub(r'[^A-Za-z0-9_.:+-]', '', str(text)[:100]) or 'unknown'}`")


def share(part: int, whole: int) -> Markdown:
    """Format a share in per cent; a dash if `whole` is 0."""
    if not whole:
        return Markdown("-")
    return Markdown("&lt; 0.1%" if 0 < part / whole < 0.0005 else f"{part / whole:.1%}")


def count_reasons(reasons: Iterable[str]) -> Counter[str]:
    """Count reasons without their row-specific part, such as the number of the repeated row."""
    return Counter(map(kind_of_reason, reasons))


def _hub_source(manifest: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return id and commit, if the id is valid: a manifest may come from anybody."""
    for entry in manifest.get("inputs", []):
        for file in entry.get("files", []):
            found = _HUB_FILE.match(str(file))
            if found and is_hub_id(found[1]):
                return found[1], found[2]
        # Data that the command line loads from the Hub has only a fingerprint; files also have a hash, and datasets in
        # memory the hash of their pairs.
        if "fingerprint" in entry and not {"sha256", "pairs_sha256"} & set(entry) and is_hub_id(entry["path"]):
            return entry["path"], None
    return None, None


def _local_card(place: Path) -> DatasetCard | None:
    """Find the card in a folder of data, or next to a file if it names the file; other cards describe something else."""
    file = (place if place.is_dir() else place.parent) / "README.md"
    if not file.is_file():
        return None
    card = read_card(file, DatasetCard)
    return card if place.is_dir() or place.name in str(card) else None
