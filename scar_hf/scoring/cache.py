"""Caches scores on disk, keyed by texts and scorer, so that an interrupted or repeated run need not compute them again."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import constants

from ..files import atomic_write

logger = logging.getLogger(__name__)
_ROW = np.dtype([("score", "<f4"), ("truncated", "u1")])


@dataclass(frozen=True, slots=True)
class ChunkScores:
    """
    The result of scoring a chunk.

    Args:
        scores (`np.ndarray` of shape `(n,)`, float32): NaN for rows without a score.
        truncated (`np.ndarray` of shape `(n,)`, bool): whether a text of the row was truncated.
    """

    scores: np.ndarray
    truncated: np.ndarray


def cache_folder() -> Path:
    """Return the cache folder for scores and converted models: `$SCAR_HF_CACHE`, or `$HF_HOME/scar-hf` if it is not set."""
    return Path(os.environ.get("SCAR_HF_CACHE") or Path(constants.HF_HOME) / "scar-hf")


class ScoreCache:
    """
    A cache of chunk scores, one small file per chunk, written atomically.

    Args:
        settings (`dict`): everything that scores depend on besides the texts: the ranker's content, precision, lengths.
        folder (`str` or `Path`, *optional*): the cache folder; by default `scores` in [`cache_folder`].
    """

    def __init__(self, settings: Mapping[str, Any], folder: str | Path | None = None):
        key = sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self.folder = Path(folder or cache_folder() / "scores") / key[:32]
        self._key = key.encode()
        self._writable = True

    def get(self, digest: str, rows: int) -> ChunkScores | None:
        """Return the scores of a chunk, or `None` if they are missing or damaged."""
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            return None
        checksum, payload = data[:32], data[32:]
        if self._checksum(digest, payload) != checksum or len(payload) != rows * _ROW.itemsize:
            logger.warning("The cached scores in %s are damaged and will be computed again.", self._path(digest))
            return None
        table = np.frombuffer(payload, dtype=_ROW)
        return ChunkScores(table["score"].astype(np.float32), table["truncated"].astype(bool))

    def put(self, digest: str, result: ChunkScores) -> None:
        """Store the scores of a chunk. If writing fails, warn once and continue without caching."""
        if not self._writable:
            return
        table = np.empty(len(result.scores), dtype=_ROW)
        table["score"], table["truncated"] = result.scores, result.truncated
        payload = table.tobytes()
        path = self._path(digest)
        try:
            with atomic_write(path) as out:
                out.write(self._checksum(digest, payload) + payload)
        except OSError as error:
            self._writable = False
            logger.warning(
                "Cannot write to the score cache in %s (%s). Scores are no longer cached in this run.", self.folder, error
            )

    def _checksum(self, digest: str, payload: bytes) -> bytes:
        """Hash the scores together with their key, so that a file moved from another chunk or ranker is rejected."""
        return sha256(self._key + digest.encode() + payload).digest()

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest[2:]
