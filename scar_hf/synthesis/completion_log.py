"""Write completions to disk as they arrive, so that a killed run can continue without paying twice."""

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from .backends import Completion, Messages, Sampling


def completion_key(messages: Messages, model: str, sampling: Sampling) -> str:
    """
    Compute the key of a completion: a hash of everything that it depends on.

    Args:
        messages (`Sequence[Mapping]`): the chat.
        model (`str`): name of the model.
        sampling ([`Sampling`]): the sampling settings.

    Returns:
        `str`: 32 hexadecimal digits.
    """
    parts = {"messages": [dict(message) for message in messages], "model": model, "sampling": sampling.settings()}
    return sha256(json.dumps(parts, sort_keys=True).encode("ascii")).hexdigest()[:32]


class CompletionLog:
    """
    An append-only JSON Lines file with one completion per line, read into memory when opened. Damaged lines are skipped,
    such as a last line cut short by a kill.

    Args:
        path (`str` or `Path`, *optional*): the file; without it, completions are kept in memory only.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.damaged = 0
        self._completions: dict[str, Completion] = {}
        self._file: int | None = None
        self._lock: Any = None
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def __len__(self) -> int:
        return len(self._completions)

    def get(self, key: str) -> Completion | None:
        """Return the completion for a key, or `None` if it is missing."""
        return self._completions.get(key)

    def open(self) -> None:
        """
        Lock the file and open it for appending.

        Raises:
            `ValueError`: if another process has locked it.
            `OSError`: if it cannot be written.
        """
        if self.path is None or self._file is not None:
            return
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"Another process writes to {self.path}. Wait for it to end, or name another output.") from error
        if self.path.exists():
            self._read(self.path)  # another process may have added lines since
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._append(b"\n")

    def add(self, key: str, completion: Completion, **notes: Any) -> None:
        """
        Store a completion.

        Args:
            key (`str`): from [`completion_key`].
            completion ([`Completion`]): the answer.
            notes: additional fields of its line, such as `kind` and `model`.

        Raises:
            `OSError`: if the disk is full. The file then ends with the last complete line.
        """
        entry = {"key": key, **notes, **vars(completion)}
        if self._file is not None:
            self._append(json.dumps(entry).encode("ascii") + b"\n")
        self._completions[key] = completion

    def close(self) -> None:
        """Flush added completions to disk."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
            self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        size = os.fstat(self._file).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            os.ftruncate(self._file, size)
            raise OSError(error.errno, f"{error.strerror}; the completions so far are kept in it", str(self.path)) from error

    def _read(self, path: Path) -> None:
        self.damaged = 0
        with path.open("rb") as lines:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line)
                    key, completion = entry["key"], _completion(entry)
                except (ValueError, KeyError, TypeError, RecursionError):
                    self.damaged += 1
                else:
                    self._completions[key] = completion


def _completion(entry: Mapping[str, Any]) -> Completion:
    """Parse the completion in a line; raise an error if the line is damaged."""
    text, finish_reason = entry["text"], entry.get("finish_reason")
    counts = [entry.get(name) for name in ("prompt_tokens", "completion_tokens")]
    if not isinstance(entry["key"], str) or not isinstance(text, str) or not isinstance(finish_reason, (str, type(None))):
        raise TypeError("not a completion")
    if any(not isinstance(count, (int, type(None))) for count in counts):
        raise TypeError("not a completion")
    return Completion(text, finish_reason, *counts)
