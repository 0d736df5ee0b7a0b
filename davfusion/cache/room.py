"""Room: keeps clean blocks and unsent writes together within the size of the cache, and the disk.

A write reserves its room by the length of its file in `tmp`, under a lock of all processes; so
writes that come at the same moment do not share what there is room for once, and what a crash
leaves reserved goes with the file.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final, NamedTuple

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.disposable import exclusive
from davfusion.cache.filestore import FileStore, own_name
from davfusion.cache.journal import Journal
from davfusion.cache.packs import Grow, all_packs, size_of
from davfusion.cache.too_large import TooLargeError
from davfusion.platform import given_by_disk
from davfusion.stores.store import StoreSpaceLimitError, TransientStoreError

STEP: Final = 1 << 20
"""Bytes for which room is made at a time, where the size of a write is not known."""
PATIENCE: Final = 20.0
"""Seconds that a writer waits while nothing is sent, before it is refused."""
SEATS: Final = 8
"""Writers that may wait in one process; there must be threads left for those who read."""
SPARE: Final = 4 << 20
"""Bytes of the disk that are left to the databases."""
_POLL: Final = 0.05
_RETRY_AFTER: Final = 5.0


class Room:
    """What may still be written to the spool; `limit` in bytes is for all that the cache keeps.

    `journal` None: writes go through, so nothing lies there that a mover will send.
    """

    def __init__(
        self,
        limit: int,
        journal: Journal | None,
        spool: FileStore,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limit = limit
        self.blocks: BlockCache | None = None
        self._journal = journal
        self._spool = spool
        self._clock = clock
        self._wait = wait
        self._seats = threading.BoundedSemaphore(SEATS)
        self._stuck_at: object = None

    def spooled(self) -> int:
        """Bytes of the spool: what is pending and what is being received."""
        return self._receiving().size + self._kept()

    def _kept(self) -> int:
        # A pack on its way here from `tmp` may be counted twice, but not missed.
        pending = self._journal.volume() if self._journal else 0
        return pending + sum(map(size_of, all_packs(self._spool)))

    def _standing(self) -> int:
        """Bytes of packs that stay though all in them has been sent: processes have them open."""
        needs = self._journal.needs_pack if self._journal else lambda _: False
        return sum(size_of(pack) for pack in all_packs(self._spool) if not needs(pack.name))

    def reserve_now(self, file: BinaryIO, size: int) -> bool:
        """As reserve, but False where the caller would have to wait."""
        if not self._grow(file, size):
            return False
        if self.blocks is not None:
            self.blocks.make_room(0)
        return True

    def require_now(self, file: BinaryIO, size: int) -> None:
        """As reserve_now, but StoreSpaceLimitError where the caller would have to wait."""
        if not self.reserve_now(file, size):
            raise _full()

    def reserve_within(self, file: BinaryIO, size: int) -> None:
        """As reserve, but StoreSpaceLimitError also for what can never fit."""
        try:
            self.reserve(file, size)
        except TooLargeError as error:
            raise _full() from error

    @contextmanager
    def ahead(self) -> Iterator[Grow]:
        """What reserves for many small files as reserve_within does, by STEP at a time if it can.

        A file of its own holds what is reserved for those to come. Of each file that has been
        asked for, the bytes must be there when the next one is.
        """
        name, used = own_name(), 0
        try:
            with self._spool.create(name, "xb") as held:

                def make_room(_file: BinaryIO, size: int) -> None:
                    nonlocal used
                    left = os.fstat(held.fileno()).st_size - used
                    os.ftruncate(held.fileno(), left)
                    used = 0
                    if left < size and not self.reserve_now(held, size + STEP):
                        self.reserve_within(held, size)
                    used = size

                yield make_room
        finally:
            self._spool.path(name, "tmp").unlink(missing_ok=True)

    def reserve(self, file: BinaryIO, size: int) -> None:
        """Let the file of a write, in `tmp`, grow to `size` bytes, once there is room for them.

        While others are sent and make room, the caller waits. Raises TooLargeError for a write
        that can never fit, and without a journal for one that does not fit now;
        StoreSpaceLimitError when nothing becomes free, TransientStoreError where enough others
        wait.
        """

        def has_room() -> bool:
            if size > self.limit - self._standing():  # also once what it waits for has been sent
                raise TooLargeError("larger than the cache")
            return self._grow(file, size)

        if not has_room():
            if self._journal is None:
                raise TooLargeError("larger than what the cache has left")
            self._wait_until(has_room, self._journal)
        if self.blocks is not None:
            self.blocks.make_room(0)

    def _grow(self, file: BinaryIO, size: int) -> bool:
        folder = self._spool.path("any", "tmp").parent
        with exclusive(folder):
            more = size - os.fstat(file.fileno()).st_size
            receiving = self._receiving()
            if self._kept() + receiving.size + more > self.limit:
                return False
            if not self._disk_has(more + receiving.promised):
                return False
            os.ftruncate(file.fileno(), size)
        return True

    def _disk_has(self, size: int) -> bool:
        """Whether the disk has so many bytes, be it at the expense of blocks."""
        folder = self._spool.path("any", "tmp").parent
        lack = size + SPARE - shutil.disk_usage(folder).free
        if lack > 0 and self.blocks is not None:
            self.blocks.make_room(self.blocks.make_room(0) + lack)
            lack = size + SPARE - shutil.disk_usage(folder).free
        return lack <= 0

    def _wait_until(self, has_room: Callable[[], bool], journal: Journal) -> None:
        sent = journal.progress()
        if sent == self._stuck_at:
            raise _full()  # another writer has waited for nothing
        if not self._seats.acquire(blocking=False):
            raise TransientStoreError("too many writes wait for room", retry_after=_RETRY_AFTER)
        try:
            since = self._clock()
            while not has_room():
                if self._clock() - since > PATIENCE:
                    self._stuck_at = sent
                    raise _full()
                self._wait(_POLL)
                if (now := journal.progress()) != sent:
                    sent, since = now, self._clock()
        finally:
            self._seats.release()

    def _receiving(self) -> "_Receiving":
        size = promised = 0
        for path in self._spool.list("tmp"):
            with suppress(FileNotFoundError):
                status = os.stat(path)  # noqa: PTH116 - the list is of names
                size += status.st_size
                promised += max(0, status.st_size - given_by_disk(status))
        return _Receiving(size, promised)


class _Receiving(NamedTuple):
    """Bytes of the files in `tmp`; `promised` have not been given by the disk yet."""

    size: int
    promised: int


def _full() -> StoreSpaceLimitError:
    return StoreSpaceLimitError("the cache is full of what has not been sent yet")


class Meter:
    """Told the bytes that one write is about to add to its file, it has room made for them.

    `expected` is how many will come in all, None where nobody knows.
    """

    def __init__(self, room: Room, expected: int | None) -> None:
        self._room = room
        self._expected = expected
        self._received = 0
        self._granted = -1

    def __call__(self, file: BinaryIO, size: int) -> None:
        """As Room.reserve."""
        self._received += size
        if self._received > self._granted:
            self._granted = self._wish()
            self._room.reserve(file, self._granted)

    def _wish(self) -> int:
        if self._expected is not None and self._received <= self._expected:
            return self._expected
        return max(self._received, min(self._received + STEP, self._room.limit))
