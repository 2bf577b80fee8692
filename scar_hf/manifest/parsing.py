"""Reads manifests and checks the types of their values, because anybody may have written or edited them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NUMBER, _TEXT = (int, float, type(None)), (str, type(None))
# Types of the values of a manifest, by path; a star stands for each item of a list.
_TYPES: dict[str, tuple[type, ...]] = {
    "data": (str,),
    "inputs": (list,),
    "inputs.*": (dict,),
    "inputs.*.path": (str,),
    "inputs.*.files": (list,),
    "parent": (dict, type(None)),
    "parent.path": (str,),
    "ranker": (dict,),
    "ranker.model": _TEXT,
    "ranker.revision": _TEXT,
    "ranker.weights": _TEXT,
    "settings": (dict,),
    "settings.max_length": _NUMBER,
    "options": (dict,),
    "options.k": _NUMBER,
    "options.threshold": _NUMBER,
    "options.curation": (list, type(None)),
    "options.curation.*": (dict,),
    "versions": (dict,),
    "selection": (dict,),
    **{f"selection.{name}": _NUMBER for name in ("rows", "scored", "skipped", "truncated", "kept", "dropped", "threshold")},
    "selection.unscored": _NUMBER,
    "selection.prefilter": (dict, type(None)),
    "selection.prefilter.model": (str,),
    **{f"selection.prefilter.{name}": _NUMBER for name in ("rows", "rescored", "audited", "hits")},
    **{f"selection.prefilter.{name}": _NUMBER for name in ("expected_missing", "missing_bound", "confidence")},
    "output": (dict,),
    "output.name": (str,),
    "output.rows": _NUMBER,
    "output.files": (list,),
    "output.files.*": (dict,),
    "output.files.*.name": (str,),
    "output.files.*.sha256": (str,),
    "lists": (dict, type(None)),
    "skipped_rows": _TEXT,
    "dropped_rows": _TEXT,
    "seal": _TEXT,
}
_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a number", type(None): "null"}


def parse_manifest(file: Path) -> dict[str, Any]:
    """
    Read a manifest and check the types of its values. Parts may be missing.

    Args:
        file (`Path`): the manifest.

    Returns:
        `dict`: its content.

    Raises:
        `ValueError`: if it is not a JSON object, or a value has the wrong type.
    """
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not a manifest of scar-hf, or is damaged: {error}.") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{file} is not a manifest of scar-hf, or is damaged: expected a JSON object.")
    for place, types in _TYPES.items():
        for value in _values_at(manifest, place.split(".")):
            if not isinstance(value, types):
                expected = " or ".join(_NAMES[kind] for kind in types if kind in _NAMES)
                raise ValueError(
                    f"{file} is not a manifest of scar-hf, or is damaged: `{place}` must be {expected}, got {repr(value)[:60]}."
                )
    return manifest


def _values_at(value: Any, names: list[str]) -> list[Any]:
    if not names:
        return [value]
    name, *rest = names
    if name == "*":
        return [found for item in value for found in _values_at(item, rest)] if isinstance(value, list) else []
    return _values_at(value[name], rest) if isinstance(value, Mapping) and name in value else []
