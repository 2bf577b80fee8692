"""Scores on disk, by what was scored and with what: what a run that was killed, or a second one, need not compute again."""

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
    What scoring a chunk gives.

    Args:
        scores (`np.ndarray` of shape `(n,)`, float32): NaN where a row has none.
        truncated (`np.ndarray` of shape `(n,)`, bool): whether a text of the row was longer than what was read of it.
    """

    scores: np.ndarray
    truncated: np.ndarray


def cache_folder() -> Path:
    """Where scores and converted models are kept: `$SCAR_HF_CACHE`, else `scar-hf` in the folder of `$HF_HOME`."""
    return Path(os.environ.get("SCAR_HF_CACHE") or Path(constants.HF_HOME) / "scar-hf")


class ScoreCache:
    """
    The scores of chunks, each in a small file of its own that appears whole or not at all.

    Args:
        settings (`dict`): what scores depend on besides the texts: the ranker's content, precision, lengths.
        folder (`str` or `Path`, *optional*): where; by default `scores` in [`cache_folder`].
    """

    def __init__(self, settings: Mapping[str, Any], folder: str | Path | None = None):
        key = sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self.folder = Path(folder or cache_folder() / "scores") / key[:32]
        self._key = key.encode()
        self._writable = True

    def get(self, digest: str, rows: int) -> ChunkScores | None:
        """Return the scores of a chunk, `None` if they are not there or damaged."""
        try:
            data = self._path(digest).read_bytes()
        except OSError:
            return None
        checksum, payload = data[:32], data[32:]
        if self._checksum(digest, payload) != checksum or len(payload) != rows * _ROW.itemsize:
            logger.warning("The cached scores in %s are damaged and are computed again.", self._path(digest))
            return None
        table = np.frombuffer(payload, dtype=_ROW)
        return ChunkScores(table["score"].astype(np.float32), table["truncated"].astype(bool))

    def put(self, digest: str, result: ChunkScores) -> None:
        """Keep the scores of a chunk. A disk that takes no more is said once, and costs no result."""
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
                "Scores are no longer kept in %s (%s): a run that is interrupted now starts over.", self.folder, error
            )

    def _checksum(self, digest: str, payload: bytes) -> bytes:
        """Of the scores and of what they belong to: those of other texts or another ranker do not pass for them."""
        return sha256(self._key + digest.encode() + payload).digest()

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest[2:]
