"""Opens files for reading and writing, compressed according to their suffix, and writes them atomically."""

import contextlib
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

INPUT_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".csv", ".parquet")
OUTPUT_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".csv", ".parquet")
INPUT_FORMATS = (
    f"{', '.join(INPUT_SUFFIXES)}, a folder of such files of one kind, a folder written by `Dataset.save_to_disk`, "
    "or the id of a dataset on the Hub"
)
OUTPUT_FORMATS = f"{', '.join(OUTPUT_SUFFIXES)}, or a folder"


def suffix_of(path: str | Path) -> str:
    """
    Return the suffix of a file's format, including that of its compression.

    Args:
        path (`str` or `Path`): any path; it need not exist.

    Returns:
        `str`: such as `".csv"`, `".jsonl.gz"` or `""`.
    """
    suffixes = Path(path).suffixes
    return "".join(suffixes[-2:] if suffixes and suffixes[-1] in (".gz", ".zst") else suffixes[-1:])


def import_zstandard() -> Any:
    """
    Import the optional dependency zstandard.

    Raises:
        `ImportError`: if it is not installed; the message contains the command that installs it.
    """
    try:
        import zstandard
    except ImportError as error:
        raise ImportError('Files that end in .zst need zstandard: pip install "scar-hf[zst]"') from error
    return zstandard


@contextlib.contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """
    Open a file for reading, decompressed according to its suffix.

    Raises:
        `ValueError`: while reading, if the compressed file is cut off or damaged.
    """
    with path.open("rb") as raw:
        if path.suffix not in (".gz", ".zst"):
            yield raw
            return
        if not raw.peek(1):
            raise ValueError(
                f"{path} is empty, but even a compressed file without rows has some bytes: it is cut off or damaged."
            )
        try:
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield io.BufferedReader(_ZstdFile(raw), 1 << 17)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: the compressed file is cut off or damaged ({error}).") from error


class _ZstdFile(io.RawIOBase):
    """Decompresses all frames of a file; zstandard's own reader does not notice a truncated frame."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._zstandard = import_zstandard()
        self._frame: Any = None
        self._left = b""
        self._output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            chunk = self._left or self._raw.read(1 << 14)
            self._left = b""
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the file ends within a frame")
                return 0
            if self._frame is None:
                # large datasets are often packed with `zstd --long=31`
                self._frame = self._zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            try:
                self._output = self._frame.decompress(chunk)
            except self._zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            if self._frame.eof:
                self._left, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._output))
        buffer[:size], self._output = self._output[:size], self._output[size:]
        return size


class OutputFile(io.RawIOBase):
    """Writes to a file and hashes the content; errors name the requested file instead of its temporary path."""

    def __init__(self, file: io.FileIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._hash = hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        """Return `True`."""
        return True

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._size

    def write(self, data: Any) -> int:
        """Write bytes and add them to the hash."""
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        self._hash.update(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._size += size
        return size

    def sync(self) -> None:
        """Flush everything written to the disk."""
        os.fsync(self._file.fileno())

    @property
    def sha256(self) -> str:
        """The SHA-256 of everything written so far."""
        return self._hash.hexdigest()


def part_of(path: Path) -> Path:
    """Return the hidden temporary path next to a file or folder."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextlib.contextmanager
def atomic_write(path: Path, named: Path | None = None) -> Iterator[OutputFile]:
    """
    Open a file for writing that appears under its name only when it is complete; on failure, nothing is left behind.

    Args:
        path (`Path`): the file.
        named (`Path`, *optional*): the path shown in error messages; by default `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        with open(part, "wb", buffering=0) as file:
            output = OutputFile(file, named or path)
            yield output
            output.sync()
        os.replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, if the system supports it."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def compressed(output: OutputFile, suffix: str) -> Iterator[Any]:
    """Yield a stream that compresses according to the suffix, without time stamps or file names."""
    if suffix.endswith(".gz"):
        stream: Any = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=output, mtime=0)
    elif suffix.endswith(".zst"):
        stream = import_zstandard().ZstdCompressor(level=3).stream_writer(output, closefd=False)
    else:
        stream = io.BufferedWriter(output, 1 << 20)
    with stream:
        yield stream
