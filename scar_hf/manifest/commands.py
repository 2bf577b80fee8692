"""Builds commands that reproduce a selection from its manifest."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..options import parsed
from ..scoring.settings import command_options, python_arguments
from ..selecting.criteria import Criteria


def select_command(manifest: Mapping[str, Any], output: str | None) -> str:
    """
    Return the command line that reproduces a selection.

    Args:
        manifest (`Mapping`): the manifest of the selection.
        output (`str`, *optional*): the output path; by default the one in the manifest.

    Returns:
        `str`: the command, with every setting that affects the scores, quoted for a shell.
    """
    options, settings = manifest.get("options") or {}, {**(manifest.get("settings") or {}), **(manifest.get("ranker") or {})}
    parts = [
        "scar-hf",
        "select" if options.get("k") is not None or options.get("threshold") is not None else "score",
        str(manifest.get("data")),
    ]
    if options.get("k") is not None:
        parts += ["-k", str(options["k"])]
    parts += ["-o", output or "selected.jsonl"]
    parts += command_options(settings)
    parts += [part for name, value in method_arguments(settings).items() for part in (f"--{name}", str(value))]
    parts += [f"--{name.replace('_', '-')}" for name in ("explain", "sft_format", "safe_csv") if options.get(name)]
    for name, value in _criteria(options).items():
        shares = isinstance(value, Mapping)
        parts += [f"--{name.replace('_', '-')}", json.dumps(value, ensure_ascii=False) if shares else str(value)]
    for step in options.get("curation") or []:
        parts += _curation(step)
    # The command must fit on one line, even if a file name contains a line break.
    return shlex.join(" ".join(part.split()) for part in parts)


def select_snippet(manifest: Mapping[str, Any]) -> str:
    """Return Python code that reproduces a selection of data in memory."""
    options, settings = manifest.get("options") or {}, {**(manifest.get("settings") or {}), **(manifest.get("ranker") or {})}
    given = {**python_arguments(settings), **method_arguments(settings)}
    arguments = ", ".join(["ds", *(f"{name}={value!r}" for name, value in given.items())])
    chosen = [] if options.get("k") is None else [repr(options["k"])]
    chosen += [f"{name}={value!r}" for name, value in _criteria(options).items()]
    steps = ", ".join(filter(None, map(_step, options.get("curation") or [])))
    chosen += [f"curation=[{steps}]"] if steps else []
    if options.get("prefilter"):
        return f"best = scar_select({', '.join(['ds', *chosen, *arguments.split(', ')[1:]])})  # ds: {manifest.get('data')}"
    selection = f"selection = ranking.select({', '.join(chosen)})"
    return f"ranking = scar_rank({arguments})  # ds: {manifest.get('data')}\n{selection}"


def _criteria(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the criteria in a manifest other than `k` and curation, without defaults."""
    return {c.name: options[c.name] for c in parsed(fields(Criteria)) if options.get(c.name) not in (None, c.default)}


def method_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """
    Read the scoring method from a manifest, if it is not the ranker.

    Args:
        settings (`Mapping`): the settings of the manifest.

    Returns:
        `dict`: `method`, `lm`, `seed` and `combine` for [`~scar_hf.scar_rank`], without defaults; empty for SCAR.
    """
    method = settings.get("method")
    if not method:
        return {}
    members = [member for member in settings.get("members") or [] if isinstance(member, Mapping)]
    found: dict[str, Any] = {"method": str(method)}
    for name, default in (("lm", None), ("seed", 0), ("combine", "reciprocal_rank")):
        value = next((part[name] for part in (settings, *members) if part.get(name) is not None), default)
        if value != default:
            found[name] = value
    return found


def _step(step: Mapping[str, Any]) -> str:
    """Return the Python code of a curation step."""
    if step.get("step") == "duplicates":
        return "ExactDuplicates()"
    if step.get("step") == "near-duplicates":
        named = ("num_perm", "ngram", "seed", "on", "response_threshold")
        return f"NearDuplicates({', '.join([repr(step.get('threshold')), *(f'{n}={step[n]!r}' for n in named if n in step)])})"
    if step.get("step") == "languages":
        return f"Languages({step.get('languages')!r})"
    if step.get("step") == "refusals":
        return "Refusals()"
    if step.get("step") == "contamination":
        return f"contamination_of({{{', '.join(f'{name!r}: ...' for name in step.get('evaluation_rows') or {})}}})"
    return ""


def _curation(step: Mapping[str, Any]) -> list[str]:
    """Return the command-line options of a curation step, if there are any."""
    if step.get("step") == "duplicates":
        return ["--drop-duplicates"]
    if step.get("step") == "refusals":
        return ["--drop-refusals"]
    if step.get("step") == "near-duplicates":
        seed = ["--curation-seed", str(step["seed"])] if step.get("seed") else []
        return ["--drop-near-duplicates", str(step.get("threshold")), *seed]
    if step.get("step") == "languages":
        return ["--languages", ",".join(step.get("languages") or ())]
    if step.get("step") == "contamination":
        return [part for path in step.get("evaluation_rows") or {} for part in ("--evaluation", str(path))]
    return []
