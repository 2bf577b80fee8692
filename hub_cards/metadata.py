"""Metadata that the Hub's validator takes."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from huggingface_hub.utils import OfflineModeIsEnabled, httpx

from .manifest_facts import hub_id, is_hub_id
from .sections import read_card

logger = logging.getLogger(__name__)
# What a selection inherits from the card of the set that it was made of.
_CARRIED = ("license", "license_name", "license_link", "license_details", "language", "task_categories")
# The ids of https://huggingface.co/docs/hub/repositories-licenses; others stand there as "other", with a name.
LICENSES = frozenset(
    re.findall(
        r"\S+",
        """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
    cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m
    deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0
    lgpl-lr llama2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql
    unknown unlicense wtfpl zlib
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
    Say a licence as cards do.

    Args:
        license (`str`, *optional*): an id of the Hub's list, or a name.

    Returns:
        `dict`: `license`; of one that the Hub has no id for `"other"`, with `license_name`. Nothing of none.
    """
    words = " ".join((license or "").split())
    if not words:
        return {}
    if words.lower() in LICENSES:
        return {"license": words.lower()}
    name = re.sub(r"[^a-z0-9.+]+", "-", words.lower()).strip("-")
    return {"license": "other", "license_name": name or "unnamed"}


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    return next((name for bound, name in _SIZES if rows < bound), "1B<n<10B")


def source_metadata(manifest: Mapping[str, Any], data: str | Path | None = None, token: str | None = None) -> dict[str, Any]:
    """
    Read what a selection inherits of its source's card: the licence, the language, the task.

    Args:
        manifest (`Mapping`): of the selection.
        data (`str` or `Path`, *optional*): where the source lies, if not where the manifest says: a file, a folder, or an id.
        token (`str`, *optional*): for sets on the Hub that are not public.

    Returns:
        `dict`: empty where there is no card, or none that can be reached.
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
        logger.warning("The source's card cannot be read, so no licence is carried over: %s", first[0] if first else error)
        return {}
    return {} if found is None else {name: found.data.get(name) for name in _CARRIED if found.data.get(name)}


def _local_card(place: Path) -> DatasetCard | None:
    """The card in a folder of data, or the one beside a file that names it: another is of something else."""
    file = (place if place.is_dir() else place.parent) / "README.md"
    if not file.is_file():
        return None
    card = read_card(file, DatasetCard)
    return card if place.is_dir() or place.name in str(card) else None
