"""Clean content on the local disk: blocks of files, the least recently used of which go first.

It holds no content that the store does not have, so any failure of it is a miss.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from davfusion.cache.block_check import Checked, check_blocks, find_orphans
from davfusion.cache.block_folder import CLAIM, BlockFolder, Views, checksum
from davfusion.platform import is_running

T = TypeVar("T")
_SPARE: Final = 8 * 1024 * 1024
"""Bytes of the disk that are left to those who write."""
_AT_ONCE: Final = 8 * 1024 * 1024
"""Bytes that are evicted at most before others get their turn."""
_MARK_SECONDS: Final = 60.0
_MARKS: Final = 10_000
_COUNT_SECONDS: Final = 5.0


class BlockCache:
    """Blocks by (file version, name), each with a checksum; shared by all workers of a folder.

    `size_limit` is in bytes, of the blocks, their index and what is spooled together; `spooled`
    tells the last of these. Writers of the spool call make_room(). Beyond it go 1 MiB for the
    names of blocks, and the one block that each process is writing.
    """

    def __init__(
        self,
        folder: Path,
        size_limit: int,
        clock: Callable[[], float] = time.monotonic,
        spooled: Callable[[], int] = lambda: 0,
    ) -> None:
        self._folder = BlockFolder(folder, clock)
        self._size_limit = size_limit
        self._clock = clock
        self._spooled = spooled
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._marked: OrderedDict[str, float] = OrderedDict()
        self._used: list[str] = []
        self._uncounted = {"hits": 0, "misses": 0}
        self._counted = clock()

    def get(self, key: str) -> bytes | None:
        """The block, None where it is not there or not as it was stored."""
        data = self._folder.run(lambda views: views.read(key))
        self._count("misses" if data is None else "hits")
        if data is not None:
            self._note_use(key)
        return data

    def has(self, key: str) -> bool:
        """Whether the block is there; does not count as a use."""
        return bool(self._folder.run(lambda views: key in views.plain))

    def has_room_for(self, size: int) -> bool:
        """Whether so many bytes leave most of the cache to what else is used."""
        return size <= self._size_limit // 4

    def put(self, key: str, data: bytes) -> None:
        """As put_all."""
        self.put_all([(key, data)])

    def put_all(self, blocks: list[tuple[str, bytes]]) -> None:
        """Keep blocks by key, at the expense of those that were not used for longest.

        They are of one segment at most, and are not kept where the limit leaves no room for them.
        """
        size = sum(len(data) for _, data in blocks)
        checked = [(key, data, checksum(key, data)) for key, data in blocks]
        goal = self._share() - size

        def keep(views: Views) -> None:
            if views.volume() > goal:
                self._evict(views, goal)
                if views.volume() > goal:
                    return
            for block in checked:
                views.write(*block)

        if self.has_room_for(size) and self._folder.disk_has(size + _SPARE):
            self._write(keep)

    def make_room(self, size: int) -> int:
        """Evict blocks until the limit leaves `size` bytes; returns the bytes that it leaves then.

        That is less than `size`, and may be less than 0, where the spool fills the cache; then
        the blocks within the limit stay.
        """
        while True:
            share = self._share()
            goal = share - size if size <= share else share
            volume = self.volume()
            if volume <= goal or not self._write(partial(self._evict, goal=goal)):
                return share - volume

    def claim(self, key: str, seconds: float) -> bool:
        """Whether the caller is to fetch a block, as the only one for that many seconds.

        The claim of a process that was killed counts no longer.
        """
        return self._write(lambda views: _claim(views, key, seconds)) is not False

    def claim_missing(self, keys: list[str], seconds: float) -> int:
        """Claim the blocks, up to the first that is there or claimed; returns how many."""

        def claim(views: Views) -> int:
            with views.plain.transact():
                for number, key in enumerate(keys):
                    if key in views.plain or not _claim(views, key, seconds):
                        return number
            return len(keys)

        claimed = self._write(claim)
        return len(keys) if claimed is None else claimed

    def release(self, keys: list[str]) -> None:
        """End claims."""

        def release(views: Views) -> None:
            with views.plain.transact():
                for key in keys:
                    views.plain.delete(key + CLAIM)

        if keys:
            self._write(release)

    def volume(self) -> int:
        """Bytes on the disk, without the spool's."""
        return self._folder.run(Views.volume) or 0

    def clear(self) -> None:
        """Remove all blocks; who reads them meanwhile misses them."""
        self._folder.run(lambda _: None)
        self._folder.throw_away()

    def sweep(self) -> None:
        """Remove files that a killed process has left, which count for nothing in the limit."""
        find_orphans(self._folder, repair=True)

    def check(self, *, repair: bool = False) -> Checked:
        """Read every block and look for files of none; `repair` removes what is no good."""
        return check_blocks(self._folder, repair=repair)

    def statistics(self) -> tuple[int, int]:
        """Hits and misses of all processes since the folder is there.

        Those of the last seconds of other processes are missing.
        """
        self._add_up()
        return self._folder.run(_statistics) or (0, 0)

    def close(self) -> None:
        """Close this process's files."""
        self._add_up()
        self._folder.close()

    def _write(self, action: Callable[[Views], T]) -> T | None:
        """One thread at a time: SQLite makes the others sleep far longer than a write takes."""
        with self._writing:
            return self._folder.run(action)

    def _share(self) -> int:
        """Bytes that the spool leaves to blocks; below 0 where it is over the limit by itself."""
        return self._size_limit - self._spooled()

    def _evict(self, views: Views, goal: int) -> int:
        views.mark(self._take_uses())
        return views.evict(goal, _AT_ONCE)

    def _count(self, name: str) -> None:
        with self._lock:
            self._uncounted[name] += 1
            is_due = self._clock() - self._counted >= _COUNT_SECONDS
        if is_due:
            self._add_up()

    def _add_up(self) -> None:
        """Write down what was counted and used; with each read that would cost too much."""
        with self._lock:
            counts, self._uncounted = self._uncounted, dict.fromkeys(self._uncounted, 0)
            self._counted = self._clock()
        uses = self._take_uses()

        def add(views: Views) -> None:
            with views.plain.transact():
                for name, count in counts.items():
                    views.plain.reset(name, views.plain.reset(name) + count)
            views.mark(uses)

        if any(counts.values()):
            self._write(add)

    def _note_use(self, key: str) -> None:
        """Have it written down, if the last time is long enough ago."""
        now = self._clock()
        with self._lock:
            if now - self._marked.get(key, now - _MARK_SECONDS) < _MARK_SECONDS:
                return
            self._marked[key] = now
            self._marked.move_to_end(key)
            self._used.append(key)
            if len(self._marked) > _MARKS:
                self._marked.popitem(last=False)

    def _take_uses(self) -> list[str]:
        with self._lock:
            uses, self._used = self._used, []
        return uses


def _claim(views: Views, key: str, seconds: float) -> bool:
    if views.plain.add(key + CLAIM, os.getpid(), seconds):
        return True
    owner = views.plain.get(key + CLAIM)
    if not isinstance(owner, int) or is_running(owner):
        return False
    views.plain.delete(key + CLAIM)
    return bool(views.plain.add(key + CLAIM, os.getpid(), seconds))


def _statistics(views: Views) -> tuple[int, int]:
    return int(views.plain.reset("hits")), int(views.plain.reset("misses"))
