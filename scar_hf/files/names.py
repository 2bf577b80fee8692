"""Names from manifests and rankers, which anybody may have written: never paths out of their folder."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any


def file_named(folder: Path, name: Any) -> Path:
    """
    Find a file by the name that a manifest gives it.

    Args:
        folder (`Path`): where it must be.
        name (`str`): its path in the folder, with `/`.

    Returns:
        `Path`: of the file, which need not exist.

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
            raise ValueError(f"{path} is a symbolic link, which is not followed: it may lead to a file that is not meant.")
    return path
