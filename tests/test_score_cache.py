"""Scores on disk: what is stored comes back, whatever happens to the database, and never under another key."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scar_hf.rows.pairs import RowPairs
from scar_hf.scoring.cache import ChunkScores, ScoreCache
from scar_hf.scoring.chunks import cut_chunks
from scar_hf.scoring.datasets import score_rows


def digests(n: int, start: int = 0) -> list[bytes]:
    return [RowPairs(((f"question {start + i}", "answer"),)).digest() for i in range(n)]


def scores(n: int, start: int = 0) -> ChunkScores:
    values = np.arange(start, start + n, dtype=np.float32)
    return ChunkScores(values, values % 3 == 0)


def database(cache: ScoreCache) -> Path:
    (found,) = cache.folder.glob("*.sqlite")
    return found


@pytest.fixture
def cache(tmp_path) -> ScoreCache:
    return ScoreCache({"weights": "a"}, tmp_path / "scores")


def test_rows_come_back_one_by_one_and_others_are_missing(cache):
    cache.put(digests(50), scores(50))
    found, known = cache.get([*digests(5, 40), *digests(2, 100), *digests(3)])
    assert found.tolist() == [True] * 5 + [False] * 2 + [True] * 3
    np.testing.assert_array_equal(known.scores, [40, 41, 42, 43, 44, np.nan, np.nan, 0, 1, 2])
    np.testing.assert_array_equal(known.truncated, [i in (42, 0) for i in (40, 41, 42, 43, 44, -1, -1, 0, 1, 2)])
    assert len(list(cache.folder.iterdir())) == 1  # one file, however many rows
    hashes = np.frombuffer(b"".join(digests(50)), dtype="<u8")[::2]
    np.testing.assert_array_equal(cache.known(), np.sort(hashes))


def test_nothing_is_read_of_another_scorer_or_under_another_key(cache, tmp_path, caplog):
    cache.put(digests(4), scores(4))
    other = ScoreCache({"weights": "b"}, cache.folder)
    assert not other.get(digests(4))[0].any() and "damaged" not in caplog.text
    other.put(digests(1), scores(1, 7))
    with sqlite3.connect(database(cache)) as db:
        db.execute(
            "UPDATE scores_1 SET value = (SELECT value FROM scores_2) WHERE row = (SELECT row FROM scores_2)"
        )  # other ranker
        numbers = [int.from_bytes(digest[:8], "little", signed=True) for digest in digests(4)]
        swapped = "UPDATE scores_1 SET value = (SELECT value FROM scores_1 WHERE row = ?) WHERE row = ?"
        db.execute(swapped, (numbers[2], numbers[1]))  # other row
    db.close()
    assert cache.get(digests(4))[0].tolist() == [False, False, True, True]
    assert "2 cached scores" in caplog.text and "are damaged and will be computed again" in caplog.text


@pytest.mark.parametrize("seed", range(120))
def test_a_corrupted_database_never_gives_a_wrong_score_or_an_error(cache, seed):
    draw = np.random.default_rng(seed)
    for start in range(0, 400, 100):
        cache.put(digests(100, start), scores(100, start))
    path = database(cache)
    content = bytearray(path.read_bytes())
    if seed % 4 == 0:
        content = content[: draw.integers(len(content))]
    else:
        # A page, the header, or a byte here and there.
        at, size = ((0, 100), (draw.integers(len(content)), 4096), (0, len(content)))[seed % 4 - 1]
        places = at + draw.integers(min(size, len(content) - at), size=20)
        for place in places:
            content[place] = draw.integers(256)
    path.write_bytes(content)
    for _ in range(3):  # damage may be noticed only where a row is written
        found, known = cache.get(digests(400))
        np.testing.assert_array_equal(known.scores[found], np.arange(400)[found])
        cache.put(digests(400), scores(400))
    found, known = cache.get(digests(400))
    np.testing.assert_array_equal(known.scores[found], np.arange(400)[found])
    assert found.sum() > 390


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE scorers",
        "DROP TABLE scores_1",
        "ALTER TABLE scores_1 RENAME COLUMN value TO v",
        "UPDATE scores_1 SET value = 1.5",
    ],
)
def test_a_database_of_another_make_is_replaced(statement, cache):
    cache.put(digests(3), scores(3))
    with sqlite3.connect(database(cache)) as db:
        db.execute(statement)
    db.close()
    assert not cache.get(digests(3))[0].any()
    for _ in range(2):
        cache.put(digests(3), scores(3))
    assert cache.get(digests(3))[0].all()


WRITER = """
import sys, numpy as np
from scar_hf.scoring.cache import ChunkScores, ScoreCache
cache = ScoreCache({"weights": "a"}, sys.argv[1])
for start in range(int(sys.argv[2]), int(sys.argv[2]) + 300, 10):
    digests = [f"row {i:12}".encode()[::-1] for i in range(start, start + 10)]
    cache.put(digests, ChunkScores(np.arange(start, start + 10, dtype=np.float32), np.zeros(10, dtype=bool)))
    assert cache.get(digests)[0].all()
"""


def test_processes_share_a_database(cache):
    starts = (0, 150, 300, 600)
    workers = [subprocess.Popen([sys.executable, "-c", WRITER, cache.folder, str(start)]) for start in starts]
    assert [worker.wait(120) for worker in workers] == [0] * 4
    found, known = cache.get([f"row {i:12}".encode()[::-1] for i in range(900)])
    assert found.all() and (known.scores == np.arange(900)).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_uses_the_cache_of_its_parent(cache):
    cache.put(digests(10), scores(10))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            cache.put(digests(10, 10), scores(10, 10))
            status = int(not cache.get(digests(20))[0].all())
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    cache.put(digests(10, 20), scores(10, 20))
    assert cache.get(digests(30))[0].all()


def test_the_size_is_bounded_and_unused_scorers_go_first(tmp_path):
    folder, limit = tmp_path / "scores", 400_000
    old, older, new = (ScoreCache({"weights": name}, folder, limit) for name in ("old", "older", "new"))
    older.put(digests(2000), scores(2000))
    old.put(digests(2000), scores(2000))
    seen = False
    for start in range(0, 40_000, 1000):
        new.put(digests(1000, start), scores(1000, start))
        assert database(new).stat().st_size < limit + 200_000
        if not seen and not older.get(digests(2000))[0].any():
            assert old.get(digests(2000))[0].all()
            seen = True
    assert seen and not old.get(digests(2000))[0].any()
    kept, known = new.get(digests(40_000))
    assert kept.sum() > 3000 and (known.scores[kept] == np.arange(40_000)[kept]).all()
    assert kept[-1000:].any()


@pytest.mark.parametrize("given", ["0", "-1", "much", "nan", "inf"])
def test_a_size_that_is_none_is_named(given, monkeypatch, tmp_path):
    monkeypatch.setenv("SCAR_HF_CACHE_SIZE", given)
    with pytest.raises(ValueError, match=f"SCAR_HF_CACHE_SIZE must be a positive number of gigabytes, got '{given}'"):
        ScoreCache({}, tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_is_read(cache, caplog):
    cache.put(digests(3), scores(3))
    cache.folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        cache.put(digests(3, 3), scores(3, 3))
        assert "no longer cached" in caplog.text
        assert ScoreCache({"weights": "a"}, cache.folder).get(digests(3))[0].all()
    finally:
        cache.folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("obstacle", ["file", "folder"])
def test_what_is_in_the_way_costs_no_result(obstacle, tmp_path, caplog):
    folder = tmp_path / "scores"
    if obstacle == "file":
        folder.write_text("in the way")
    else:
        (folder / "scores.0.sqlite").mkdir(parents=True)
    cache = ScoreCache({}, folder)
    for _ in range(2):
        cache.put(digests(3), scores(3))
        assert not cache.get(digests(3))[0].any()
    assert caplog.text.count("Scores are no longer cached in this run") == 1


def test_only_new_rows_are_encoded(small, tmp_path, monkeypatch):
    """A row before, within or after others changes nothing for them, and none is computed twice."""
    rows = [RowPairs(((f"What is thing {i}?", f"It is number {i}, as all know."),)) for i in range(3000)]
    cache = small.cache(tmp_path / "scores")
    before = score_rows(small, rows, cache)
    encoded: list[int] = []
    encode = small._encoder.encode
    monkeypatch.setattr(small._encoder, "encode", lambda ids, on: encoded.append(len(ids)) or encode(ids, on))
    new = [RowPairs(((f"Why {i}?", "Because."),)) for i in range(3)]
    grown = [new[0], *rows[:1000], new[1], RowPairs((), "the response is missing"), *rows[1000:], new[2]]
    after = score_rows(small, grown, cache)
    assert sum(encoded) <= 2 * 3
    is_old = np.array([row in rows for row in (new[0], new[1], new[2])])
    assert not is_old.any()
    places = [*range(1, 1001), *range(1003, 3003)]
    np.testing.assert_array_equal(after.scores[places], before.scores)
    assert after.skipped == {1002: "the response is missing"} and np.isfinite(after.scores[[0, 1001, 3003]]).all()


def test_equal_rows_in_different_chunks_have_one_score(small, tmp_path, monkeypatch):
    rows = [RowPairs(((f"What is thing {i}?", "It is well known. " * (i % 9 + 1)),)) for i in range(2600)]
    twice = [*rows, *rows[::-1], *rows]
    assert len(list(cut_chunks(twice))) > 3
    encoded: list[int] = []
    encode = small._encoder.encode
    monkeypatch.setattr(small._encoder, "encode", lambda ids, on: encoded.append(len(ids)) or encode(ids, on))
    cache = small.cache(tmp_path / "scores")
    found = score_rows(small, twice, cache).scores.reshape(3, -1)
    np.testing.assert_array_equal(found[0], found[1][::-1])
    np.testing.assert_array_equal(found[0], found[2])
    assert sum(encoded) <= 2600 + 9 * 12  # the questions, and in each chunk the answers
    # Also if nothing can be stored, although rows then have to be computed again.
    cache = small.cache(tmp_path / "other")
    monkeypatch.setattr(cache, "put", lambda *args: None)
    assert np.isfinite(score_rows(small, twice, cache).scores).all()
