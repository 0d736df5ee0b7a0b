"""ListingTable: what is known of a share's entries and listings, for all its processes.

An answer of the store is recorded unless one of our own changes overtook it: every change takes a
number, a call to the store notes the last one before it starts, and neither an entry nor a
listing is replaced by one that was asked for earlier.
"""

import itertools
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from davfusion.cache import answers, changes, rows
from davfusion.cache.disposable import DisposableDatabase
from davfusion.cache.entry import DIRECTORY, FILE, LAG_SECONDS, Entry, Moment
from davfusion.cache.watched_clock import TOLERANCE
from davfusion.stores.store import Metadata

T = TypeVar("T")

PRUNE_EVERY: Final = 10_000
"""Calls to the store and changes, of one process."""

REMEMBERED: Final = 30 * 86400.0
"""Seconds that listings, and the true dates of files, are kept after they have expired."""

REMEMBERED_ABSENT: Final = 86400.0
"""The same for names that were asked for and not there: clients ask for no end of them."""


class ListingTable:
    """Entries and listings of one share, in a file (None: in this process's memory).

    A failure of the file makes the methods answer "unknown". `now` and the times in Moments are
    seconds of the one clock that all users of the table share.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.folder = path.parent if path is not None else None
        """Where its stamp is, if it has one."""
        self._database = DisposableDatabase(path, rows.SCHEMA)
        self._begun = itertools.count(1)

    def close(self) -> None:
        """Close this process's connection; the next use opens a new one."""
        self._database.close()

    def clear(self) -> None:
        """Forget everything, for all processes; OSError."""
        self._database.throw_away()

    def begin(self, now: float, age: float) -> Moment:
        """The moment before a call to the store; `age` as in Moment."""
        if next(self._begun) % PRUNE_EVERY == 0:
            self.prune(now, age)
        change = self._read(lambda db: rows.number(db, "SELECT latest FROM change"), -1)
        return Moment(change, now, age)

    def prune(self, now: float, age: float) -> None:
        """Drop what has not answered for long; `age` is the longest that knowledge stays fresh."""
        # No answer that is on its way, and fresh when it comes, is older than these.
        absent = now - max(age + LAG_SECONDS, REMEMBERED_ABSENT)
        listings = now - age - LAG_SECONDS - REMEMBERED
        ends = rows.Ends(absent, listings, listings - age - LAG_SECONDS)
        self._write(lambda db: rows.prune(db, ends), None)

    def end_fresher(self, now: float, age: float) -> None:
        """End at `now` what would hold for longer than `age`, by a clock that was ahead."""
        self._write(lambda db: rows.end_fresher(db, now, now + age + TOLERANCE), None)

    def find(self, path: str, now: float) -> Entry | None:
        """What is known of `path` at `now`, ABSENT included; None: unknown."""
        return self._read(lambda db: rows.find(db, path, now), None)

    def recall(self, path: str) -> Entry | None:
        """What was last known of `path`, be it expired."""
        return self._read(lambda db: rows.read_entry(db, path), None)

    def last_answer(self, path: str) -> Entry | None:
        """What the store said last of `path`, ABSENT included, however long ago.

        None where it never did, or one of our own changes has left it open since.
        """
        return self._read(lambda db: rows.remembered(db, path), None)

    def last_listing(self, directory: str, until: float = math.inf) -> dict[str, Entry] | None:
        """Name -> what was last known of all children; None where it expired after `until`.

        None also where they were never listed, or one of our own changes may have added to them
        since; one that failed is taken for not done.
        """
        return self._read(lambda db: rows.remembered_children(db, directory, until), None)

    def recall_children(self, directory: str) -> dict[str, Entry]:
        """Name -> what was last known of it, be it expired."""
        return self._read(lambda db: rows.read_children(db, directory), {})

    def children(self, directory: str, now: float) -> dict[str, Metadata] | None:
        """Name -> metadata of all children, or None when not all are known."""
        return self._read(lambda db: rows.fresh_children(db, directory, now), None)

    def names_like(self, directory: str, folded: str, now: float) -> list[str] | None:
        """The names of children that may fold as `folded`, or None when not all are known."""
        return self._read(lambda db: rows.names_like(db, directory, folded, now), None)

    def knows_tree(self, directory: str, now: float) -> bool:
        """Whether `directory` and every known directory below it have a fresh listing."""
        return self._read(lambda db: rows.knows_tree(db, directory, now), False)

    def claim_walk(self, directory: str, now: float, until: float) -> bool:
        """Whether no process has claimed the walk of `directory` for a time beyond `now`."""
        return self._write(lambda db: rows.claim_walk(db, directory, now, until), False)

    def record_entry(self, path: str, metadata: Metadata | None, fetch: Moment) -> None:
        """Record a stat; None: the store has nothing there."""
        self._write(lambda db: answers.record_entry(db, path, metadata, fetch), None)

    def record_listing(
        self, directory: str, listed: Mapping[str, Metadata], fetch: Moment
    ) -> dict[str, Metadata]:
        """Record a listing; returns it with what is known better of our own changes."""
        return self._write(
            lambda db: answers.record_listing(db, directory, listed, fetch), dict(listed)
        )

    def stored(self, path: str, metadata: Metadata, made: Moment) -> None:
        """We have stored a file."""

        def task(db: sqlite3.Connection, number: int) -> None:
            changes.stored(db, path, metadata, made, number)

        self._change(task)

    def created_directory(self, directory: str, made: Moment) -> None:
        """We have made an empty directory."""
        self._change(lambda db, number: changes.created_directory(db, directory, made, number))

    def removed(self, gone: Iterable[str], made: Moment, *, is_dir: bool = False) -> None:
        """We have removed these files, or directories with all below them."""
        kind = DIRECTORY if is_dir else FILE

        def task(db: sqlite3.Connection, number: int) -> None:
            for path in gone:
                changes.removed(db, path, kind, made, number)

        self._change(task)

    def copied(self, src: str, dst: str, made: Moment) -> None:
        """We have copied a file or directory over `dst`; its new metadata is not known yet."""
        self._change(lambda db, number: changes.copied(db, src, dst, made, number))

    def moved(self, src: str, dst: str, made: Moment) -> None:
        """As copied, and `src` is gone. The dates known of its files go along with their ETags."""
        self._change(lambda db, number: changes.moved(db, src, dst, made, number))

    def forget(self, touched: Iterable[str], now: float) -> None:
        """These paths may have changed, nobody knows how: ask the store."""

        def task(db: sqlite3.Connection, number: int) -> None:
            for path in touched:
                changes.forget(db, path, now, number)

        self._change(task)

    def expire(self, path: str, now: float) -> None:
        """What is known of `path` ends at `now`; no answer asked for before that replaces it."""
        self._change(lambda db, number: changes.expire(db, path, now, number))

    def _read(self, task: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        return self._database.run(task, otherwise, write=False)

    def _write(self, task: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Record what is no change of ours: what was answered without it may be so once more."""
        return self._database.run(task, otherwise, silent=True)

    def _change(self, task: Callable[[sqlite3.Connection, int], None]) -> None:
        def numbered(db: sqlite3.Connection) -> None:
            db.execute("UPDATE change SET latest = latest + 1")
            task(db, rows.number(db, "SELECT latest FROM change"))

        self._database.run(numbered, None)
