"""Clean content on the local disk: blocks of files, the least recently used of which go first.

It holds no content that the store does not have, so any failure of it is a miss.
"""

import logging
import os
import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import diskcache

logger = logging.getLogger(__name__)

T = TypeVar("T")
_RAW, _BINARY = 1, 2
"""diskcache's ways to store a value."""
_CULL: Final = 16
"""Blocks that a write evicts at most; enough for the pieces that make room for a segment."""
_MARK_SECONDS: Final = 60.0
_MARKS: Final = 10_000
_FAILURES: Final = (OSError, sqlite3.Error, diskcache.Timeout)


class PlainDisk(diskcache.Disk):  # type: ignore[misc]
    """Keeps bytes and numbers as they are.

    It refuses what diskcache would pickle: unpickling a file that others wrote runs their code.
    And it writes a block in one go, where diskcache writes it line by line.
    """

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, str | None, Any]:
        if not isinstance(value, bytes | int) or read:
            raise TypeError(f"neither bytes nor a number: {type(value)}")
        if isinstance(value, bytes) and len(value) >= self.min_file_size:
            filename, path = self.filename(key, value)
            self._write(path, (value,), "xb")
            return len(value), _BINARY, filename, None
        stored: tuple[int, int, str | None, Any] = super().store(value, read, key)
        return stored

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode not in (_RAW, _BINARY):
            raise OSError(f"a block of mode {mode} is none of ours")
        return super().fetch(mode, filename, value, read)


@dataclass(frozen=True)
class Views:
    """Two ways to one folder: to note a use is a write, and costs many times what a read does."""

    plain: diskcache.Cache
    marking: diskcache.Cache


class BlockCache:
    """Blocks by (file version, name), each with a checksum; shared by all workers of a folder.

    `size_limit` is in bytes, of the blocks and their index together.
    """

    def __init__(
        self, folder: Path, size_limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._size_limit = size_limit
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._clock = clock
        self._views: Views | None = None
        self._marked: OrderedDict[str, float] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, key: str) -> bytes | None:
        """The block, None where it is not there or not as it was stored."""
        if self._is_to_be_marked(key):
            answer = self._write(lambda views: views.marking.get(key, tag=True))
        else:
            answer = self._attempt(lambda views: views.plain.get(key, tag=True))
        found, check = answer or (None, None)
        data = found if isinstance(found, bytes) and zlib.crc32(found) == check else None
        if data is None:
            self.misses += 1
        else:
            self.hits += 1
        return data

    def has(self, key: str) -> bool:
        """Whether the block is there; does not count as a use."""
        return bool(self._attempt(lambda views: key in views.plain))

    def has_room_for(self, size: int) -> bool:
        """Whether so many bytes leave most of the cache to what else is used."""
        return size <= self._size_limit // 4

    def put(self, key: str, data: bytes) -> None:
        """Keep a block, at the expense of those that were not used for longest."""
        if self.has_room_for(len(data)):
            check = zlib.crc32(data)
            self._write(lambda views: views.marking.set(key, data, tag=check))

    def claim(self, key: str, seconds: float) -> bool:
        """Whether the caller is to fetch a block, as the only one for that many seconds."""
        claimed = self._attempt(
            lambda views: views.plain.add(key + "\0claim", os.getpid(), seconds)
        )
        return claimed is not False

    def release(self, key: str) -> None:
        """End a claim."""
        self._write(lambda views: views.plain.delete(key + "\0claim"))

    def volume(self) -> int:
        """Bytes on the disk."""
        return self._attempt(lambda views: int(views.plain.volume())) or 0

    def close(self) -> None:
        """Close this process's files."""
        with self._lock:
            if self._views is not None:
                self._views.plain.close()
                self._views.marking.close()
            self._views = None

    def _write(self, action: Callable[["Views"], T]) -> T | None:
        """One thread at a time: SQLite makes the others sleep far longer than a write takes."""
        with self._writing:
            return self._attempt(action)

    def _attempt(self, action: Callable[["Views"], T]) -> T | None:
        try:
            return action(self._open())
        except _FAILURES as error:
            logger.warning("the block cache %s failed: %s", self._folder, error)
            return None

    def _open(self) -> "Views":
        with self._lock:
            if self._views is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                plain, marking = self._connect("none"), self._connect("least-recently-used")
                self._views = Views(plain, marking)
            return self._views

    def _connect(self, eviction_policy: str) -> diskcache.Cache:
        return diskcache.Cache(
            str(self._folder),
            timeout=5,
            disk=PlainDisk,
            size_limit=self._size_limit,
            eviction_policy=eviction_policy,
            cull_limit=_CULL,
            sqlite_synchronous=0,
        )

    def _is_to_be_marked(self, key: str) -> bool:
        """Whether the last use that was noted is long enough ago."""
        now = self._clock()
        with self._lock:
            if now - self._marked.get(key, now - _MARK_SECONDS) < _MARK_SECONDS:
                return False
            self._marked[key] = now
            self._marked.move_to_end(key)
            if len(self._marked) > _MARKS:
                self._marked.popitem(last=False)
        return True
