"""One SQLite file shared by the threads of a process and by several processes."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from davfusion import platform
from davfusion.stamp import Stamp

BUSY_SECONDS = 30.0
"""How long a writer waits for another process's transaction to end."""
_POLL = 0.005


class Database:
    """A connection per process, opened on first use and again after a fork.

    `path=None` keeps the data in this process's memory. `durable` makes a commit survive power
    loss; without it the last commits may be lost, the file stays sound.

    SQLite itself would flush its log before it lets the next writer begin (synchronous=FULL). Here
    it does not wait (NORMAL), and transaction() flushes the log once the next writer may go on, so
    that several commits share a flush. A transaction has ended when its commit is on the disk.

    A transaction that has changed something renews the stamp of the folder, once all can see it,
    unless it is silent.
    """

    def __init__(self, path: Path | None, schema: str, *, durable: bool) -> None:
        self._path = path
        self._schema = schema
        self._durable = durable
        self._lock = threading.RLock()
        self._owner = 0
        self._connection: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection] = []
        self._log = SharedFlush(path.with_name(path.name + "-wal")) if path and durable else None
        self.stamp = Stamp(path.parent) if path is not None else None

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of one SELECT."""
        with self._lock:
            return self._open().execute(sql, values).fetchall()

    @contextmanager
    def transaction(
        self, *, write: bool = True, silent: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """All or nothing, and nobody else writes in between.

        Without `write` it only reads, one state of the data, and waits for no writer. `silent`
        leaves the stamp as it is: for what may show a little later.
        """
        with self._lock:
            connection = self._open()
            changes = connection.total_changes
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk, for one, makes SQLite roll back by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            flush = self._log.written() if write and self._log else None
            if self.stamp and not silent and connection.total_changes != changes:
                self.stamp.renew()
        if flush is not None:
            flush()

    def close(self) -> None:
        """Close this process's connection; the next use opens a new one."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None
            if self.stamp:
                self.stamp.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        # SQLite forbids to use, and even to close, a connection that came over a fork.
        if self._connection is not None:
            self._inherited.append(self._connection)
        self._connection = self._connect()
        self._owner = os.getpid()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if self._path is not None:
            _make_private(self._path)
        if self.stamp:
            self.stamp.value()  # what it lacks must show before the first commit
        connection = sqlite3.connect(
            self._path or ":memory:",
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        if self._path is not None:
            _write_ahead(connection)
        connection.execute(f"PRAGMA synchronous={'NORMAL' if self._durable else 'OFF'}")
        connection.executescript(self._schema)
        return connection


class Sparse:
    """A Database whose `tables` are empty on most shares: then they are not asked.

    Whether they are is looked up once for each stamp, since no row comes without a new one.
    """

    def __init__(self, database: Database, tables: Sequence[str]) -> None:
        self._database = database
        probes = (f"SELECT 1 FROM {table}" for table in tables)  # noqa: S608 - constants
        self._probe = " UNION ALL ".join(probes) + " LIMIT 1"
        self._empty_at: bytes | None = None
        self.transaction = database.transaction

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of one SELECT that gives none while the tables are empty."""
        return [] if self._is_empty() else self._database.rows(sql, values)

    def _is_empty(self) -> bool:
        if self._database.stamp is None:
            return False
        stamp = self._database.stamp.value()
        if stamp != self._empty_at and not self._database.rows(self._probe):
            self._empty_at = stamp
        return stamp == self._empty_at


class SharedFlush:
    """Brings a file to the disk; those who have written to it meanwhile share the flush.

    After one that fails, all do: the system tells once, and then takes what is lost for flushed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._writes = 0
        self._flushed = 0
        self._failure: OSError | None = None

    def written(self) -> Callable[[], None]:
        """To be called by one thread at a time; what it returns ends when that is on the disk."""
        self._writes += 1
        return partial(self._flush, self._writes)

    def _flush(self, write: int) -> None:
        with self._lock:
            if write <= self._flushed:
                return
            if self._failure is not None:
                raise self._failure
            writes = self._writes
            descriptor = os.open(self._path, os.O_RDWR)
            try:
                platform.flush(descriptor)
            except OSError as error:
                self._failure = error
                raise
            finally:
                os.close(descriptor)
            self._flushed = writes


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have the file keep a log; SQLite does not wait where others begin one at the same moment."""
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(_POLL)
        else:
            return


def _make_private(path: Path) -> None:
    """Make the file, for this user alone, where it is missing; SQLite's further files follow it.

    One that is there is not opened: closing it would end the locks that SQLite holds on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def below(directory: str) -> tuple[str, str]:
    """Bounds of the paths below `directory`: `bound[0] <= path < bound[1]`.

    A range, unlike LIKE or GLOB, needs no escaping and uses the index.
    """
    start = directory.rstrip("/") + "/"
    return start, start[:-1] + chr(ord("/") + 1)
