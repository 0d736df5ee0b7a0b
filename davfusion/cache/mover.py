"""The mover: sends what is pending to the store, many rows at a time, for as long as it runs."""

import itertools
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from davfusion.cache import packs, schedule
from davfusion.cache.block_caching_store import BlockCachingStore
from davfusion.cache.folder import CacheFolder
from davfusion.cache.holds import Holds, overlaps_any
from davfusion.cache.journal import Journal
from davfusion.cache.outbox import Outbox
from davfusion.cache.pending import DELETIONS, LARGE, SMALL, Row
from davfusion.cache.reserve import Reserve
from davfusion.cache.sender import Sender, Sending
from davfusion.cache.spool import disk_space, left_behind
from davfusion.cache.unpacking import AFTER, unpack
from davfusion.platform import lock_file
from davfusion.stores.errors import UnreachableError
from davfusion.stores.store import (
    InterruptEvent,
    StoreAccessError,
    StoreSpaceLimitError,
    TransientStoreError,
)

logger = logging.getLogger(__name__)

CONNECTIONS: Final = 16
"""Rows that are sent at a time."""
LARGE_AT_ONCE: Final = 2
BATCH: Final = 1000
"""Files deleted by one call."""
ROOM: Final = {SMALL: 2 * CONNECTIONS, LARGE: LARGE_AT_ONCE, DELETIONS: BATCH}
"""Rows that are taken at a time, some of which wait for a thread."""
_POLL: Final = 0.05
_GATHER: Final = 0.01
"""Seconds in which further rows end, to be noted, and replaced by others, in one transaction."""
_WATCH: Final = 0.5
_IN_DOUBT: Final = 5.0
"""Seconds in which the store may still carry out what it was asked by a process that has ended."""
_REAPED: Final = 0.3
"""Seconds in which the number of a process that has ended may still pass for a running one's."""
_LONGEST_PAUSE: Final = 8.0


class Mover:
    """Sends the rows of `journal` by `store`; one at a time works in a folder.

    While the store does not answer, one row at a time is tried, with growing pauses.
    """

    def __init__(self, store: BlockCachingStore, folder: CacheFolder, journal: Journal) -> None:
        self._store = store
        self._folder = folder
        self._journal = journal
        self._outbox = Outbox(journal, folder.spool, self._unsettled)
        self._holds = Holds(journal, folder.path / "owners")
        self._service = store.service
        self._sender = Sender(store, self._service, self._outbox, folder.spool, self._reached)
        self._failures = 0
        self._pause_until = 0.0
        self._unpacked = time.monotonic()
        self._lock = threading.Lock()
        self._has_ended = threading.Event()
        """Set when the sending of a row has ended."""
        self._under_way: dict[Future[None], list[Sending]] = {}
        self._probe: Future[None] | None = None
        """What was started last; while the store does not answer, nothing else is beside it."""
        self._abandoning: Future[None] | None = None
        """What has the store forget, or put right, what was broken off."""
        self._doubted: dict[tuple[str, ...], float] = {}
        """What is asked for anew at each look, and since when, of time.monotonic()."""
        self._reserve = Reserve(folder.path)
        self._unnoted: list[Row] | None = None
        """Rows whose sending has ended and could not be noted; None: no row of before has been."""

    def run(self, stop: InterruptEvent, until: Callable[[], bool] = lambda: False) -> None:
        """Send until `stop` is set, or `until` says so; first wait until no other mover runs."""
        with (self._folder.path / "mover.lock").open("ab") as lock:
            while not lock_file(lock):
                if stop.is_set():
                    return
                time.sleep(_POLL)
            with (
                ThreadPoolExecutor(CONNECTIONS, "send") as small,
                ThreadPoolExecutor(LARGE_AT_ONCE, "send-large") as large,
            ):
                if self._store.blocks is not None:
                    small.submit(self._store.blocks.sweep)
                try:
                    self._loop(small, large, stop, until)
                finally:
                    self._pause_all()
            with disk_space():
                self._outbox.note_done()

    def close(self) -> None:
        """Close this process's files; not while it runs."""
        self._journal.close()
        self._store.close()

    def step(self, room: Mapping[str, int] = ROOM) -> int:
        """Send what is due now, in this thread; how many rows that were."""
        self._abandon()
        rows = self._outbox.take(room)
        for together in _jobs(rows):
            self._sender.send([Sending(row, self._outbox) for row in together])
        self._outbox.note_done()
        self._sweep()
        return len(rows)

    def _sweep(self) -> None:
        """Give free the packs of which little or nothing is needed, and what was being received."""
        self._outbox.remove_unnamed(left_behind(self._folder.spool))
        packs.sweep(self._folder.spool, self._journal.needs_pack)
        if time.monotonic() >= self._unpacked + AFTER:
            unpack(self._journal, self._folder.spool)
            self._unpacked = time.monotonic()

    def _loop(
        self,
        small: ThreadPoolExecutor,
        large: ThreadPoolExecutor,
        stop: InterruptEvent,
        until: Callable[[], bool],
    ) -> None:
        watched = 0.0
        while not (stop.is_set() or until()):
            try:
                with disk_space():
                    self._collect()
                    self._holds.remove_void(self._is_left)
                    if time.monotonic() >= watched:
                        watched = time.monotonic() + _WATCH
                        self._watch(small)
                    self._start_due(small, large)
            except StoreSpaceLimitError as error:
                logger.warning("nothing can be noted: %s", error)
                self._reserve.give()
                time.sleep(_WATCH)
                continue
            self._has_ended.wait(_POLL)
            self._has_ended.clear()
            time.sleep(_GATHER)

    def _start_due(self, small: ThreadPoolExecutor, large: ThreadPoolExecutor) -> None:
        for together in _jobs(self._outbox.take(self._room())):
            sendings = [Sending(row, self._outbox) for row in together]
            pool = large if schedule.lane(together[0]) == LARGE else small
            self._probe = pool.submit(self._sender.send, sendings)
            self._under_way[self._probe] = sendings
            self._probe.add_done_callback(lambda _: self._has_ended.set())

    def _unsettled(self) -> list[str]:
        return [*self._folder.unsettled.paths(), *self._folder.asides.unsettled()]

    def _room(self) -> dict[str, int]:
        """How many rows of each lane may be started now."""
        with self._lock:
            if self._failures:
                is_probed = self._probe is not None and not self._probe.done()
                may_probe = not is_probed and time.monotonic() >= self._pause_until
                return dict.fromkeys(ROOM, int(may_probe))
        busy = Counter(schedule.lane(sendings[0].row) for sendings in self._under_way.values())
        left = {lane: max(0, most - busy[lane]) for lane, most in ROOM.items()}
        return left | {DELETIONS: 0 if busy[DELETIONS] else BATCH}

    def _reached(self, answered: bool) -> None:
        with self._lock:
            was_away, self._failures = self._failures, 0 if answered else self._failures + 1
            pause = min(_LONGEST_PAUSE, 0.25 * 2 ** min(self._failures, 16))
            self._pause_until = time.monotonic() + pause
        if was_away and answered:
            self._outbox.hurry_postponed()
            self._folder.note_away(None)

    def _collect(self) -> None:
        """What could not be noted, for want of disk space, counts as broken off."""
        if self._unnoted is None:
            self._outbox.begin()
        elif self._unnoted:
            self._outbox.released(self._unnoted)
        self._unnoted = []
        ended = [future for future in self._under_way if future.done()]
        self._outbox.note_done()
        for future in ended:
            sendings = self._under_way.pop(future)
            try:
                future.result()
            except sqlite3.Error:
                self._unnoted += [sending.row for sending in sendings]
                raise

    def _watch(self, pool: ThreadPoolExecutor) -> None:
        """Break off what is not wanted any more, and have the store forget what was broken off."""
        self._reserve.keep()
        self._doubt_again()
        self._sweep()
        for sending in itertools.chain.from_iterable(self._under_way.values()):
            if schedule.lane(sending.row) != DELETIONS and self._outbox.is_in_the_way(sending.row):
                sending.stop()
        if not self._failures or time.monotonic() >= self._pause_until:
            self._start_abandoning(pool)

    def _is_left(self, touched: list[str]) -> bool:
        """Whether there may be something to put right that a process was changing when it ended."""
        changing, now = tuple(touched), time.monotonic()
        if changing not in self._doubted:
            self._doubted[changing] = now
            self._folder.doubt(touched)
        is_reaped = now >= self._doubted[changing] + _REAPED
        if not is_reaped or overlaps_any(changing, self._folder.asides.unsettled()):
            return True
        self._folder.doubt(touched)
        return False

    def _doubt_again(self) -> None:
        now = time.monotonic()
        young = {left: seen for left, seen in self._doubted.items() if now < seen + _IN_DOUBT}
        self._doubted = young
        for touched in self._doubted:
            self._folder.doubt(touched)

    def _start_abandoning(self, pool: ThreadPoolExecutor) -> None:
        """Beside what is sent, which it must not hold up."""
        if self._abandoning is not None:
            if not self._abandoning.done():
                return
            self._abandoning.result()
        self._abandoning = pool.submit(self._abandon)

    def _abandon(self) -> None:
        self._folder.asides.abandon_unfinished(self._service)
        for upload in self._outbox.abandoned():
            try:
                self._service.abandon(upload.path, upload.token, upload.since)
            except UnreachableError:
                return
            except TransientStoreError as error:
                logger.info("an upload of %s is still to be removed: %s", upload.path, error)
                continue
            except StoreAccessError as error:
                logger.warning("an upload of %s cannot be removed: %s", upload.path, error)
            self._outbox.forgotten(upload)

    def _pause_all(self) -> None:
        for sending in itertools.chain.from_iterable(self._under_way.values()):
            sending.pause()


def _jobs(rows: list[Row]) -> list[list[Row]]:
    """The rows by what is sent together: deletions of files, and each other row by itself."""
    deletions = [row for row in rows if schedule.lane(row) == DELETIONS]
    single = [[row] for row in rows if schedule.lane(row) != DELETIONS]
    return [*single, deletions] if deletions else single


class MoverThread:
    """A mover in a thread of this process."""

    def __init__(self, mover: Mover) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=mover.run, args=(self._stop,), name="mover", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Break off what is being sent; it goes on with the next start."""
        self._stop.set()
        self._thread.join()
