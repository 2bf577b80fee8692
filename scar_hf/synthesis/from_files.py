"""Synthesize from files to files; log, manifest and rejected responses are written next to the output."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..files import Shard, atomic_write, columns_of, open_shards, suffix_of, without_local_folders, write_shard
from ..rows.pairs import PairReader
from .backends import Backend, Sampling
from .completion_log import CompletionLog
from .engine import Usage
from .human_rows import RowChoice, read_human_rows
from .prompts import Prompt
from .synthesizing import Synthesis, synthesize_rows

LOG, REJECTED, MANIFEST = "completions.jsonl", "rejected.jsonl", "manifest.json"


def check_triples_path(output: str | Path, overwrite: bool = False) -> Path:
    """
    Check the output path for triples.

    Args:
        output (`str` or `Path`): a .jsonl, .jsonl.gz or .jsonl.zst file, or a folder for `train.jsonl`.
        overwrite (`bool`, *optional*, defaults to `False`): whether to accept an existing file.

    Returns:
        `Path`: the file.

    Raises:
        `ValueError`: if it has another suffix, or exists and was not written by this command.
    """
    path = Path(output)
    if not suffix_of(path):
        path /= "train.jsonl"
    if not suffix_of(path).startswith(".jsonl"):
        raise ValueError(f"The output {path} must be a .jsonl, .jsonl.gz or .jsonl.zst file, or a folder.")
    if path.exists() and not (overwrite or side_of(path, MANIFEST).exists()):
        raise ValueError(f"The output {path} exists and has no manifest of this command. Pass --overwrite, or another path.")
    return path


def side_of(output: Path, name: str) -> Path:
    """Return the path of a file next to an output, with the name of the output as its prefix."""
    return output.with_name(f"{output.name}.{name}")


def synthesize_files(
    data: str | Path,
    output: str | Path,
    backends: Sequence[Backend],
    prompts: Mapping[str, Prompt],
    *,
    reader: PairReader | None = None,
    sampling: Sampling | None = None,
    choice: RowChoice | None = None,
    usage: Usage | None = None,
    kept: Mapping[str, Any] | None = None,
    split: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    trim: bool = False,
) -> Synthesis:
    """
    Read human responses from files and write triples. Repeating an interrupted call continues it; repeating a call with more
    rows or models extends its output.

    Args:
        data (`str` or `Path`): files of any format that `scar-hf select` reads, or a dataset's id on the Hub.
        output (`str` or `Path`):
            A .jsonl(.gz, .zst) file, or a folder for `train.jsonl`. Files next to it hold all completions
            (`.completions.jsonl`), the rejected responses (`.rejected.jsonl`), and the inputs and settings
            (`.manifest.json`).
        backends, prompts, sampling, usage, progress, trim: see [`synthesize_rows`].
        reader ([`~scar_hf.rows.pairs.PairReader`], *optional*): finds instruction and response.
        choice ([`RowChoice`], *optional*): selects the rows to answer.
        kept (`Mapping[str, Any]`, *optional*): columns to add.
        split (`str`, *optional*): split of a dataset on the Hub or of a saved `DatasetDict`.
        overwrite (`bool`, *optional*, defaults to `False`): whether to replace an output that this command did not write.

    Returns:
        [`Synthesis`].

    Raises:
        `ValueError`: if the input is invalid or the models cannot be reached.
        `OSError`: if the disk is full.
    """
    output = check_triples_path(output, overwrite)
    sampling, choice, usage = sampling or Sampling(), choice or RowChoice(), usage or Usage()
    reader = reader or PairReader()
    shards = open_shards(data, split)
    rows, passed_over = read_human_rows(_batches(shards), reader, choice, kept)
    log = CompletionLog(side_of(output, LOG))
    result = synthesize_rows(rows, backends, prompts, sampling, log, usage, progress, trim)
    result.passed_over = dict(passed_over)
    write_shard(output, [result.triples])
    write_shard(side_of(output, REJECTED), [result.rejected])
    manifest: dict[str, Any] = {
        "format": 1,
        "data": str(data),
        "inputs": [{"path": str(file), "sha256": sha256_of(file)} for shard in shards for file in shard.files()],
        "reading": {"columns": reader.columns, "turn": reader.turn, "split": split},
        "choice": vars(choice),
        "columns": dict(kept or {}),
        "models": [backend.describe() for backend in backends],
        "prompts": {kind: {"file": prompt.name, "sha256": prompt.sha256} for kind, prompt in prompts.items()},
        "sampling": sampling.settings(),
        "rows": {"answered": len(rows), "written": len(result.triples), "passed_over": result.passed_over},
        "responses": result.counts,
        "trimmed": result.trimmed,
        "output": {"name": output.name, "sha256": sha256_of(output), "rows": len(result.triples)},
        "versions": {name: version(name) for name in ("scar-hf", "huggingface-hub")},
    }
    write_manifest(output, manifest)
    return result


def write_manifest(output: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest next to an output, with absolute paths reduced to names, because both may be published."""
    with atomic_write(side_of(output, MANIFEST)) as file:
        text = json.dumps(without_local_folders(manifest), indent=2, ensure_ascii=False)
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")


def _batches(shards: Sequence[Shard]) -> Iterator[Mapping[str, Sequence[Any]]]:
    seen: dict[str, None] = {}
    for shard in shards:
        for batch in shard.batches():
            columns = columns_of(batch)
            if columns:
                # Later objects may lack keys of earlier ones.
                seen.update(dict.fromkeys(columns))
                yield {name: columns.get(name, [None] * len(batch)) for name in seen}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file (`str`), in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
