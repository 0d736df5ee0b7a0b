"""Claims: who puts something where just now, past a store that cannot refuse by itself.

A claim ends with its process: those of a process that has died are void.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from davfusion.cache.disposable import DisposableDatabase
from davfusion.cache.holds import wait_until
from davfusion.platform import is_running
from davfusion.stores import paths
from davfusion.stores.store import StoreSpaceLimitError

_FAILED: Final[int | None] = -1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS claim (path TEXT NOT NULL, process INTEGER NOT NULL, alone INTEGER)
"""


class Claims:
    """The claims of all processes that share the file `path`.

    `wait` is called with the seconds to pass until it is looked at again.
    """

    def __init__(self, path: Path, wait: Callable[[float], None] = time.sleep) -> None:
        self._database = DisposableDatabase(path, _SCHEMA)
        self._wait = wait

    @contextmanager
    def claimed(self, path: str, *, alone: bool) -> Iterator[None]:
        """Put something at `path`; if `alone`, nobody else does so there, below or above.

        Raises TransientStoreError when that cannot be had for too long, StoreSpaceLimitError where
        it cannot be written down.
        """
        insert = partial(_insert, path, alone)
        claim = wait_until(lambda: self._database.run(insert, _FAILED, silent=True), self._wait)
        if claim == _FAILED:
            raise StoreSpaceLimitError("the cache's disk takes no claims: it may be full")
        try:
            yield
        finally:
            self._database.run(lambda db: _delete(db, claim, path), None, silent=True)

    def clear(self) -> None:
        """Forget the claims of processes of before; none of today's may have begun. OSError."""
        self._database.throw_away()

    def close(self) -> None:
        """Close this process's connection; the next use opens a new one."""
        self._database.close()


def _insert(path: str, alone: bool, db: sqlite3.Connection) -> int | None:
    """The number of the claim; None while others are in the way."""
    others = db.execute("SELECT path, process FROM claim WHERE alone OR ?", (alone,))
    for other, process in others:
        if paths.overlaps(path, [other]) and is_running(process):
            return None
    values = (path, os.getpid(), alone)
    return db.execute("INSERT INTO claim VALUES (?, ?, ?)", values).lastrowid


def _delete(db: sqlite3.Connection, claim: int | None, path: str) -> None:
    """In a file that was begun anew meanwhile, another claim may have the number."""
    sql = "DELETE FROM claim WHERE rowid = ? AND path = ? AND process = ?"
    db.execute(sql, (claim, path, os.getpid()))
