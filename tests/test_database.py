"""Database: one SQLite file for threads and processes."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from davfusion.database import Database

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
