"""Checks that names in manifests and rankers stay within their folder, and removes paths before publication."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any


def file_named(folder: Path, name: Any) -> Path:
    """
    Find a file by its name in a manifest.

    Args:
        folder (`Path`): the folder that it must be in.
        name (`str`): its path within the folder, with `/`.

    Returns:
        `Path`: the path of the file, which need not exist.

    Raises:
        `ValueError`: if the name leads out of the folder, or through a symbolic link.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    absolute = isinstance(name, str) and (PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor)
    if not parts or absolute or ".." in parts or "\\" in str(name) or "\0" in str(name):
        raise ValueError(f"{name!r} is not the name of a file in {folder}: the manifest that names it is damaged or forged.")
    path = folder
    for part in parts:
        path /= part
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link, which is not followed, because it may lead to any file.")
    return path


def without_local_folders(value: Any) -> Any:
    """
    Prepare a manifest for publication: reduce absolute paths, which reveal the machine and its user, to file names.

    Args:
        value: a manifest, or a part of one.

    Returns:
        The same, with file names instead of absolute paths; keys that become equal are numbered.
    """
    if isinstance(value, Mapping):
        result: dict[Any, Any] = {}
        for key, item in value.items():
            name, number = without_local_folders(key), 2
            while name in result:
                name, number = f"{without_local_folders(key)} ({number})", number + 1
            result[name] = without_local_folders(item)
        return result
    if isinstance(value, list | tuple):
        return [without_local_folders(item) for item in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute():
                return kind(value).name
    return value
