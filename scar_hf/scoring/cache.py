"""Caches scores on disk, keyed by row and scorer, so that an interrupted, repeated or grown run need not compute them again."""

import json
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from huggingface_hub import constants

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
_VALUE = np.dtype([("score", "<f4"), ("truncated", "u1"), ("checksum", "V8")])
# Gigabytes that the database may take unless $SCAR_HF_CACHE_SIZE says otherwise: some 200 million rows.
_SIZE = 8.0
# Seconds to wait for other processes that write.
_PATIENCE = 30.0
# What SQLite reports for a damaged file: not a database, malformed, or with other tables than ours.
_DAMAGE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH)


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

    @classmethod
    def empty(cls, rows: int) -> "ChunkScores":
        """The result for rows without a score."""
        return cls(np.full(rows, np.nan, dtype=np.float32), np.zeros(rows, dtype=bool))


def cache_folder() -> Path:
    """Return the cache folder for scores and converted models: `$SCAR_HF_CACHE`, or `$HF_HOME/scar-hf` if it is not set."""
    return Path(os.environ.get("SCAR_HF_CACHE") or Path(constants.HF_HOME) / "scar-hf")


class ScoreCache:
    """
    A cache of row scores: one SQLite database for all scorers, which threads and processes may share. Nothing that happens to
    it costs a result: damaged scores are computed again, and a database that cannot be used is ignored with a warning.

    Each operation opens the database anew, because connections do not survive a fork. It keeps a rollback journal, because a
    write-ahead log does not work on network file systems, where caches often are.

    Args:
        settings (`dict`): everything that scores depend on besides the texts: the ranker's content, precision, lengths.
        folder (`str` or `Path`, *optional*): the cache folder; by default `scores` in [`cache_folder`].
        max_bytes (`int`, *optional*):
            Size to keep the database below; by default `$SCAR_HF_CACHE_SIZE` gigabytes, or 8. Beyond it, scores of the scorers
            that were not used for the longest time are removed.

    Attributes:
        key (`str`): identifies the scorer.

    Raises:
        `ValueError`: if `$SCAR_HF_CACHE_SIZE` is not a positive number.
    """

    def __init__(self, settings: Mapping[str, Any], folder: str | Path | None = None, max_bytes: int | None = None) -> None:
        self.folder = Path(folder or cache_folder() / "scores")
        self._key = blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=32).digest()
        self._max_bytes = _given_size() if max_bytes is None else max_bytes
        self._is_usable = True

    @property
    def key(self) -> str:
        """What identifies the scorer, in hexadecimal."""
        return self._key.hex()

    def get(self, digests: Sequence[bytes]) -> tuple[np.ndarray, ChunkScores]:
        """
        Look up rows.

        Args:
            digests (`Sequence[bytes]`): from [`~scar_hf.rows.pairs.RowPairs.digest`], n of them.

        Returns:
            `tuple(np.ndarray, ChunkScores)`: which of the n rows were found, bool, and their scores; NaN for the others.
        """
        stored = self._try("read", partial(self._values, set(map(_number, digests)))) or {}
        found, result = np.zeros(len(digests), dtype=bool), ChunkScores.empty(len(digests))
        values, damaged = [], 0
        for i, digest in enumerate(digests) if stored else ():
            value = stored.get(_number(digest))
            if isinstance(value, bytes) and value[5:] == self._checksum(digest, value[:5]):
                found[i] = True
                values.append(value)
            elif value is not None:
                damaged += 1
        if values:
            table_of_values = np.frombuffer(b"".join(values), dtype=_VALUE)
            result.scores[found], result.truncated[found] = table_of_values["score"], table_of_values["truncated"]
        if damaged:
            logger.warning("%d cached scores in %s are damaged and will be computed again.", damaged, self.folder)
        return found, result

    def put(self, digests: Sequence[bytes], result: ChunkScores) -> None:
        """
        Store the scores of rows.

        Args:
            digests (`Sequence[bytes]`): n digests of rows.
            result ([`ChunkScores`]): their n scores.
        """
        if not len(digests):
            return
        values = np.empty(len(digests), dtype=_VALUE)
        values["score"], values["truncated"] = result.scores, result.truncated
        packed = values.tobytes()
        parts = [packed[i : i + 5] for i in range(0, len(packed), _VALUE.itemsize)]
        stored = [(_number(d), part + self._checksum(d, part)) for d, part in zip(digests, parts, strict=True)]
        self._try("write", partial(self._store, stored))

    def known(self) -> np.ndarray:
        """Return the first 8 bytes of the digests of all rows in the cache, uint64, ascending."""
        numbers = self._try("read", self._numbers)
        return np.empty(0, dtype=np.uint64) if numbers is None else np.sort(numbers.astype(np.uint64))

    def _try(self, purpose: str, operation: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Run an operation on the database; `None` if there is none to read. An error becomes a warning."""
        path = self._path()
        if not self._is_usable or (purpose == "read" and not path.exists()):
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(_connect(path)) as db:
                return operation(db)
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                self._start_anew(path, error)
                return None
            self._is_usable = False
            logger.warning(
                "Cannot %s the score cache in %s (%s). Scores are no longer cached in this run.", purpose, self.folder, error
            )
            return None

    def _path(self) -> Path:
        """The database; after damage, another one has a higher number."""
        return max(self.folder.glob("scores.[0-9]*.sqlite"), key=_number_of, default=self.folder / "scores.0.sqlite")

    def _start_anew(self, path: Path, error: Exception) -> None:
        """Replace a damaged database by one with another name, as other processes may still use this one and its journal."""
        logger.warning("The score cache %s is damaged (%s). Its scores will be computed again.", path, error)
        try:
            with closing(_connect(path.with_name(f"scores.{_number_of(path) + 1}.sqlite"))) as db:
                db.execute("CREATE TABLE IF NOT EXISTS scorers (id INTEGER PRIMARY KEY, key BLOB UNIQUE, used REAL)")
            path.unlink(missing_ok=True)
        except (sqlite3.Error, OSError):
            self._is_usable = False

    def _values(self, numbers: Collection[int], db: sqlite3.Connection) -> dict[int, Any]:
        table = self._table(db)
        if table is None or not numbers:
            return {}
        return dict(db.execute(f"SELECT row, value FROM {table} WHERE row IN ({','.join(map(str, sorted(numbers)))})"))

    def _numbers(self, db: sqlite3.Connection) -> np.ndarray:
        table = self._table(db)
        rows = () if table is None else db.execute(f"SELECT row FROM {table}")
        return np.fromiter((row for (row,) in rows), dtype=np.int64)

    def _store(self, values: Sequence[tuple[int, bytes]], db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        table = self._table(db) or self._new_table(db)
        db.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", values)
        self._evict(db, table)
        db.execute("COMMIT")

    def _table(self, db: sqlite3.Connection) -> str | None:
        """The table of this scorer, if there is one."""
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'scorers' AND type = 'table'").fetchone():
            return None
        found = db.execute("SELECT id FROM scorers WHERE key = ?", (self._key,)).fetchone()
        return f"scores_{int(found[0])}" if found else None

    def _new_table(self, db: sqlite3.Connection) -> str:
        db.execute("CREATE TABLE IF NOT EXISTS scorers (id INTEGER PRIMARY KEY, key BLOB UNIQUE, used REAL)")
        number = db.execute("INSERT INTO scorers (key, used) VALUES (?, 0)", (self._key,)).lastrowid
        db.execute(f"CREATE TABLE scores_{number} (row INTEGER PRIMARY KEY, value BLOB)")
        return f"scores_{number}"

    def _evict(self, db: sqlite3.Connection, table: str) -> None:
        """Note that this scorer is in use; if the database is too large, drop unused scorers, then a part of this one."""
        number = int(table.removeprefix("scores_"))
        db.execute("UPDATE scorers SET used = ? WHERE id = ?", (time.time(), number))
        page_size = db.execute("PRAGMA page_size").fetchone()[0]
        while (_pages(db) * page_size) > self._max_bytes:
            oldest = db.execute("SELECT id FROM scorers WHERE id != ? ORDER BY used LIMIT 1", (number,)).fetchone()
            if oldest is None:
                # Digests are random, and so is a third of their range.
                start = random.randrange(-(2**63), 2**63 - 2**64 // 3)
                db.execute(f"DELETE FROM {table} WHERE row BETWEEN ? AND ?", (start, start + 2**64 // 3))
                return
            db.execute(f"DROP TABLE IF EXISTS scores_{int(oldest[0])}")
            db.execute("DELETE FROM scorers WHERE id = ?", oldest)

    def _checksum(self, digest: bytes, value: bytes) -> bytes:
        """Hash a score together with its key, so that one that was moved from another row or ranker is rejected."""
        return blake2b(digest + value, digest_size=8, key=self._key).digest()


@dataclass(frozen=True, slots=True)
class PartlyScored:
    """
    The rows of a chunk of which the cache knows some. Rows that cannot be scored count as known.

    Args:
        digests (`Sequence[bytes]`): the digests of n rows.
        result ([`ChunkScores`]): the scores so far, NaN for rows without one.
        missing (`np.ndarray`): places of the rows to compute.
        awaited (`np.ndarray`): places of rows that an earlier chunk computes.
    """

    digests: Sequence[bytes]
    result: ChunkScores
    missing: np.ndarray
    awaited: np.ndarray

    @classmethod
    def of(
        cls, digests: Sequence[bytes], places: np.ndarray, cache: ScoreCache | None, in_work: Container[bytes] = ()
    ) -> "PartlyScored":
        """
        Look up rows.

        Args:
            digests (`Sequence[bytes]`): the digests of n rows.
            places (`np.ndarray`): places of the rows that can be scored.
            cache ([`ScoreCache`], *optional*): the score cache.
            in_work (`Container[bytes]`, *optional*): digests of the rows of earlier chunks that are being computed.

        Returns:
            [`PartlyScored`].
        """
        result, awaited = ChunkScores.empty(len(digests)), np.zeros(len(places), dtype=bool)
        if cache is not None and len(places):
            found, known = cache.get([digests[i] for i in places])
            result.scores[places[found]], result.truncated[places[found]] = known.scores[found], known.truncated[found]
            places = places[~found]
            awaited = np.array([digests[i] in in_work for i in places], dtype=bool)
        return cls(digests, result, places[~awaited], places[awaited])

    def complete(
        self, computed: ChunkScores | None, compute: Callable[[np.ndarray], ChunkScores], cache: ScoreCache | None
    ) -> ChunkScores:
        """
        Add the rows that were not known.

        Args:
            computed ([`ChunkScores`], *optional*): the scores of the missing rows.
            compute (`Callable`): scores rows by their places, if a row was not computed after all.
            cache ([`ScoreCache`], *optional*): the score cache, which also gets the scores.

        Returns:
            [`ChunkScores`]: the scores of the whole chunk.
        """
        if computed is not None:
            self._add(self.missing, computed, cache)
        if len(self.awaited):
            others = PartlyScored.of(self.digests, self.awaited, cache)
            found = others.result
            self._add(self.awaited, ChunkScores(found.scores[self.awaited], found.truncated[self.awaited]), None)
            if len(others.missing):
                self._add(others.missing, compute(others.missing), cache)
        return self.result

    def _add(self, places: np.ndarray, scores: ChunkScores, cache: ScoreCache | None) -> None:
        self.result.scores[places], self.result.truncated[places] = scores.scores, scores.truncated
        if cache is not None:
            cache.put([self.digests[i] for i in places], scores)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
    try:
        db.text_factory = bytes
        # Other processes may write to the cache: nothing that a database holds is run.
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def _pages(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA page_count").fetchone()[0] - db.execute("PRAGMA freelist_count").fetchone()[0]


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little", signed=True)


def _number_of(path: Path) -> int:
    with suppress(ValueError, IndexError):
        return int(path.name.split(".")[1])
    return -1


def _given_size() -> int:
    given = os.environ.get("SCAR_HF_CACHE_SIZE") or str(_SIZE)
    try:
        size = float(given)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise ValueError(
            f"$SCAR_HF_CACHE_SIZE must be a positive number of gigabytes, got {given!r}. The default is {_SIZE:g}."
        )
    return int(size * 1e9)
