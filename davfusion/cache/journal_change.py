"""One change of the journal by a client's request: what it does to the rows of a path."""

import sqlite3
from collections.abc import Iterable

from davfusion.cache import journal_rows
from davfusion.cache.pending import (
    ABSENT,
    DIRECTORY,
    EITHER,
    FAILED,
    FILE,
    NOTHING,
    Held,
    Row,
    View,
    occupied,
    vacated,
)
from davfusion.stores import paths


class OvertakenError(Exception):
    """The path is no longer as it was when the change was decided: look again, and decide anew."""


class Change:
    """The changes of one transaction, made at `now`.

    A row is due `delay` seconds after its last change, but no later than `longest` seconds after
    the first one that has not been sent.
    """

    def __init__(self, db: sqlite3.Connection, now: float, delay: float, longest: float) -> None:
        self.db = db
        self.now = now
        self._delay = delay
        self._longest = longest
        self.dropped: list[str] = []
        """Files of the spool that no row needs any more."""

    def require(self, seen: View) -> None:
        """Raises OvertakenError unless the path is still as it was seen."""
        if not journal_rows.view(self.db, seen.path).same(seen):
            raise OvertakenError(seen.path)

    def require_above(self, seen: View) -> None:
        """Raises OvertakenError unless the directories above the path are still as they were seen.

        One that nobody has sent leaves nothing when it is moved away or deleted.
        """
        if not journal_rows.view(self.db, seen.path).same_above(seen):
            raise OvertakenError(seen.path)

    def place(self, held: Held, new: Row) -> Row:
        """Put `new` where another row or, if there is none, `held` was; returns it as it is now."""
        old = journal_rows.get(self.db, new.path)
        if new.kind != DIRECTORY:
            self.drop_below(new.path)
        return self._put(old, occupied(old, held, new))

    def vacate(self, path: str, held: Held, *, keep: Iterable[str] = ()) -> None:
        """Nothing is at the path any more, nor below; the spool's files `keep` are still needed."""
        old = journal_rows.get(self.db, path)
        gone = vacated(old, held, path)
        self.drop_below(path, keep=keep)
        if gone is not None and gone is not old:
            self._put(old, gone, keep=keep)
        elif gone is None and old is not None:
            self._discard(old, keep)
            journal_rows.drop(self.db, path)

    def make_directories(self, missing: Iterable[str]) -> None:
        """Have these directories, where nothing is to be seen now; in the order given."""
        for directory in missing:
            row = journal_rows.get(self.db, directory)
            if row is None or row.kind == ABSENT:
                self.place(Held(NOTHING), Row(directory, DIRECTORY, modified=self.now))
            elif row.kind == FILE:
                raise OvertakenError(directory)

    def drop_below(self, directory: str, *, keep: Iterable[str] = ()) -> None:
        """Forget what was to become of the paths below."""
        rows = journal_rows.rows_below(self.db, directory)
        for row in rows:
            self._discard(row, keep)
        if rows:
            journal_rows.drop_below(self.db, directory)

    def overrule(self, path: str) -> None:
        """What the store has where something is pending, at the path or below, is not to count.

        For a destination before the store copies something there: should that end half-way, what
        is pending is no edit in conflict with the copies, and keeps the directories above it.
        """
        for row in self.at_and_below(path):
            self._overrule(row)
            if row.kind != ABSENT:
                self._keep_above(row.path, path)

    def _keep_above(self, below: str, top: str) -> None:
        """Have the directories above `below` that are `top` or lie in it."""
        for directory in paths.ancestors(below):
            is_within = directory == top or paths.is_below(directory, top)
            if is_within and journal_rows.get(self.db, directory) is None:
                self.insert(Row(directory, DIRECTORY, modified=self.now, begun=self.now))

    def _overrule(self, row: Row) -> None:
        """Have a file replace whatever gets there, and a directory show it."""
        if row.kind == DIRECTORY:
            overruling = row._replace(begun=row.begun or self.now)
        else:
            overruling = row._replace(clears=EITHER, base="")
        journal_rows.put(self.db, overruling)

    def note_done(self) -> None:
        """The store has something that it had not when earlier views were taken: look again."""
        journal_rows.note_done(self.db)

    def require_unheld(self, path: str) -> None:
        """Raises OvertakenError while something is put there past the journal; see Holds."""
        if paths.overlaps(path, journal_rows.held(self.db)):
            raise OvertakenError(path)

    def latest(self) -> int:
        """The number of the last change so far."""
        return journal_rows.latest_change(self.db)

    def has_row(self, path: str) -> bool:
        """Whether something is pending at that very path."""
        return journal_rows.get(self.db, path) is not None

    def forget(self, path: str, *, until: int) -> bool:
        """Forget what was to become of the path and all below by the changes up to `until`.

        Later ones stay, over whatever the store has got there meanwhile. Returns whether the path
        itself was changed later.
        """
        rows = self.at_and_below(path)
        for row in rows:
            if row.generation > until:
                self._overrule(row)
            else:
                self._discard(row, ())
                journal_rows.drop(self.db, row.path)
        journal_rows.drop_alias(self.db, path, tree=True)
        return bool(rows) and rows[0].path == path and rows[0].generation > until

    def at_and_below(self, path: str) -> list[Row]:
        """The rows of the path and of all below, directories before what is in them."""
        own = journal_rows.get(self.db, path)
        return [*([own] if own else []), *journal_rows.rows_below(self.db, path)]

    def insert(self, row: Row) -> Row:
        """Put a row where none is to be considered."""
        return self._put(None, row)

    def _put(self, old: Row | None, row: Row, *, keep: Iterable[str] = ()) -> Row:
        first = self.now
        if old is not None:
            self._discard(old, keep)
            first = self.now if old.state == FAILED else old.first_change
        row = row._replace(
            generation=journal_rows.next_change(self.db),
            first_change=first,
            due=min(self.now + self._delay, first + self._longest),
        )
        journal_rows.put(self.db, row)
        return row

    def _discard(self, row: Row, keep: Iterable[str]) -> None:
        journal_rows.abandon(self.db, row)
        if row.spool is not None and row.spool not in keep:
            self.dropped.append(row.spool)
