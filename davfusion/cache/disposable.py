"""A database that may be lost at any time: what goes wrong with it is a miss, not an error."""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from davfusion.database import Database
from davfusion.platform import wait_for_lock

T = TypeVar("T")

_log = logging.getLogger(__name__)
_ATTEMPTS = 2
"""The second one meets the new file: a change must not miss the one that others use by now."""


class DisposableDatabase:
    """A Database that many processes share, each of which may throw it away for all.

    A file that SQLite cannot use is set aside as `NAME.corrupt` and made anew. Setting it aside
    is also what follows a change that could not be recorded: a cache that missed a change must
    not answer any process again.

    Lock order: this object's lock, the lock file, the Database's lock.
    """

    def __init__(self, path: Path | None, schema: str) -> None:
        self._path = path
        self._database = Database(path, schema, durable=False)
        self._lock = threading.RLock()
        self._opened: tuple[int, int] | None = None
        self._process = 0

    def run(
        self,
        task: Callable[[sqlite3.Connection], T],
        otherwise: T,
        *,
        write: bool = True,
        silent: bool = False,
    ) -> T:
        """What `task` returns, run as one transaction; `otherwise` when the database fails.

        `write` and `silent` as in Database.transaction.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    return self._run(task, write, silent)
                except (sqlite3.Error, OSError) as error:
                    self._set_aside(error)
            return otherwise

    def close(self) -> None:
        """Close this process's connection; the next use opens a new one."""
        with self._lock:
            self._database.close()
            self._process = 0

    def throw_away(self) -> None:
        """Begin anew, for all processes; what they read or write meanwhile is void.

        Raises OSError.
        """
        with self._lock:
            self._database.close()
            self._process = 0
            if self._path is not None:
                with exclusive(self._path):
                    for suffix in ("-wal", "-shm", ""):
                        _sidecar(self._path, suffix).unlink(missing_ok=True)
            self._renew_stamp()

    def _renew_stamp(self) -> None:
        if self._database.stamp:
            self._database.stamp.renew()

    def _run(self, task: Callable[[sqlite3.Connection], T], write: bool, silent: bool) -> T:
        if self._process != os.getpid():
            self._open()
        with self._database.transaction(write=write, silent=silent) as connection:
            result = task(connection)
        if self._identity() == self._opened:
            return result
        # Set aside or deleted by another process: what was read or written there is void.
        raise sqlite3.OperationalError("replaced by another process")

    def _open(self) -> None:
        with exclusive(self._path):
            self._database.close()
            self._database.rows("SELECT 1")
            self._opened = self._identity()
        self._process = os.getpid()

    def _identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _set_aside(self, error: Exception) -> None:
        _log.warning("cache database %s failed: %s", self._path or "in memory", error)
        self._database.close()
        path = self._path
        if path is not None:
            try:
                with exclusive(self._path):
                    if self._process != os.getpid() or self._identity() == self._opened:
                        _sidecar(path, "-wal").unlink(missing_ok=True)
                        _sidecar(path, "-shm").unlink(missing_ok=True)
                        path.replace(_sidecar(path, ".corrupt"))
                self._renew_stamp()
            except OSError as failure:
                _log.warning("cache database %s cannot be set aside: %s", path, failure)
        self._process = 0


@contextmanager
def exclusive(path: Path | None) -> Iterator[None]:
    """No other process opens or sets aside what is at `path` meanwhile; its folder must exist."""
    if path is None:
        yield
        return
    with _sidecar(path, ".lock").open("ab") as lock:
        wait_for_lock(lock)
        yield


def _sidecar(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
