"""Imports the names of a package on first access, like transformers' `_LazyModule`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]], extra: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Create the `__getattr__` and `__dir__` of a package.

    Args:
        package (`str`): the name of the package.
        homes (`Mapping[str, Sequence[str]]`): modules, relative to the package, and the names that each defines.
        extra (`Mapping[str, str]`, *optional*): libraries that may be missing, and the extra that installs each.

    Returns:
        `tuple(Callable, Callable)`: the two functions.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(f".{home_of[name]}", package), name)
        except ModuleNotFoundError as error:
            needed = (extra or {}).get(error.name or "")
            if needed is None:
                raise
            raise ImportError(f'{name} needs {error.name}: pip install "scar-hf[{needed}]"') from error
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *home_of})
