"""Holds: paths that a process is moving or copying in the store, on which the mover waits.

A hold ends with its process, whatever becomes of it: each process keeps a lock on a file of its
own, and a hold whose owner's file can be locked by somebody else is void.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from davfusion.cache.journal import Journal
from davfusion.platform import lock_file
from davfusion.stores import paths
from davfusion.stores.store import TransientStoreError

T = TypeVar("T")
LONGEST_WAIT: Final = 4.0
"""Seconds; then the client is told to come again."""
_POLL: Final = 0.02


class Holds:
    """The holds of this process, and of the others that share the journal.

    `folder` takes the owners' files. `wait` is called with the seconds to pass until the journal
    is looked at again.
    """

    def __init__(
        self, journal: Journal, folder: Path, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._journal = journal
        self._folder = folder
        self._wait = wait
        self._opening = threading.Lock()
        self._owner: tuple[int, str, IO[Any]] | None = None

    @contextmanager
    def held(self, *held: str) -> Iterator[None]:
        """Nobody else moves, copies or sends these paths, what is below or what is above.

        Raises TransientStoreError when that cannot be had for too long.
        """
        owner = self._own_name()
        self.wait_until(lambda: self._insert(owner, held))
        try:
            self.wait_until(lambda: not overlaps_any(held, self._paths("sending")))
            yield
        finally:
            with self._journal.database.transaction() as db:
                db.executemany(
                    "DELETE FROM hold WHERE owner = ? AND path = ?",
                    [(owner, path) for path in held],
                )

    def wait_until_free(self, path: str) -> None:
        """Return when nobody holds the path, what is below or what is above."""
        self.wait_until(lambda: not paths.overlaps(path, self._paths("hold")))

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return when that is so; TransientStoreError when it takes too long."""
        wait_until(is_so, self._wait)

    def remove_void(self, look: Callable[[list[str]], bool | None]) -> None:
        """Remove the holds of processes that have ended, after a `look` at their paths.

        If that says so, something is still to be put right there, and they stay for now.
        """
        rows = self._journal.database.rows("SELECT owner, path FROM hold")
        owners = {owner for owner, _ in rows}
        void = [owner for owner in owners if has_ended(self._folder / owner)]
        if not void or look([path for owner, path in rows if owner in void]):
            return
        with self._journal.database.transaction() as db:
            db.executemany("DELETE FROM hold WHERE owner = ?", [(owner,) for owner in void])
        for owner in void:
            (self._folder / owner).unlink(missing_ok=True)

    def close(self) -> None:
        """End all holds of this process."""
        if self._owner is not None and self._owner[0] == os.getpid():
            _, name, lock = self._owner
            (self._folder / name).unlink(missing_ok=True)
            lock.close()
        self._owner = None

    def _insert(self, owner: str, held: tuple[str, ...]) -> bool:
        with self._journal.database.transaction() as db:
            others = [path for (path,) in db.execute("SELECT path FROM hold")]
            if overlaps_any(held, others):
                return False
            db.executemany("INSERT INTO hold VALUES (?, ?)", [(path, owner) for path in held])
        return True

    def _paths(self, table: str) -> list[str]:
        return [path for (path,) in self._journal.database.rows(f"SELECT path FROM {table}")]  # noqa: S608

    def _own_name(self) -> str:
        with self._opening:
            if self._owner is None or self._owner[0] != os.getpid():
                self._folder.mkdir(mode=0o700, exist_ok=True)
                name = uuid.uuid4().hex
                lock = (self._folder / name).open("ab")
                lock_file(lock)
                self._owner = os.getpid(), name, lock
            return self._owner[1]


def wait_until(found: Callable[[], T], wait: Callable[[float], None]) -> T:
    """What is `found` once it is anything; TransientStoreError when it takes too long."""
    left = LONGEST_WAIT
    while not (result := found()):
        if left <= 0:
            raise TransientStoreError("another change of the same folder is still under way")
        wait(_POLL)
        left -= _POLL
    return result


def has_ended(owner: Path) -> bool:
    """Whether the process that keeps this file locked is there no more."""
    try:
        with owner.open("r+b") as lock:
            return lock_file(lock)
    except FileNotFoundError:
        return True


def overlaps_any(some: tuple[str, ...], others: list[str]) -> bool:
    """Whether one of `some` is one of the others, or lies above or below one."""
    return any(paths.overlaps(path, others) for path in some)
