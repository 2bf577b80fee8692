"""What goes into a repository: the files of a selection or of a ranker, with their card and pictures."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import RepoCard

from ..files import atomic_write, columns_of, open_shards, read_dataset, suffix_of, write_dataset
from ..loading import load_ranker, resolve_checkpoint
from ..modeling import ScarConfig
from ..quotas import StratifyBy
from ..ranking import ScarRanking
from ..runs import find_manifest
from ..runs.output import hash_file
from ..scoring import SCORE_COLUMN
from .manifest_facts import count_reasons, without_local_folders
from .metadata import license_metadata, source_metadata
from .pictures import calibration_plot, have_matplotlib, score_distribution, style_change_plot
from .ranker_card import ranker_card
from .sections import save_card
from .selection_card import selection_card

CARD, MANIFEST = "README.md", "manifest.json"
# Begins with an underscore, so that a folder of rows stays one with pictures in it.
IMAGES = "_images"
_ROWS_FOLDER = "data"
_ONE_FILE = "train-00000-of-00001.parquet"
# What a training run leaves beside the ranker, such as its checkpoints and optimizer, stays at home.
_RANKER_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "metrics.json",
    "LICENSE*",
    "NOTICE*",
)


def selection_contents(
    output: str | Path, folder: str | Path, *, data: str | Path | None = None, token: str | None = None, **card: Any
) -> dict[str, Path]:
    """
    Gather what a repository of a selection holds: its rows as Parquet, `manifest.json`, the lists of rows left out, the
    card and the pictures.

    Args:
        output (`str` or `Path`): what `scar-hf select` wrote, a file or a folder.
        folder (`str` or `Path`): where files that are made for it are put.
        data (`str` or `Path`, *optional*): where the selection's source lies now, if not where its manifest says.
        token (`str`, *optional*): for reading the card of a source on the Hub that is not public.
        card: as for [`selection_card`], which by default amends the output's README.md.

    Returns:
        `dict[str, Path]`: files by their paths in the repository.

    Raises:
        `ValueError`: if there is no manifest, or the rows are not those that it names.
    """
    output, folder = Path(output), Path(folder)
    path, manifest = read_selection(output)
    named = [file["name"] for file in manifest["output"]["files"]]
    for name, entry in zip(named, manifest["output"]["files"], strict=True):
        place = path.parent / name
        if not place.is_file() or hash_file(place) != entry["sha256"]:
            raise ValueError(f"{place} is missing or was changed since it was selected: select again before you push it.")
    if all(suffix_of(name) == ".parquet" for name in named):
        rows = {f"{_ROWS_FOLDER}/{name}": path.parent / name for name in named}
    else:
        rows = _as_parquet(read_dataset(output), folder)
    contents, reasons = dict(rows), {}
    for key, name in (("skipped_rows", "skipped.jsonl"), ("dropped_rows", "dropped.jsonl")):
        if manifest.get(key):
            contents[name] = path.parent / manifest[key]
            manifest[key] = name
            lines = contents[name].read_text(encoding="utf-8").splitlines()
            reasons[name.removesuffix(".jsonl")] = count_reasons(json.loads(line)["reason"] for line in lines)
    scores = np.concatenate([_column(shard, SCORE_COLUMN) for shard in open_shards(output)]).astype(np.float32)
    own_card = output / CARD if output.is_dir() else None
    card = {"card": own_card, "source": source_metadata(manifest, data, token), "reasons": reasons} | card
    return contents | _described(manifest, rows, folder, scores, None, card)


def ranking_contents(
    ranking: ScarRanking,
    k: float,
    folder: str | Path,
    stratify_by: StratifyBy | None = None,
    diversity: float = 0.0,
    **card: Any,
) -> dict[str, Path]:
    """
    Gather what a repository of the best rows of a ranking holds, as [`selection_contents`] does.

    Args:
        ranking ([`ScarRanking`]): n rows with scores.
        k (`float` or `int`): as for `ScarRanking.indices`.
        folder (`str` or `Path`): where the files are put.
        stratify_by, diversity: as for `ScarRanking.indices`.
        card: as for [`selection_card`].

    Returns:
        `dict[str, Path]`: files by their paths in the repository.
    """
    folder, manifest = Path(folder), ranking.manifest(k, stratify_by, diversity)
    rows = _as_parquet(ranking.top(k, stratify_by, diversity), folder)
    kept = np.zeros(len(ranking), dtype=bool)
    kept[ranking.indices(k, stratify_by, diversity)] = True
    source = source_metadata(manifest) or license_metadata(ranking.dataset.info.license)
    card = {"source": source, "reasons": {"skipped": count_reasons(ranking.skipped.values())}} | card
    return rows | _described(manifest, rows, folder, ranking.scores, kept, card)


def ranker_contents(ranker: str | Path, folder: str | Path, **card: Any) -> dict[str, Path]:
    """
    Gather what a repository of a ranker holds: the weights, the tokenizer, the config with the code that loads it where
    scar-hf is not installed, the metrics, the card and the calibration plot.

    Args:
        ranker (`str` or `Path`): a folder, or the bundled ranker's name.
        folder (`str` or `Path`): where files that are made for it are put.
        card: as for [`ranker_card`].

    Returns:
        `dict[str, Path]`: files by their paths in the repository.

    Raises:
        `ValueError`: if it is no ranker, or its weights are damaged.
    """
    source, folder = Path(resolve_checkpoint(str(ranker))), Path(folder)
    if not source.is_dir():
        raise ValueError(f"No ranker {str(ranker)!r}: expected 'scar-ranker' or a folder with a ranker.")
    calibration = load_ranker(str(source)).config.calibration
    ScarConfig.from_pretrained(source).save_pretrained(folder)
    contents = {file.name: file for pattern in _RANKER_FILES for file in sorted(source.glob(pattern))}
    contents |= {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    pictures = []
    if calibration and have_matplotlib():
        name = f"{IMAGES}/calibration.png"
        contents[name] = calibration_plot(calibration["quantiles"], folder / name)
        pictures = [(name, "Which share of the reference set a threshold keeps")]
    written = ranker_card(ranker, **({"pictures": pictures} | card))
    return contents | {CARD: _save(written, folder)}


def read_selection(output: str | Path) -> tuple[Path, dict[str, Any]]:
    """
    Find and read the manifest of a selection.

    Args:
        output (`str` or `Path`): what `scar-hf select` wrote.

    Returns:
        `tuple(Path, dict)`: its path and its content.

    Raises:
        `ValueError`: if there is none, or it is not one of a selection.
    """
    path = find_manifest(output)
    if path is None:
        raise ValueError(
            f"{output} has no manifest: expected an output of `scar-hf select`, with {MANIFEST} in it or beside it."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if "kept" in manifest["selection"] and manifest["output"]["files"]:
            return path, manifest
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a manifest of scar-hf, or is damaged: {error!r}.") from error
    raise ValueError(f"{path} is the manifest of scores, not of a selection: expected an output of `scar-hf select`.")


def count_groups(column: str, output: str | Path, data: str | Path | None = None) -> dict[str, tuple[int | None, int]]:
    """
    Count rows by the values of a column.

    Args:
        column (`str`): its name.
        output (`str` or `Path`): the selection.
        data (`str` or `Path`, *optional*): what it was made of, where that is still there.

    Returns:
        `dict[str, tuple(int or None, int)]`: how many came in, `None` without `data`, and how many stayed.

    Raises:
        `ValueError`: if there is no such column.
    """
    kept: Counter[str] = Counter()
    for shard in open_shards(output):
        kept.update(map(str, _column(shard, column)))
    if data is None:
        return {name: (None, count) for name, count in kept.items()}
    came: Counter[str] = Counter()
    for shard in open_shards(data):
        came.update(map(str, _column(shard, column)))
    return {name: (came[name], kept[name]) for name in came | kept}


def draw_pictures(
    folder: Path, scores: np.ndarray, kept: np.ndarray | None, threshold: float | None, consistency: Any
) -> list[tuple[str, str]]:
    """
    Draw what the card of a selection shows, if matplotlib is there.

    Args:
        folder (`Path`): where to; the pictures go to a folder in it.
        scores (`np.ndarray` of shape `(n,)`): all that are known.
        kept (`np.ndarray` of shape `(n,)`, bool, *optional*): which were kept; by default all.
        threshold (`float`, *optional*): the lowest score kept.
        consistency ([`~scar_hf.style.StyleChange`] or `dict`, *optional*): as for [`selection_card`].

    Returns:
        `list[tuple(str, str)]`: path in `folder` and caption of each.
    """
    if not have_matplotlib():
        return []
    pictures = []
    if np.isfinite(scores).any():
        name = f"{IMAGES}/scores.png"
        score_distribution(scores, folder / name, kept, threshold)
        whose = "the rows kept" if kept is None else "all rows, and of those kept"
        pictures.append((name, f"The scores of {whose}"))
    if consistency is not None:
        name = f"{IMAGES}/style.png"
        values = consistency if isinstance(consistency, Mapping) else consistency.to_dict()
        style_change_plot(values["measures"], folder / name)
        pictures.append(
            (
                name,
                "How the spread of each measure of style changed, with 95 % intervals: blue narrower, red wider",
            )
        )
    return pictures


def _described(
    manifest: dict[str, Any],
    rows: Mapping[str, Path],
    folder: Path,
    scores: np.ndarray,
    kept: np.ndarray | None,
    card: Mapping[str, Any],
) -> dict[str, Path]:
    """The manifest, the pictures and the card that go with rows."""
    files = [{"name": name, "sha256": hash_file(path)} for name, path in rows.items()]
    manifest = without_local_folders(manifest)
    manifest["output"] = {"name": _ROWS_FOLDER, "rows": manifest.get("output", manifest["selection"])["rows"], "files": files}
    if "kept" in manifest["selection"] and kept is not None:
        manifest["output"]["rows"] = manifest["selection"]["kept"]
    with atomic_write(folder / MANIFEST) as out:
        out.write(f"{json.dumps(manifest, indent=2, ensure_ascii=False)}\n".encode())
    pictures = draw_pictures(folder, scores, kept, manifest["selection"].get("threshold"), card.get("consistency"))
    options: dict[str, Any] = {"pictures": pictures, "data_files": list(rows)} | dict(card)
    written = selection_card(manifest, **options)
    return {
        MANIFEST: folder / MANIFEST,
        **{name: folder / name for name, _ in pictures},
        CARD: _save(written, folder),
    }


def _as_parquet(ds: Any, folder: Path) -> dict[str, Path]:
    path = folder / _ROWS_FOLDER / _ONE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(ds, path, overwrite=True)
    return {f"{_ROWS_FOLDER}/{_ONE_FILE}": path}


def _column(shard: Any, name: str) -> list[Any]:
    values: list[Any] = []
    for batch in shard.batches(columns=[name] if name in (shard.column_names() or ()) else None):
        columns = columns_of(batch)
        if name not in columns:
            raise ValueError(f"{shard.name} has no column {name!r}: it has {list(columns)}.")
        values += list(columns[name])
    return values


def _save(card: RepoCard, folder: Path) -> Path:
    save_card(card, folder / CARD)
    return folder / CARD
