"""The mover's side of the journal: what is due, what is being sent, and what came of it."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from davfusion.cache import journal_rows, schedule
from davfusion.cache.filestore import FileStore
from davfusion.cache.journal import LONGEST_DELAY, Journal
from davfusion.cache.journal_rows import Alias
from davfusion.cache.pending import ABSENT, COLUMNS, DIRECTORY, FAILED, FILE, NOTHING, WAITING, Row
from davfusion.cache.spool import left_apart, name_of, remove_content, set_apart
from davfusion.cache.watched_clock import WatchedClock
from davfusion.database import below
from davfusion.stores import paths
from davfusion.stores.store import Metadata


@dataclass(frozen=True)
class Abandoned:
    """An upload that will not be finished; see Store.abandon."""

    number: int
    path: str
    token: str | None
    since: float


class Outbox:
    """Used by one mover at a time, from all its threads.

    `unsettled` tells paths, beside those held, of which no row may be sent now.
    """

    def __init__(
        self, journal: Journal, spool: FileStore, unsettled: Callable[[], Iterable[str]] = tuple
    ) -> None:
        self._journal = journal
        self._database = journal.database
        self._spool = spool
        self._unsettled = unsettled
        self._done: list[tuple[Row, Metadata | None]] = []
        self._clock = WatchedClock(journal.clock, self._shorten)

    def begin(self) -> None:
        """A mover starts: nothing is being sent, whatever the one before was doing.

        What that one was about to remove goes.
        """
        with self._database.transaction() as db:
            db.execute("DELETE FROM sending")
        self.remove_unnamed(left_apart(self._spool))

    def _shorten(self, now: float) -> None:
        """Have nothing wait for longer than a change may, by a clock that was ahead."""
        latest = now + LONGEST_DELAY
        with self._database.transaction() as db:
            db.execute("UPDATE pending SET due = ? WHERE due > ?", (latest, latest))

    def retry_failed(self, above: Iterable[str] = (paths.ROOT,)) -> int:
        """Have what failed for good tried again, of these paths and all below them.

        Returns how many rows that are.
        """
        sql = (
            "UPDATE pending SET state = ?, due = 0, attempts = 0"
            " WHERE state = ? AND (path = ? OR path >= ? AND path < ?)"
        )
        with self._database.transaction() as db:
            return sum(
                db.execute(sql, (WAITING, FAILED, path, *below(path))).rowcount for path in above
            )

    def hurry(self, above: str | None = None) -> None:
        """Have all that waits sent now; or only the rows of `above` and of what lies above it."""
        with self._database.transaction() as db:
            if above is None:
                db.execute("UPDATE pending SET due = 0 WHERE state = ?", (WAITING,))
                return
            for path in (above, *paths.ancestors(above)):
                db.execute("UPDATE pending SET due = 0 WHERE path = ?", (path,))

    def hurry_postponed(self) -> None:
        """The store is back: have those sent now that waited for it."""
        with self._database.transaction() as db:
            db.execute("UPDATE pending SET due = 0 WHERE state = ? AND attempts > 0", (WAITING,))

    def take(self, room: Mapping[str, int]) -> list[Row]:
        """Rows that are due, marked as being sent; `room` says how many of each schedule.lane().

        They are as they were before; `begun` tells whether one was tried before.
        """
        now = self._clock()
        chosen = self._choose(now, room)
        if not chosen:
            return []
        with self._database.transaction() as db:
            held = journal_rows.held(db)
            taken = [
                row
                for row in chosen
                if not paths.overlaps(row.path, held)
                and journal_rows.generation(db, row.path) == row.generation
            ]
            db.executemany("INSERT INTO sending VALUES (?)", [(row.path,) for row in taken])
            db.executemany(
                "UPDATE pending SET begun = coalesce(begun, ?),"
                " sent = CASE WHEN kind = 'file' AND instr(sent, etag) = 0"
                " THEN trim(sent || ' ' || etag) ELSE sent END WHERE path = ?",
                [(now, row.path) for row in taken],
            )
            for row in taken:
                if row.kind != ABSENT:
                    journal_rows.mark_begun(db, paths.ancestors(row.path), now)
        return taken

    def _choose(self, now: float, room: Mapping[str, int]) -> list[Row]:
        """Read beside those who write: what changes before it is marked is left out then."""
        with self._database.transaction(write=False) as db:
            sending = [path for (path,) in db.execute("SELECT path FROM sending")]

            def hides(directory: str) -> bool:
                row = journal_rows.get(db, directory)
                return row is not None and row.hides_below

            choice = schedule.Choice(sending, [*journal_rows.held(db), *self._unsettled()], hides)
            return [
                row
                for lane, most in room.items()
                if most
                for row in islice(filter(choice.allows, journal_rows.due(db, lane, now)), most)
            ]

    def first_failed(self) -> Row | None:
        """One of the rows that wait for somebody to see to them."""
        sql = f"SELECT {COLUMNS} FROM pending WHERE state = ? LIMIT 1"  # noqa: S608
        found = self._database.rows(sql, (FAILED,))
        return Row(*found[0]) if found else None

    def is_current(self, row: Row) -> bool:
        """Whether the row is still what it was when it was taken."""
        with self._database.transaction(write=False) as db:
            now = journal_rows.get(db, row.path)
        return now is not None and now.generation == row.generation

    def is_pending(self, path: str) -> bool:
        """Whether there is a row of that very path."""
        return bool(self._database.rows("SELECT 1 FROM pending WHERE path = ?", (path,)))

    def is_in_the_way(self, row: Row) -> bool:
        """Whether the sending of the row should be broken off: it is of no use, or others wait."""
        with self._database.transaction(write=False) as db:
            now = journal_rows.get(db, row.path)
            held = journal_rows.held(db)
        return now is None or now.kind != row.kind or paths.overlaps(row.path, held)

    def done(self, row: Row, stored: Metadata | None) -> None:
        """The store has what the row says, as note_done() will note; `stored` is its answer."""
        self._done.append((row, stored))

    def note_done(self) -> None:
        """Note what is done so far in one transaction, for which the next call tries it again.

        One thread at a time. A row that is done and not noted is sent again after a crash.
        """
        done = list(self._done)
        if not done:
            return
        with self._database.transaction() as db:
            contents = [self._finish(db, row, stored) for row, stored in done]
        del self._done[: len(done)]
        for content in filter(None, contents):
            remove_content(self._spool, content)

    def _finish(self, db: sqlite3.Connection, row: Row, stored: Metadata | None) -> str | None:
        """Returns the content of the spool that is not needed any more."""
        _release(db, row.path)
        journal_rows.forget_tried(db, row.path, tree=row.kind == ABSENT)
        self._note_alias(db, row, stored)
        now = journal_rows.get(db, row.path)
        if now is None:
            return None
        if now.generation != row.generation:
            base = stored.get("etag") if stored and row.kind == FILE else ""
            sql = "UPDATE pending SET clears = ?, base = ?, sent = '' WHERE path = ?"
            db.execute(sql, (_to_clear(row, now), base, row.path))
            return None
        journal_rows.drop(db, row.path)
        journal_rows.note_done(db)
        if row.spool is not None:
            set_apart(self._spool, row.spool)
        return row.spool

    def _note_alias(self, db: sqlite3.Connection, row: Row, stored: Metadata | None) -> None:
        journal_rows.drop_alias(db, row.path, tree=row.kind == ABSENT)
        if stored is None or row.etag is None or "etag" not in stored:
            return
        same_date = int(stored["modified"]) == int(row.modified)
        if stored["etag"] != row.etag or not same_date:
            known_as = Alias(stored["etag"], row.etag, row.modified)
            journal_rows.put_alias(db, row.path, known_as)

    def cleared(self, row: Row) -> None:
        """The store has lost what it had at the path; the rest of the row is still to be sent."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE pending SET clears = ?, base = '' WHERE path = ? AND generation = ?"
                " AND kind <> ?",
                (NOTHING, row.path, row.generation, ABSENT),
            )
            journal_rows.drop_alias(db, row.path, tree=True)

    def released(self, rows: Iterable[Row]) -> None:
        """The sending was broken off; it begins again when nothing is in the way."""
        with self._database.transaction() as db:
            for row in rows:
                _release(db, row.path)

    def postponed(self, rows: Sequence[Row], error: Exception, wished: float | None) -> None:
        """The store could not be reached, or asks to come again later."""
        now = self._journal.clock()
        with self._database.transaction() as db:
            for row in rows:
                _release(db, row.path)
                due = now + schedule.backoff(row.attempts, wished)
                db.execute(
                    "UPDATE pending SET attempts = attempts + 1, error = ?, due = max(due, ?)"
                    " WHERE path = ? AND generation = ?",
                    (str(error), due, row.path, row.generation),
                )

    def failed(self, row: Row, error: Exception) -> None:
        """Trying again does not help until somebody has seen to it."""
        with self._database.transaction() as db:
            _release(db, row.path)
            db.execute(
                "UPDATE pending SET attempts = attempts + 1, error = ?, state = ?"
                " WHERE path = ? AND generation = ?",
                (str(error), FAILED, row.path, row.generation),
            )

    def rebased(self, row: Row, base: str | None) -> None:
        """The store has another version than the row was based on, and it is to be replaced."""
        with self._database.transaction() as db:
            _release(db, row.path)
            sql = "UPDATE pending SET base = ?, sent = '', due = 0 WHERE path = ?"
            db.execute(sql, (base, row.path))

    def set_aside(self, row: Row, copy: str) -> None:
        """Both versions stay: what the row holds, with all below, goes on as `copy`."""
        with self._journal.change(even_if_low=True) as change:
            db = change.db
            _release(db, row.path)
            now = journal_rows.get(db, row.path)
            if now is None or journal_rows.get(db, copy) is not None:
                return  # the next try finds out
            for held in (now, *journal_rows.rows_below(db, row.path)):
                journal_rows.abandon(db, held)
                journal_rows.drop(db, held.path)
                if held.kind != ABSENT:
                    target = paths.rebase(held.path, row.path, copy)
                    change.insert(moved(held, target))
            journal_rows.note_done(db)
            at = self._journal.clock()
            db.execute("INSERT INTO conflict VALUES (?, ?, ?)", (at, row.path, copy))

    def tried_below(self, directory: str) -> set[str]:
        """Files that broken-off tries of ours may have put there."""
        with self._database.transaction(write=False) as db:
            return journal_rows.tried_below(db, directory)

    def note_foreign(self, files: Iterable[str]) -> None:
        """These files of other programs stay, though the directory above them was deleted."""
        at = self._journal.clock()
        with self._database.transaction() as db:
            noted = [(at, path, path) for path in files]
            db.executemany("INSERT INTO conflict VALUES (?, ?, ?)", noted)

    def kept_foreign(self, row: Row) -> None:
        """What was to be deleted has been replaced by another program meanwhile, and stays."""
        with self._database.transaction() as db:
            self._finish(db, row, None)
            at = self._journal.clock()
            db.execute("INSERT INTO conflict VALUES (?, ?, ?)", (at, row.path, row.path))

    def keep_token(self, row: Row, token: str | None) -> None:
        """What the store needs to go on with the upload of the row."""
        sql = "UPDATE pending SET token = ? WHERE path = ? AND generation = ?"
        with self._database.transaction() as db:
            changed = db.execute(sql, (token, row.path, row.generation)).rowcount
            if not changed and token is not None:
                values = (row.path, token, self._journal.clock())
                db.execute("INSERT INTO abandoned VALUES (?, ?, ?)", values)

    def note_progress(self, row: Row, sent: int) -> None:
        """So many bytes of the row's content have been sent."""
        sql = "UPDATE pending SET progress = ? WHERE path = ? AND generation = ?"
        with self._database.transaction() as db:
            db.execute(sql, (sent, row.path, row.generation))

    def abandoned(self) -> list[Abandoned]:
        """Uploads that the store is to forget, of paths that are not being sent."""
        sql = (
            "SELECT rowid, path, token, since FROM abandoned"
            " WHERE path NOT IN (SELECT path FROM sending) LIMIT 100"
        )
        return [Abandoned(*row) for row in self._database.rows(sql)]

    def abandon(self, row: Row) -> None:
        """Have uploads removed that tries of the row may have left."""
        with self._database.transaction() as db:
            db.execute("INSERT INTO abandoned VALUES (?, NULL, ?)", (row.path, row.begun))

    def remove_unnamed(self, files: Iterable[Path]) -> None:
        """Remove files that nobody adds to any more, but those that are the content of a row."""
        unnamed = [file for file in files if not self._journal.needs(name_of(file))]
        if not unnamed:
            return
        with self._database.transaction(silent=True) as db:
            # On the disk, too, now none can be named: a commit on which its process was killed
            # might come to light after a crash, were nothing written over it.
            journal_rows.next_change(db)
        for file in unnamed:
            file.unlink(missing_ok=True)

    def forgotten(self, upload: Abandoned) -> None:
        """The store has forgotten it."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM abandoned WHERE rowid = ?", (upload.number,))


def moved(row: Row, path: str, base: str | None = "") -> Row:
    """The row as one of another path, of which nothing has been sent yet."""
    return Row(
        path,
        row.kind,
        spool=row.spool,
        bytes=row.bytes,
        modified=row.modified,
        etag=row.etag,
        content_type=row.content_type,
        base=base,
    )


def _to_clear(sent: Row, now: Row) -> str:
    """What the store must lose for `now`, having just got what `sent` says."""
    if sent.kind == ABSENT:
        return now.clears if now.kind == ABSENT else NOTHING
    if sent.kind == now.kind:
        return now.clears if now.kind == DIRECTORY else NOTHING
    return sent.kind


def _release(db: sqlite3.Connection, path: str) -> None:
    db.execute("DELETE FROM sending WHERE path = ?", (path,))
