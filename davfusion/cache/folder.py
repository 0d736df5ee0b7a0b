"""CacheFolder: what one share's cache keeps on the local disk, and who owns it."""

import hashlib
import os
import re
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from platformdirs import user_cache_path

from davfusion.cache import recovery
from davfusion.cache.asides import NotedAsides
from davfusion.cache.claims import Claims
from davfusion.cache.filestore import FileStore
from davfusion.cache.journal import Journal
from davfusion.cache.listings import ListingTable
from davfusion.cache.reserve import Reserve, is_low
from davfusion.platform import fsync_directory, is_locked, lock_file
from davfusion.stores.paths import is_valid_name
from davfusion.stores.unsettled import Unsettled

_LOCK: Final = "lock"
_CLAIMS: Final = "claims.sqlite"
_AWAY: Final = "away"
_PROBED: Final = 0.2
"""Seconds that a claim is tried: is_in_use() of another process takes the lock for a moment."""


class CacheInUseError(Exception):
    """Another server owns this cache folder."""


class Away(NamedTuple):
    """The store does not answer; `since` is in UTC seconds."""

    since: float
    reason: str


class CacheFolder:
    """`cache_dir/cache_id`, of mode 0700.

    Its owner is one server: the process that claims it, and those forked from it. Only the owner
    may recover it; using spool and listings needs no claim.
    """

    def __init__(self, cache_dir: str | os.PathLike[str] | None, cache_id: str) -> None:
        if not is_valid_name(cache_id) or "\\" in cache_id:
            raise ValueError(f"not usable as the name of a cache: {cache_id!r}")
        self.path = (
            Path(cache_dir) if cache_dir else user_cache_path("davfusion", appauthor=False)
        ) / cache_id
        self.spool = FileStore(self.path / "spool")
        self._listings_path = self.path / "listings.sqlite"
        self.listings = ListingTable(self._listings_path)
        self.journal_path = self.path / "journal.sqlite"
        self.unsettled = Unsettled(self.path / "unsettled")
        self.asides = NotedAsides(self.path / "asides.sqlite", self.doubt)
        self._lock: IO[Any] | None = None

    def prepare(self) -> None:
        """Make the folder and its spool where they are missing; disturbs nothing there."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.spool.prepare()

    def claim(self) -> None:
        """Become the owner until release() or the end of this process and its forks.

        Raises CacheInUseError if another server is the owner, OSError if the folder cannot be
        made or written.
        """
        self.prepare()
        lock = (self.path / _LOCK).open("ab")
        if not _locked_within(_PROBED, lock):
            lock.close()
            raise CacheInUseError(f"another server uses the cache folder {self.path}")
        self._lock = lock
        self.path.chmod(0o700)

    def is_in_use(self) -> bool:
        """Whether there is an owner now."""
        try:
            with (self.path / _LOCK).open("rb") as lock:
                return is_locked(lock)
        except FileNotFoundError:
            return False

    def journal(self, delay: float, clock: Callable[[], float] = time.time) -> Journal:
        """The changes that have not been sent; see Journal."""
        return Journal(self.journal_path, self.spool, delay=delay, clock=clock)

    def claims(self) -> Claims:
        """Who puts something where, where the store cannot refuse by itself."""
        return Claims(self.path / _CLAIMS)

    def recover(self) -> None:
        """Put in order what a crash has left; see recovery.py for journal and spool.

        Forgets what the listings know only of a time long past. Only for the owner, before its
        workers start.
        """
        if is_low(self.path):
            Reserve(self.path).give()
        self.note_away(None)
        self.unsettled.clear()
        self.asides.disown()
        if (self.path / _CLAIMS).exists():
            self.claims().clear()
        unfinished = self.path / "recovering"
        if problem := recovery.problem(self.journal_path):
            unfinished.touch()  # a start that breaks off from here on has lost rows all the same
            fsync_directory(self.path)
            recovery.set_aside(self.journal_path, problem)
        is_whole = not unfinished.exists()
        journal = self.journal(0)
        self.doubt(recovery.interrupted(journal))
        recovery.reconcile(journal, self.spool, self.path / "spool", is_whole=is_whole)
        unfinished.unlink(missing_ok=True)
        journal.close()
        if self._listings_path.exists():
            self.listings.prune(time.time(), 0)
            self.listings.close()

    def doubt(self, touched: Collection[str]) -> None:
        """What the listings know of these paths, and of all below, is to be asked for again."""
        if touched and self._listings_path.exists():
            self.listings.forget(touched, time.time())

    def note_away(self, reason: str | None) -> None:
        """Have status tell why the store does not answer; None: it does."""
        with suppress(OSError):  # it is told once more by the log
            if reason is None:
                (self.path / _AWAY).unlink(missing_ok=True)
                return
            with (self.path / _AWAY).open("x", encoding="utf-8") as note:
                note.write(reason)

    def away(self) -> Away | None:
        """Since when and why the store does not answer, as far as the server knows."""
        try:
            with (self.path / _AWAY).open(encoding="utf-8") as note:
                return Away(os.fstat(note.fileno()).st_mtime, note.read())
        except OSError:
            return None

    def release(self) -> None:
        """Close what this process has open; if it is the last of the owner, others may claim."""
        self.listings.close()
        self.asides.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked_within(seconds: float, lock: IO[Any]) -> bool:
    give_up = time.monotonic() + seconds
    while not lock_file(lock):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def cache_id_for(store_name: str) -> str:
    """A cache_id for the store of that name: the same every time, and safe as a file name."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", store_name).strip("-")[:40] or "store"
    digest = hashlib.sha256(store_name.encode()).hexdigest()[:8]
    return f"{readable}-{digest}"
