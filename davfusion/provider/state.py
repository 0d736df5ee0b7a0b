"""state.sqlite: what DAV clients leave on the server beside the files themselves.

It survives restarts and a cleared cache, and is one file for all workers.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from pathlib import Path

from davfusion.cache.disposable import exclusive
from davfusion.database import BUSY_SECONDS, Database, Sparse
from davfusion.provider import locks, properties
from davfusion.provider.sync_log import SyncLog

_log = logging.getLogger(__name__)
_FILES = ("", "-wal", "-shm")
"""What SQLite adds to the name of a database for the files that belong to it."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class State:
    """Locks, dead properties, and beside them what can be lost; `path=None`: all in memory.

    A file that SQLite cannot use is moved aside as `NAME.damaged-TIME`, and an empty one begun:
    clients can lock again, but nobody else has the properties, so it is kept for its owner.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        log_path, sums_path = (
            path.with_name(name) if path is not None else None
            for name in ("sync.sqlite", "checksums.sqlite")
        )
        for file in filter(None, (path, log_path, sums_path)):
            if file.exists():
                _set_aside_if_damaged(file, clock())
        database = Database(path, locks.SCHEMA + properties.SCHEMA, durable=True)
        self.folder = path.parent if path is not None else None
        """Where its stamp is, if it has one."""
        self.stamp = database.stamp
        sparse = Sparse(database, ("lock", "property"))
        self.locks = locks.LockTable(sparse, clock)
        self.properties = properties.DeadProperties(sparse)
        self.sync = SyncLog(log_path)
        sums = Database(sums_path, properties.SCHEMA, durable=False)
        self.checksums = properties.DeadProperties(Sparse(sums, ("property",)))
        """ETag -> checksums of that version, separated by spaces: what a client sent, and MD5."""
        self._tables = (self.properties, self.checksums)
        self._open = (database, self.sync, sums)
        for each in (database, sums):  # while the disk has room for what SQLite keeps beside them
            with suppress(sqlite3.OperationalError):
                each.rows("SELECT 1")

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        for database in self._open:
            database.close()

    def note_checksum(self, path: str, etag: str, checksum: str) -> None:
        """The version `etag` has that checksum; those of earlier versions are forgotten.

        Of a version that nothing tells from the next (""), none is noted.
        """
        noted = {etag: checksum} if etag else {}
        self.checksums.change(path, noted, self.checksums.of(path).keys() - {etag})

    def copied(
        self,
        src: str,
        dst: str,
        target: "State",
        *,
        tree: bool = True,
        failed: Collection[str] = (),
    ) -> None:
        """As DeadProperties.copy, of all that goes along to the `dst` of `target`."""
        for table, theirs in zip(self._tables, target._tables, strict=True):
            if theirs is table:
                table.copy(src, dst, tree=tree, failed=failed)
            else:
                table.copy_to(theirs, src, dst, tree=tree, failed=failed)

    def moved(self, src: str, dst: str, target: "State") -> None:
        """As copied, and `src` has none any more; nor locks, which stay behind (RFC 4918, 7.6)."""
        self.locks.remove_tree(src)
        if target is not self:
            self.copied(src, dst, target)
        for table in self._tables:
            if target is self:
                table.move_tree(src, dst)
            else:
                table.remove_tree(src)

    def forget(self, path: str) -> None:
        """`path` and all below it are gone."""
        self.locks.remove_tree(path)
        self.properties.remove_tree(path)
        self.checksums.remove_tree(path)


def _set_aside_if_damaged(path: Path, now: float) -> None:
    with exclusive(path):
        damage = _damage(path)
        if damage is None:
            return
        aside = path.with_name(f"{path.name}.damaged-{int(now)}")
        for suffix in reversed(_FILES):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    _log.error("what DAV clients left in %s is lost: %s; it is kept as %s", path, damage, aside)


def _damage(path: Path) -> str | None:
    """What makes the file useless, None if nothing does."""
    if not path.exists():
        return None  # another worker has just set it aside
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            [(found,), *_] = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
            raise
        return str(error)
    return None if found == "ok" else str(found)
