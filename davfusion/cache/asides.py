"""NotedAsides: what is built beside a path is noted, so that no crash leaves it there.

Where all of it stood when its process ended, it takes its place; else it is removed. What others
have used since is told by its ETags, and stays. What a store itself has left unfinished, such as
the parts of an upload, it is asked to put right.
"""

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from davfusion.cache import recovery
from davfusion.cache.unfinished import NOBODY, SCHEMA, Unfinished
from davfusion.database import Database
from davfusion.platform import is_running
from davfusion.stores import paths
from davfusion.stores.aside import Aside, beside
from davfusion.stores.store import (
    Metadata,
    NoSuchFilesytemObjectError,
    Store,
    StoreAccessError,
    StoreSpaceLimitError,
)
from davfusion.stores.transfer import blocks

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS aside (
    path TEXT PRIMARY KEY, dst TEXT NOT NULL, process INTEGER NOT NULL, stands INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS content (
    aside TEXT NOT NULL, path TEXT NOT NULL, is_dir INTEGER NOT NULL, bytes INTEGER NOT NULL,
    modified REAL NOT NULL, etag TEXT,
    PRIMARY KEY (aside, path)
) WITHOUT ROWID;
"""
_STANDS: Final = 1
_FAILED: Final = 2
"""Stands, too; but the client has been told that nothing came of it."""
_SECONDS: Final = 2.0
"""By which a time may have been rounded that a service has kept."""
Tree = dict[str, Metadata]

_log = logging.getLogger(__name__)


class NotedAsides:
    """Those of one share, in all processes that share the file `path`; made on first need.

    `doubt` has caches ask the store about these paths, and all below. `clock` gives seconds.
    """

    def __init__(
        self,
        path: Path,
        doubt: Callable[[Collection[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._doubt = doubt
        self._database = Database(path, _SCHEMA + SCHEMA, durable=True)
        self._unfinished = Unfinished(self._database, doubt, clock)
        self._refusal = ""

    @contextmanager
    def replacing(self, store: Store, dst: str, *, is_dir: bool) -> Iterator[Aside]:
        """As stores.aside.Asides; StoreSpaceLimitError where nothing can be noted."""
        del is_dir
        notes = _Notes(self._database, beside(dst), dst)
        with _noting(sqlite3.OperationalError, OSError):
            notes.begin()
        try:
            with _noting(sqlite3.OperationalError):
                yield Aside(notes.aside, notes.add)
                notes.stand(_tree(store, dst))
            _put_in_place(store, notes)
        except BaseException:
            notes.is_failure = True
            with self._unless_refused():
                self._is_settled(store, notes)
            raise
        with self._unless_refused():
            notes.end()

    def disown(self) -> None:
        """What is noted is of processes that have ended; none of today's may have begun.

        Where the disk refuses, being full, settle() goes by whether such a process runs.
        """
        if self._path.exists():
            with self._unless_refused(), closing(self._database):
                self._disown()

    def _disown(self) -> None:
        if problem := recovery.problem(self._path):
            recovery.set_aside(self._path, problem)
        with self._database.transaction(silent=True) as db:
            db.execute("UPDATE aside SET process = ?", (NOBODY,))
            db.execute("UPDATE unfinished SET process = ?", (NOBODY,))

    def unfinished(self, path: str, token: str) -> Callable[[bool], None]:
        """As stores.aside.Asides; on a full disk, nothing is noted."""
        return self._unfinished.begin(path, token)

    def settle(self, store: Store, service: Store) -> bool:
        """Bring in order what has ended early or failed and been left; whether nothing is left.

        `service` is what is below the caches of `store`.
        """
        with self._unless_refused():
            left = [notes for notes in self._left() if not self._is_settled(store, notes)]
            return self._abandon(service) and not left
        return False

    def close(self) -> None:
        """Close this process's connection; the next use opens a new one."""
        self._database.close()

    def abandon_unfinished(self, service: Store) -> bool:
        """Have put right what processes have left that have ended; whether nothing is left.

        What has been put right is for a minute looked at again.
        """
        with self._unless_refused():
            return self._abandon(service)
        return False

    def unsettled(self) -> list[str]:
        """Paths where something is to be put right: what comes before that is in its way."""
        with self._unless_refused():
            return self._unfinished.paths() if self._path.exists() else []
        return []

    def _abandon(self, service: Store) -> bool:
        return self._unfinished.abandon(service) if self._path.exists() else True

    @contextmanager
    def _unless_refused(self) -> Iterator[None]:
        """Go on where the disk is full, for one: left-overs harm nobody."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            if str(error) != self._refusal:  # it is met many times a second
                _log.warning("%s cannot be used now: %s", self._path, error)
            self._refusal = str(error)
        else:
            self._refusal = ""

    def _left(self) -> "Iterator[_Notes]":
        if not self._path.exists():
            return
        for aside, dst, process, stands in self._database.rows("SELECT * FROM aside"):
            notes = _Notes(self._database, aside, dst)
            notes.stands, notes.is_failure = bool(stands), stands == _FAILED
            if not (process and is_running(process)) and notes.take_over(process):
                yield notes

    def _is_settled(self, store: Store, notes: "_Notes") -> bool:
        """False where that failed, and is to be tried again."""
        try:
            self._doubt((notes.aside, notes.dst))
            _settle(store, notes)
        except StoreAccessError as error:
            _log.warning("%s cannot be brought in order now: %s", notes.aside, error)
            notes.leave()
            return False
        return True


@contextmanager
def _noting(*refusals: type[Exception]) -> Iterator[None]:
    try:
        yield
    except refusals as error:
        raise StoreSpaceLimitError(f"the cache's disk takes no notes ({error})") from error


def _settle(store: Store, notes: "_Notes") -> None:
    """Have the old or the new in its place, and nothing beside it.

    After a failure the old, if it stands as it was; else the new, if all of it stood.
    """
    built = _tree(store, notes.aside)
    if not notes.are_ours(store, built):
        _log.warning("%s, left by a crash, has been changed since, and stays", notes.aside)
    elif notes.stands and notes.are_all(built) and notes.gives_way(store):
        _put_in_place(store, notes)
        _log.warning("%s was being replaced when that broke off, and now is", notes.dst)
    elif built:
        store.delete(notes.aside, built[notes.aside]["is_dir"])
    notes.end()


def _put_in_place(store: Store, notes: "_Notes") -> None:
    if not store.features.server_side_move:  # else its move would build a copy beside, too
        with suppress(NoSuchFilesytemObjectError):
            store.delete(notes.dst, store.is_dir(notes.dst))
    store.move(notes.aside, notes.dst)


def _tree(store: Store, path: str) -> Tree:
    """What is there and below."""
    try:
        found = {path: store.get_metadata(path)}
        return found | dict(store.walk_metadata(path)) if found[path]["is_dir"] else found
    except NoSuchFilesytemObjectError:
        return {}


class _Content(NamedTuple):
    """What is known of something that was there, or was about to be put there."""

    is_dir: bool
    bytes: int
    modified: float
    etag: str | None = None
    """None: about to be put there, or no version is told from others."""

    def is_found(self, store: Store, path: str, found: Metadata) -> bool:
        """Whether that, which is at `path`, is it."""
        if self.is_dir or found["is_dir"]:
            return self.is_dir == found["is_dir"]
        if self.etag is not None:
            return self.etag == found.get("etag")
        if not store.features.modified_times:
            return self.bytes == found["bytes"]
        store.forget(path)  # a listing may know another time
        now = store.get_metadata(path)
        is_dated = abs(now["modified"] - self.modified) < _SECONDS
        return is_dated and self.bytes == now["bytes"]


def _are_alike(store: Store, one: str, other: str) -> bool:
    """Whether both are directories, or files with the same content."""
    if store.is_dir(one) or store.is_dir(other):
        return store.is_dir(one) and store.is_dir(other)
    return store.get_bytes(one) == store.get_bytes(other) and (
        _digest(store, one) == _digest(store, other)
    )


def _digest(store: Store, path: str) -> bytes:
    digest = hashlib.sha256()
    with store.open_read(path) as stream:
        for block in blocks(stream):
            digest.update(block)
    return digest.digest()


class _Notes:
    """What is noted of one aside."""

    def __init__(self, database: Database, aside: str, dst: str) -> None:
        self._database = database
        self.aside = aside
        self.dst = dst
        self.stands = False
        """Whether all of it has been built."""
        self.is_failure = False
        """Whether the client has been told that nothing came of it."""

    def begin(self) -> None:
        """Nothing has been made so far."""
        self._execute("INSERT INTO aside VALUES (?, ?, ?, 0)", self.aside, self.dst, os.getpid())

    def add(self, path: str, metadata: Metadata) -> None:
        """As Aside.note."""
        self._add({path: metadata})

    def stand(self, replaced: Tree) -> None:
        """All has been built that will replace that."""
        self._add(replaced)
        self._execute("UPDATE aside SET stands = ? WHERE path = ?", _STANDS, self.aside)
        self.stands = True

    def end(self) -> None:
        """Nothing is left to do."""
        with self._database.transaction(silent=True) as db:
            db.execute("DELETE FROM aside WHERE path = ?", (self.aside,))
            db.execute("DELETE FROM content WHERE aside = ?", (self.aside,))

    def leave(self) -> None:
        """To whom comes next."""
        stands = (_FAILED if self.is_failure else _STANDS) if self.stands else 0
        sql = "UPDATE aside SET process = ?, stands = ? WHERE path = ?"
        self._execute(sql, NOBODY, stands, self.aside)

    def take_over(self, process: int) -> bool:
        """From a process that has ended or left it; False where another was quicker."""
        sql = "UPDATE aside SET process = ? WHERE path = ? AND process = ?"
        return self._execute(sql, os.getpid(), self.aside, process) == 1

    def are_ours(self, store: Store, built: Tree) -> bool:
        """Whether all of it has been built."""
        noted = self._noted(self.aside)
        return all(p in noted and noted[p].is_found(store, p, m) for p, m in built.items())

    def are_all(self, built: Tree) -> bool:
        """Whether nothing that has been built is missing."""
        return built.keys() == self._noted(self.aside).keys()

    def gives_way(self, store: Store) -> bool:
        """Whether nobody else has put anything at `dst`; after a failure, and some of it is new.

        To be asked while all that has been built is there.
        """
        now, before, built = _tree(store, self.dst), self._noted(self.dst), self._noted(self.aside)
        new = [p for p, m in now.items() if p not in before or not before[p].is_found(store, p, m)]
        if self.is_failure and not new and now.keys() == before.keys():
            return False
        copies = [(path, paths.rebase(path, self.dst, self.aside)) for path in new]
        return all(at in built and _are_alike(store, path, at) for path, at in copies)

    def _noted(self, top: str) -> dict[str, _Content]:
        """By path, at and below `top`."""
        sql = "SELECT path, is_dir, bytes, modified, etag FROM content WHERE aside = ?"
        return {
            path: _Content(bool(is_dir), *rest)
            for path, is_dir, *rest in self._database.rows(sql, (self.aside,))
            if path == top or paths.is_below(path, top)
        }

    def _add(self, contents: Tree) -> None:
        with self._database.transaction(silent=True) as db:
            db.executemany(
                "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (self.aside, path, m["is_dir"], m["bytes"], m["modified"], m.get("etag"))
                    for path, m in contents.items()
                ],
            )

    def _execute(self, sql: str, *values: str | int) -> int:
        """How many rows that has changed."""
        with self._database.transaction(silent=True) as db:
            return db.execute(sql, values).rowcount
