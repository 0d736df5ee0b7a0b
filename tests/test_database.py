"""Database: one SQLite file for threads and processes."""

import multiprocessing
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from davfusion import platform
from davfusion.database import Database, Sparse

SCHEMA = "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)"


def insert(database: Database, number: int) -> None:
    with database.transaction() as db:
        db.execute("INSERT INTO t VALUES (?)", (number,))


def test_the_true_error_shows_where_sqlite_has_rolled_back_by_itself(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SCHEMA, durable=True)
    insert(database, 1)
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as db:
        db.execute("INSERT OR ROLLBACK INTO t VALUES (1)")
    insert(database, 2)
    assert database.rows("SELECT n FROM t") == [(1,), (2,)]
    database.close()


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    schema = "CREATE TABLE t (n INTEGER PRIMARY KEY, m REFERENCES t DEFERRABLE INITIALLY DEFERRED)"
    database = Database(tmp_path / "db", schema, durable=True)
    database.rows("PRAGMA foreign_keys=ON")
    with pytest.raises(sqlite3.IntegrityError), database.transaction() as db:
        db.execute("INSERT INTO t VALUES (1, 7)")
    with database.transaction() as db:
        db.execute("INSERT INTO t VALUES (2, NULL)")
    assert database.rows("SELECT n FROM t") == [(2,)]
    database.close()


def test_closing_and_opening_again_keeps_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SCHEMA, durable=True)
    for _ in range(3):
        database.rows("SELECT 1")
        database.close()
    assert database._inherited == []


def test_a_new_file_that_another_process_begins_at_the_same_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(time, "sleep", lambda _: other.execute("COMMIT"))
        database = Database(tmp_path / "db", SCHEMA, durable=True)
        assert database.rows("SELECT n FROM t") == []
        assert not other.in_transaction
        database.close()


def test_a_connection_is_not_shared_over_a_fork(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SCHEMA, durable=True)
    insert(database, 1)
    other = multiprocessing.get_context("fork").Process(target=insert, args=(database, 2))
    other.start()
    other.join()
    assert other.exitcode == 0
    assert database.rows("SELECT n FROM t") == [(1,), (2,)]
    database.close()


def test_a_new_file_is_for_this_user_alone(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SCHEMA, durable=True)
    insert(database, 1)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    database.close()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which file is flushed")
def test_a_durable_commit_is_flushed_before_the_transaction_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush = platform.flush

    def noted(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        flush(descriptor)

    monkeypatch.setattr(platform, "flush", noted)
    for durable, expected in ((True, ["db-wal"]), (False, [])):
        database = Database(tmp_path / "db", SCHEMA, durable=durable)
        with database.transaction(write=False) as db:
            db.execute("SELECT 1")
        assert flushed == []
        with database.transaction() as db:
            db.execute("DELETE FROM t")
            assert flushed == []
        assert flushed == expected
        flushed.clear()
        database.close()


def test_what_is_empty_is_asked_once_until_something_changes(tmp_path: Path) -> None:
    ours, theirs = (Database(tmp_path / "db", SCHEMA, durable=True) for _ in range(2))
    sparse = Sparse(ours, ("t",))
    asked: list[str] = []
    with ours.transaction(write=False) as db:
        db.set_trace_callback(asked.append)
    asked.clear()
    for _ in range(3):
        assert sparse.rows("SELECT n FROM t") == []
    assert asked == ["SELECT 1 FROM t LIMIT 1"]
    insert(theirs, 1)
    assert sparse.rows("SELECT n FROM t") == [(1,)]
    with sparse.transaction() as db:
        db.execute("DELETE FROM t")
    asked.clear()
    assert sparse.rows("SELECT n FROM t") == sparse.rows("SELECT n FROM t") == []
    assert asked == ["SELECT 1 FROM t LIMIT 1"]
    ours.close()
    theirs.close()


def test_commits_of_one_moment_share_a_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(tmp_path / "db", SCHEMA, durable=True)
    insert(database, 0)
    flushes, all_committed = [], threading.Barrier(8)
    flush = platform.flush

    def slow(descriptor: int) -> None:
        flushes.append(descriptor)
        if len(flushes) == 1:
            all_committed.wait(10)
        flush(descriptor)

    def commit(number: int) -> None:
        with database.transaction() as db:
            db.execute("INSERT INTO t VALUES (?)", (number,))
        done.append(number)

    done: list[int] = []
    monkeypatch.setattr(platform, "flush", slow)
    threads = [threading.Thread(target=commit, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    while database.rows("SELECT count(*) FROM t") != [(9,)]:
        assert len(done) == 0  # the first flush is still under way
    for _ in range(7):
        threading.Thread(target=all_committed.wait, args=(10,)).start()
    for thread in threads:
        thread.join()
    assert len(done) == 8
    assert 2 <= len(flushes) < 8
    database.close()
