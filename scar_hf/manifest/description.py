"""Describes the data and settings of a selection: the parts that every manifest has, for files and datasets alike."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..files import Shard
from ..scoring.datasets import ScoredRows
from ..scoring.scorer import ScarScorer
from ..selecting.top_k import threshold_of
from .sidecars import find_manifest, hash_file

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
    Describe everything about a run that affects its output, and nothing else: no time stamp, for example.

    Args:
        data (`str`): the data as named by the user.
        inputs (`list[dict]`): the identity of each part of the data.
        parent (`Mapping`, *optional*): the manifest of the data.
        settings (`Mapping`): from [`ScarScorer.describe`].
        options (`Mapping`): the options of the run, such as `k`.

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
    Count the rows of a run.

    Args:
        scored ([`~scar_hf.scoring.datasets.ScoredRows`]): the scores.
        kept (`np.ndarray`, *optional*): numbers of the rows kept; `None` if nothing was selected.

    Returns:
        `dict`: the section `selection` of a manifest.
    """
    n, unscored = len(scored.scores), int(np.count_nonzero(scored.is_unscored))
    counts: dict[str, Any] = {
        "rows": n,
        "scored": n - len(scored.skipped) - unscored,
        "skipped": len(scored.skipped),
        "truncated": int(scored.truncated.sum()),
    }
    if scored.prefilter is not None:
        counts |= {"unscored": unscored, "prefilter": scored.prefilter.report}
    if kept is None:
        return counts
    return counts | {"kept": len(kept), "threshold": threshold_of(scored.scores, kept) if len(kept) else None}


def dataset_source(ds: Dataset, digest: str) -> tuple[str, list[dict[str, Any]]]:
    """
    Identify a dataset in memory by its content and, if known, its origin.

    Args:
        ds ([`~datasets.Dataset`]): the input.
        digest (`str`): SHA-256 of the scored pairs.

    Returns:
        `tuple(str, list[dict])`: `data` and `inputs` of [`describe_run`].
    """
    info = ds.info
    name = "/".join(str(part) for part in (info.dataset_name or info.builder_name, info.config_name) if part)
    entry: dict[str, Any] = {"path": name or "a dataset in memory", "split": str(ds.split) if ds.split else None}
    if info.download_checksums:
        entry["files"] = sorted(map(str, info.download_checksums))
    return entry["path"], [{**entry, "fingerprint": ds._fingerprint, "pairs_sha256": digest}]


def hash_inputs(data: str | Path, shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """
    Identify the data.

    Args:
        data (`str` or `Path`): the data as named by the user.
        shards (`Sequence[Shard]`): the shards of the data.

    Returns:
        `list[dict]`: path, SHA-256 and size of each file; for a dataset on the Hub, its id and the fingerprint of its rows.
    """
    inputs: list[dict[str, Any]] = []
    for shard in shards:
        if shard.path is None:
            assert shard.dataset is not None
            inputs.append({"path": shard.name, "fingerprint": shard.dataset._fingerprint})
        hashes = shard.hashes().items()
        inputs += [{"path": str(file), "sha256": digest, "bytes": file.stat().st_size} for file, digest in hashes]
    return inputs


def file_times(shards: Sequence[Shard]) -> list[tuple[int, ...]]:
    """Return the file metadata that changes when a file is written."""
    stats = [file.stat() for shard in shards for file in shard.files()]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats]


def check_unchanged(
    data: str | Path, shards: Sequence[Shard], times: Sequence[tuple[int, ...]], inputs: Sequence[Mapping[str, Any]]
) -> None:
    """
    Check that the data has not changed since it was scored.

    Args:
        data (`str` or `Path`): the data as named by the user.
        shards (`Sequence[Shard]`): the shards of the data.
        times (`Sequence`): from [`file_times`], before the data was hashed.
        inputs (`Sequence[Mapping]`): from [`hash_inputs`].

    Raises:
        `ValueError`: if the content of a file changed, or a file no longer exists.
    """
    try:
        changed = file_times(shards) != list(times) and hash_inputs(data, shards) != list(inputs)
    except OSError as error:
        raise ValueError(f"{data} was changed while it was scored ({error}). Start again.") from error
    if changed:
        raise ValueError(f"{data} was changed while it was scored, so scores and rows may not match. Start again.")


def describe_files(data: str | Path, shards: Sequence[Shard], scorer: ScarScorer, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    Describe everything about a run over files that affects its output.

    Args:
        data (`str` or `Path`): the data as named by the user.
        shards (`Sequence[Shard]`): the shards of the data.
        scorer ([`ScarScorer`]): the scorer.
        options (`Mapping`): the options of the run, such as `k`.

    Returns:
        `dict`: see [`describe_run`].
    """
    return describe_run(str(data), hash_inputs(data, shards), _parent(data), scorer.describe(), options)


def _parent(data: str | Path) -> dict[str, str] | None:
    manifest = find_manifest(data) if Path(data).exists() else None
    return None if manifest is None else {"path": str(manifest), "sha256": hash_file(manifest)}
