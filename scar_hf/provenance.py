"""What a selection was made of and with: the parts that every manifest has, of files and of datasets alike."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from datasets import Dataset

from .selection import ScoredRows, threshold_of

MANIFEST_FORMAT = 1
_PACKAGES = ("scar-hf", "torch", "transformers", "datasets", "tokenizers")


def describe_run(
    data: str,
    inputs: list[dict[str, Any]],
    parent: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """
    Say all of a run that decides its output, and nothing, like the time, that does not.

    Args:
        data (`str`): as the user named it.
        inputs (`list[dict]`): what identifies each part of it.
        parent (`Mapping`, *optional*): the manifest that the data came with.
        settings (`Mapping`): from `ScarScorer.settings`.
        options (`Mapping`): what is asked for, like `k`.

    Returns:
        `dict`: the part of a manifest that is known before the run.
    """
    ranker = {name: settings.get(name) for name in ("model", "revision", "weights")}
    return {
        "format": MANIFEST_FORMAT,
        "data": data,
        "inputs": inputs,
        "parent": parent,
        "ranker": ranker,
        "settings": {name: value for name, value in settings.items() if name not in ranker},
        "options": dict(options),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }


def describe_selection(scored: ScoredRows, kept: np.ndarray | None) -> dict[str, Any]:
    """
    Count what a run found.

    Args:
        scored ([`~scar_hf.selection.ScoredRows`]): the scores.
        kept (`np.ndarray`, *optional*): numbers of the rows kept; `None` where nothing was selected.

    Returns:
        `dict`: the part `selection` of a manifest.
    """
    n = len(scored.scores)
    counts = {
        "rows": n,
        "scored": n - len(scored.skipped),
        "skipped": len(scored.skipped),
        "truncated": int(scored.truncated.sum()),
    }
    if kept is None:
        return counts
    return counts | {"kept": len(kept), "threshold": threshold_of(scored.scores, kept) if len(kept) else None}


def dataset_source(ds: Dataset, digest: str) -> tuple[str, list[dict[str, Any]]]:
    """
    Name a dataset in memory, as far as it tells where it comes from.

    Args:
        ds ([`~datasets.Dataset`]): as it came in.
        digest (`str`): SHA-256 of what was scored of it.

    Returns:
        `tuple(str, list[dict])`: its name, and what identifies it, as [`describe_run`] takes them.
    """
    info = ds.info
    name = "/".join(str(part) for part in (info.dataset_name or info.builder_name, info.config_name) if part)
    entry: dict[str, Any] = {"path": name or "a dataset in memory", "split": str(ds.split) if ds.split else None}
    if info.download_checksums:
        entry["files"] = sorted(map(str, info.download_checksums))
    return entry["path"], [{**entry, "fingerprint": ds._fingerprint, "pairs_sha256": digest}]
