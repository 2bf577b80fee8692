"""Judge from files to files; the judge's replies and a manifest are written next to the output."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..files import open_shards, write_shard
from .backends import Backend, Sampling
from .completion_log import CompletionLog
from .engine import Usage
from .from_files import LOG, check_triples_path, sha256_of, side_of, write_manifest
from .judge_check import JudgeCheck, check_judge
from .judging import HumanRatings, Judgement, judge_rows
from .prompts import Prompt

UNRATED = "unrated.jsonl"


def read_triples(data: str | Path) -> list[dict[str, Any]]:
    """
    Read triples with all their columns.

    Args:
        data (`str` or `Path`): files of any format that `scar-hf select` reads.

    Returns:
        `list[dict]`: the rows.

    Raises:
        `ValueError`: if there are no rows with an `instruction`.
    """
    rows: list[dict[str, Any]] = []
    for shard in open_shards(data):
        for batch in shard.batches():
            rows += batch if isinstance(batch, list) else batch.to_pylist()
    if not rows:
        raise ValueError(f"{data} has no rows. Expected triples, as scar-hf synthesize writes them.")
    without = next((i for i, row in enumerate(rows) if not isinstance(row.get("instruction"), str)), None)
    if without is not None:
        raise ValueError(
            f"{data}, row {without}: expected a text in `instruction`, as scar-hf synthesize writes it; columns: "
            f"{sorted(rows[without])}."
        )
    return rows


def judge_files(
    data: str | Path,
    output: str | Path,
    backend: Backend | None,
    prompt: Prompt | None,
    *,
    sampling: Sampling | None = None,
    usage: Usage | None = None,
    human: HumanRatings | None = None,
    check: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[Judgement | None, JudgeCheck | None]:
    """
    Read triples from files and write them with ratings. Repeating an interrupted call continues it.

    Args:
        data (`str` or `Path`): triples.
        output (`str` or `Path`):
            A .jsonl(.gz, .zst) file, or a folder for `train.jsonl`, for the rows with at least two ratings. Files next to it
            hold the other rows (`.unrated.jsonl`), all replies of the judge (`.completions.jsonl`), and the settings and
            counts (`.manifest.json`).
        backend ([`Backend`], *optional*): the judge; `None` if all ratings are human.
        prompt ([`Prompt`], *optional*): the prompt for the judge.
        sampling ([`Sampling`], *optional*): sampling settings; by default temperature 0.
        usage ([`Usage`], *optional*): the budget.
        human ([`HumanRatings`], *optional*): takes the ratings of some members from columns instead.
        check (`int`, *optional*): number of answers to check the judge on first; if it is useless, nothing is rated.
        overwrite (`bool`, *optional*, defaults to `False`): whether to replace an output that this command did not write.
        progress (`bool`, *optional*, defaults to `True`): whether to show a progress bar, on a terminal only.

    Returns:
        `tuple(Judgement | None, JudgeCheck | None)`: the ratings (`None` if the judge is useless) and the check, if requested.

    Raises:
        `ValueError`: if the input is invalid or the judge cannot be reached.
        `OSError`: if the disk is full.
    """
    output = check_triples_path(output, overwrite)
    if backend is None and not (human and human.columns):
        raise ValueError("No judge: name a model (--model), or columns with ratings (--ratings-from).")
    sampling, usage = sampling or Sampling(temperature=0.0, max_tokens=200), usage or Usage()
    rows = read_triples(data)
    checked = None
    if check is not None and backend is not None and prompt is not None:
        log = CompletionLog(side_of(output, LOG))
        checked = check_judge(rows, backend, prompt, sampling, log, usage, n=check, progress=progress)
    result = None
    if checked is None or checked.problem is None:
        result = judge_rows(rows, backend, prompt, sampling, CompletionLog(side_of(output, LOG)), usage, human, progress)
        write_shard(output, [result.rated])
        write_shard(side_of(output, UNRATED), [result.unrated])
    manifest: dict[str, Any] = {
        "format": 1,
        "data": str(data),
        "inputs": [{"path": str(file), "sha256": sha256_of(file)} for shard in open_shards(data) for file in shard.files()],
        "judge": None if backend is None else backend.describe(),
        "prompt": None if prompt is None else {"file": prompt.name, "sha256": prompt.sha256},
        "sampling": sampling.settings(),
        "human_ratings": None if human is None else _described(human),
        "check": None if checked is None else checked.describe(),
        "rows": None if result is None else {"rated": len(result.rated), "unrated": len(result.unrated)},
        "responses": None if result is None else result.counts,
        "output": None if result is None else {"name": output.name, "sha256": sha256_of(output), "rows": len(result.rated)},
        "versions": {name: version(name) for name in ("scar-hf", "huggingface-hub")},
    }
    write_manifest(output, manifest)
    return result, checked


def _described(human: HumanRatings) -> Mapping[str, Any]:
    return {"columns": {member: list(names) for member, names in human.columns.items()}, "scale": [human.lowest, human.highest]}
