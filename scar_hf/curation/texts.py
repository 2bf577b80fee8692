"""Split texts into words, and hash their n-grams."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

_BATCH = 1000
# Scripts without spaces between words: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Vowel signs and accents of scripts such as Devanagari and Arabic, which the regular expression \w does not match.
_MARKS = "".join(c for c in map(chr, [*range(0x300, 0x20D0), *range(0xA800, 0xAC00)]) if unicodedata.category(c)[0] == "M")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[{_MARKS}]+[^\W{_UNSPACED}]*)*")
_ONE_UNSPACED = re.compile(f"[{_UNSPACED}]")
_ASCII_WORD = re.compile(r"\w+", re.ASCII)
MIXER = np.uint64(0x9E3779B97F4A7C15)
T = TypeVar("T")


def words_of(text: str) -> list[str]:
    """
    Split a text into words: runs of letters (with their marks) and digits in lower case, and single characters of scripts
    without spaces between words, such as Chinese, Japanese and Thai. Punctuation is dropped.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def count_unspaced(text: str) -> int:
    """Count the characters of scripts without spaces between words."""
    return 0 if text.isascii() else len(_ONE_UNSPACED.findall(text))


def parts_of(on: str) -> tuple[str, ...]:
    """Return the parts of a row that `on` selects; raise a `ValueError` if it is unknown."""
    if on not in ("both", "instruction", "response"):
        raise ValueError(f"`on` must be 'both', 'instruction' or 'response', got {on!r}.")
    return ("instruction", "response") if on == "both" else (on,)


def batches_of(rows: Iterable[T]) -> Iterator[list[T]]:
    """Split a stream into lists of at most 1,000 items."""
    stream = iter(rows)
    while batch := list(islice(stream, _BATCH)):
        yield batch


def hash_ngrams(texts: Sequence[Sequence[str]], n: int, seed: int = 0, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """
    Hash every run of n words.

    Args:
        texts (`Sequence[Sequence[str]]`): the words of m texts.
        n (`int`): number of words in a run.
        seed (`int`, *optional*, defaults to 0): seed of the hashes, which are the same in every process.
        whole (`bool`, *optional*, defaults to `False`): whether a text shorter than n words is one run; otherwise it has none.

    Returns:
        `(hashes, offsets)`: uint64, and int64 of shape `(m + 1,)`; text i has `hashes[offsets[i]:offsets[i + 1]]`.

    Raises:
        `ImportError`: if xxhash, a dependency of datasets, is missing.
    """
    from xxhash import xxh3_64_intdigest

    padding = [[""] * (n - len(words)) if whole and 0 < len(words) < n else [] for words in texts]
    lengths = np.array([len(words) + len(more) for words, more in zip(texts, padding, strict=True)], dtype=np.int64)
    padded = (word for words, more in zip(texts, padding, strict=True) for part in (words, more) for word in part)
    tokens = np.fromiter((xxh3_64_intdigest(word.encode(), seed) for word in padded), np.uint64, int(lengths.sum()))
    counts = np.maximum(lengths - n + 1, 0)
    starts = spread(np.cumsum(lengths) - lengths, counts)
    hashes = np.zeros(len(starts), dtype=np.uint64)
    for i in range(n):
        hashes = hashes * MIXER + tokens[starts + i]
    return hashes, np.concatenate([[0], np.cumsum(counts)])


def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the `counts[i]` positions `starts[i], starts[i] + 1, ...` for each i in turn."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def places_of(values: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of values in a sorted array, and whether they are present; ignore the positions of absent ones."""
    if not len(among):
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    at = np.minimum(np.searchsorted(among, values), len(among) - 1)
    return at, among[at] == values
