"""The folder of blocks: opened by all workers, and thrown away by any of them when it is damaged.

diskcache keeps an index in SQLite, `cache.db`, and files beside it. An index that SQLite cannot
use is worth nothing, and neither are files that no index names: the folder goes as a whole, and
the next use, in whichever process, begins a new one.

Lock order: this object's lock, the lock file.
"""

import io
import logging
import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import diskcache
import xxhash

from davfusion.cache.disposable import exclusive
from davfusion.cache.plain_disk import PlainDisk

T = TypeVar("T")

INDEX: Final = "cache.db"
CLAIM: Final = "\0claim"
"""What the key of a claim ends with; it is a number, and no block."""
_log = logging.getLogger(__name__)
_WAL_PAGES: Final = 256
_QUIET_SECONDS: Final = 60.0
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAILURES: Final = (OSError, sqlite3.Error, diskcache.Timeout, TypeError, ValueError)
"""The last two come of rows that hold what diskcache has not put there."""


@dataclass(frozen=True)
class Views:
    """Two ways to one folder: to note a use is a write, and costs many times what a read does."""

    path: Path
    plain: diskcache.Cache
    marking: diskcache.Cache

    def volume(self) -> int:
        """Bytes on the disk: of the blocks, of the index and of its log."""
        return int(self.plain.volume()) + self._log_size()

    def read(self, key: str) -> bytes | None:
        """A block, None where it is not there or not as it was stored."""
        found, check = self.plain.get(key, tag=True)
        return found if isinstance(found, bytes) and check == checksum(key, found) else None

    def mark(self, keys: list[str]) -> None:
        """Note that blocks have just been used, which is a write; their order is kept."""
        with self.marking.transact():
            for key in keys:
                found = self.marking.get(key, read=True)
                if isinstance(found, io.IOBase):  # a small block lies in the index
                    found.close()

    def write(self, key: str, data: bytes, check: int) -> None:
        """Keep a block with its checksum(); when that fails, nothing of it is left.

        One thread at a time.
        """
        try:
            self.marking.set(key, data, tag=check)
        except BaseException:
            self.marking.disk.unstore()
            raise

    def evict(self, limit: int, at_once: int) -> int:
        """Remove the least recently used blocks until volume() is `limit`, or less by `at_once`.

        Returns how many went. One thread at a time.
        """
        size = int(self.plain.volume())
        self.marking.size_limit = max(limit - self._log_size(), size - at_once)
        return int(self.marking.cull())

    def _log_size(self) -> int:
        try:
            return (self.path / (INDEX + "-wal")).stat().st_size
        except FileNotFoundError:
            return 0


class BlockFolder:
    """Runs what is to be done with the blocks; whatever fails is None, and does not fail for ever.

    The warnings are one a minute: a full disk would make one for each block.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._views: Views | None = None
        self._opened: tuple[int, int] | None = None
        self._warned: float | None = None

    def disk_has(self, size: int) -> bool:
        """Whether the disk has so many bytes to spare."""
        with suppress(OSError):
            return shutil.disk_usage(self.path.parent).free >= size
        return True

    def run(self, action: Callable[[Views], T]) -> T | None:
        """What `action` returns; None if it fails."""
        try:
            return action(self._open())
        except _FAILURES as error:
            self._report(error)
            if _is_damage(error):
                self.throw_away()
            return None

    def throw_away(self) -> None:
        """Begin anew, for all processes; what they read meanwhile is a miss."""
        with self._lock:
            self._close()
            try:
                with exclusive(self.path):
                    if self._identity() == self._opened:
                        self._move_away()
            except OSError as error:
                self._report(error)
        self._remove_what_was_moved()

    def close(self) -> None:
        """Close this thread's files; the next use opens them again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._views is not None:
            self._views.plain.close()
            self._views.marking.close()
        self._views = None

    def _open(self) -> Views:
        with self._lock:
            views = self._views
            if views is not None and self._identity() == self._opened:
                return views
            self._close()
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with exclusive(self.path):
                views = self._views = self._connect()
        self._remove_what_was_moved()
        return views

    def _connect(self) -> Views:
        if not self._has_index() and self.path.is_dir() and any(self.path.glob("*/")):
            self._move_away()  # the index of these blocks is lost
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._opened = self._identity()
        views = Views(self.path, self._cache("none"), self._cache("least-recently-used"))
        self._opened = self._identity()
        return views

    def _cache(self, eviction_policy: str) -> diskcache.Cache:
        return diskcache.Cache(
            str(self.path),
            timeout=5,
            disk=PlainDisk,
            eviction_policy=eviction_policy,
            cull_limit=0,  # evict() does it, before a block is written
            sqlite_synchronous=0,
            sqlite_mmap_size=0,  # a file that gets shorter kills who has it in memory
            sqlite_wal_autocheckpoint=_WAL_PAGES,
            sqlite_journal_size_limit=_WAL_PAGES * 4096,
        )

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path / INDEX)  # noqa: PTH116 - on the way of each block
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _has_index(self) -> bool:
        index = self.path / INDEX
        return index.exists() and index.stat().st_size > 0

    def _move_away(self) -> None:
        self.path.replace(self.path.with_name(f"{self.path.name}.removed-{uuid.uuid4().hex[:8]}"))

    def _remove_what_was_moved(self) -> None:
        """Also by those that were killed at it."""
        for moved in self.path.parent.glob(f"{self.path.name}.removed-*"):
            shutil.rmtree(moved, ignore_errors=True)

    def _report(self, error: Exception) -> None:
        now = self._clock()
        is_quiet = self._warned is not None and now - self._warned < _QUIET_SECONDS
        if not is_quiet:
            self._warned = now
        level = logging.DEBUG if is_quiet else logging.WARNING
        _log.log(level, "the block cache %s failed: %s", self.path, error)


def checksum(key: str, data: bytes) -> int:
    """Of both, since a damaged index may name another block's file; 63 bits, as SQLite has them."""
    seed = xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass"))
    return xxhash.xxh3_64_intdigest(data, seed) >> 1


def _is_damage(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return code in _DAMAGE or "no such table" in str(error)
    return isinstance(error, TypeError | ValueError)
