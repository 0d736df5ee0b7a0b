"""Looking at a database of the cache from outside: nothing is made, changed or repaired."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, and sees one state of the data; sqlite3.Error.

    It waits for no writer. SQLite may leave an empty `-wal` and a `-shm` beside the file.
    """
    uri = path.absolute().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield connection


def damage(path: Path) -> str | None:
    """What makes the database useless; None if nothing does, or there is none."""
    if not path.exists():
        return None
    try:
        with reading(path) as db:
            [(verdict,), *_] = db.execute("PRAGMA quick_check(1)").fetchall()
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    if verdict == "ok" and not tables:
        return "it is empty"
    return None if verdict == "ok" else str(verdict)
