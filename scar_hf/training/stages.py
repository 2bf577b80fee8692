"""Run the stages of a recipe in order; stages whose settings and inputs are unchanged are skipped."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from ..files import atomic_write


@dataclass(frozen=True)
class Stage:
    """
    A step that turns input files into output files.

    Args:
        name (`str`): name of the stage, unique in a recipe.
        settings (`Mapping[str, Any]`): all settings that affect the outputs, JSON-compatible.
        inputs (`Sequence[Path]`): files and folders to read; they may be missing.
        outputs (`Sequence[Path]`): files to write.
        run (`Callable[[float], bool]`):
            Writes the outputs. It receives the start time of the stage in seconds since 1970, which is that of an interrupted
            run if the run had the same settings and inputs. It returns whether the stage is complete; if not, the next
            stages run with the available outputs, and the next command runs the stage again.
    """

    name: str
    settings: Mapping[str, Any]
    inputs: Sequence[Path]
    outputs: Sequence[Path]
    run: Callable[[float], bool]


def run_stages(stages: Sequence[Stage], record: Path, report: Callable[[str], None] = print) -> list[str]:
    """
    Run stages in order; skip those whose outputs exist and were made with the same settings from the same inputs.

    Args:
        stages (`Sequence[Stage]`): the stages in order.
        record (`Path`): JSON file that records completed stages; created if it does not exist.
        report (`Callable[[str], None]`, *optional*, defaults to `print`): receives a message for each stage run or skipped.

    Returns:
        `list[str]`: names of the stages that ran.

    Raises:
        `ValueError`: if the record cannot be read, or a stage did not make one of its outputs.
    """
    known = _read(record)
    ran = []
    for number, stage in enumerate(stages, 1):
        title = f"[{number}/{len(stages)}] {stage.name}"
        # Compute digests only now, because inputs may be outputs of earlier stages.
        key = _key(stage)
        entry = known.get(stage.name, {})
        same = entry.get("key") == key
        if same and entry.get("complete") and all(output.exists() for output in stage.outputs):
            report(f"{title}: unchanged, {', '.join(map(str, stage.outputs))}")
            continue
        report(f"{title}: {'continues' if same and not entry.get('complete') else 'starts'}")
        began = entry.get("began") if same and not entry.get("complete") else None
        began = began if isinstance(began, int | float) else time.time()
        known[stage.name] = {"key": key, "began": began, "complete": False}
        _write(record, known)
        complete = stage.run(began)
        missing = [str(output) for output in stage.outputs if not output.exists()]
        if missing:
            raise ValueError(f"The stage {stage.name} did not make {', '.join(missing)}.")
        known[stage.name]["complete"] = complete
        _write(record, known)
        report(f"{title}: {'done' if complete else 'not complete; run the same command again to finish it'}")
        ran.append(stage.name)
    return ran


def last_checkpoint(folder: Path, began: float) -> str | None:
    """
    Find the checkpoint from which an interrupted training run can continue.

    Args:
        folder (`Path`): the trainer's output folder.
        began (`float`): start of the run in seconds since 1970; older checkpoints belong to another run.

    Returns:
        `str`: path of the latest checkpoint, or `None`.
    """
    found = {
        int(state.parent.name.removeprefix("checkpoint-")): state.parent
        for state in folder.glob("checkpoint-*/trainer_state.json")
        if state.parent.name.removeprefix("checkpoint-").isdigit() and state.stat().st_mtime >= began
    }
    return str(found[max(found)]) if found else None


def _key(stage: Stage) -> str:
    inputs = {str(path): _digest(path) for path in stage.inputs}
    text = json.dumps({"settings": stage.settings, "inputs": inputs}, sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a file or of all files in a folder; `None` if the path does not exist."""
    if path.is_file():
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return sha256("\n".join(f"{file.relative_to(path)} {_digest(file)}" for file in files).encode()).hexdigest()


def _read(record: Path) -> dict[str, dict[str, Any]]:
    if not record.exists():
        return {}
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{record} is not valid JSON ({error}). Move it away to run all stages again.") from error
    if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
        raise ValueError(f"{record} is not a record of stages. Move it away to run all stages again.")
    return known


def _write(record: Path, known: Mapping[str, Any]) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(record) as file:
        file.write(json.dumps(known, indent=2).encode() + b"\n")
