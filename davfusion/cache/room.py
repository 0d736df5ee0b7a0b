"""Room: keeps clean blocks and unsent writes together within the size of the cache."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.filestore import FileStore
from davfusion.cache.journal import Journal
from davfusion.cache.spool import TooLargeError
from davfusion.stores.store import StoreSpaceLimitError

STEP: Final = 1 << 20
"""Bytes of a write for which room is made at a time."""
PATIENCE: Final = 8.0
"""Seconds that a writer waits while nothing is sent, before it is refused."""
_POLL: Final = 0.05


class Room:
    """What may still be written to the spool; `limit` in bytes is for all that the cache keeps."""

    def __init__(
        self,
        limit: int,
        journal: Journal,
        spool: FileStore,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit = limit
        self._journal = journal
        self._spool = spool
        self._clock = clock
        self._wait = wait
        self.blocks: BlockCache | None = None

    def spooled(self) -> int:
        """Bytes of the spool: what is pending and what is being received."""
        return self._journal.bytes_pending() + self._receiving()

    def require(self, size: int, received: int = 0) -> None:
        """Return when so many bytes can be written, by a write of which `received` are there.

        While others are sent and make room, the caller waits. Raises TooLargeError for a write
        that can never fit, StoreSpaceLimitError when nothing becomes free.
        """
        if received + size > self._limit:
            raise TooLargeError("larger than the cache")
        spooled = self.spooled()
        least, since = spooled, self._clock()
        while spooled + size > self._limit:
            if self._clock() - since > PATIENCE:
                raise StoreSpaceLimitError("the cache is full of what has not been sent yet")
            self._wait(_POLL)
            spooled = self.spooled()
            if spooled < least:
                least, since = spooled, self._clock()
        if self.blocks is not None:
            self.blocks.make_room(size)

    def _receiving(self) -> int:
        total = 0
        for path in self._spool.list("tmp"):
            with suppress(FileNotFoundError):
                total += os.stat(path).st_size  # noqa: PTH116 - the list is of names
        return total


class Meter:
    """Told the bytes that one write is about to add, it has room made for them in steps."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.received = 0
        self._granted = 0

    def __call__(self, size: int) -> None:
        """As Room.require."""
        if self.received + size > self._granted:
            self._room.require(size, self.received)
            self._granted = self.received + max(size, STEP)
        self.received += size
