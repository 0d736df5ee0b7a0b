"""The journal: what the store must still reach, durably, shared by all processes of a share.

This is the side of those who answer requests; outbox.py is the side of the mover that sends.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from davfusion.cache import journal_rows
from davfusion.cache.filestore import FileStore
from davfusion.cache.journal_change import Change
from davfusion.cache.journal_rows import Alias
from davfusion.cache.packs import names_in
from davfusion.cache.pending import SCHEMA, Row, View
from davfusion.cache.reserve import is_low
from davfusion.cache.spool import disk_space, remove_content, set_apart
from davfusion.database import Database
from davfusion.stamp import Stamp
from davfusion.stores.store import Metadata, StoreSpaceLimitError

LONGEST_DELAY: Final = 60.0
"""Seconds that a change waits at most for further changes of its path."""


ROW_COST: Final = 5120
"""Bytes beside its content that a pending path takes: the rest of a page, the note, the row."""


class Journal:
    """The pending changes of one share, in a file, whose contents lie in `spool`.

    `delay` is the seconds that a change waits for the next one of its path; `clock` gives UTC
    seconds, the same for all processes. A failure of the file raises sqlite3.Error.
    """

    def __init__(
        self,
        path: Path,
        spool: FileStore,
        *,
        delay: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = Database(path, SCHEMA, durable=True)
        self.clock = clock
        self._delay = delay
        self._folder = path.parent
        self._spool = spool
        # Of its own, so that a reader does not wait while another thread's commit is on its way.
        self._reading = Database(path, SCHEMA, durable=True)
        self._stamp = Stamp(path.parent)
        self._idle: tuple[bytes, int | None] = (b"", None)

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        self.database.close()
        self._reading.close()

    def view(self, path: str) -> View:
        """What is pending at the path, and whether the store's content there is to be seen."""
        return journal_rows.view_by(self._reading.rows, path)

    def seen(self, path: str) -> View:
        """As view, for those who only read: a change that is not answered yet may be missing."""
        done = self._done_if_idle()
        return self.view(path) if done is None else View(path, None, hidden=False, done=done)

    def _done_if_idle(self) -> int | None:
        """`done` of all views, if nothing is pending or known by another name; None if not.

        It is looked up once for each stamp, since no change goes without a new one.
        """
        stamp = self._stamp.value()
        known, done = self._idle
        if known != stamp:
            done = journal_rows.done_if_idle(self._reading.rows)
            self._idle = stamp, done
        return done

    def listing(self, directory: str) -> tuple[View, list[Row], dict[str, Alias]]:
        """The directory, and the rows and the aliases of the paths right below, of one moment.

        As seen() for those who only read.
        """
        if (done := self._done_if_idle()) is not None:
            return View(directory, None, hidden=False, done=done), [], {}
        with self._reading.transaction(write=False) as db:
            return (
                journal_rows.view(db, directory),
                journal_rows.children(db, directory),
                journal_rows.aliases(db, directory),
            )

    def below(self, directory: str) -> list[Row]:
        """The rows of all paths below, directories before what is in them."""
        with self._reading.transaction(write=False) as db:
            return journal_rows.rows_below(db, directory)

    def at_and_below(self, path: str) -> list[Row]:
        """The rows of the path and of all below, directories before what is in them."""
        own = self.view(path).row
        return [*([own] if own else []), *self.below(path)]

    def latest(self) -> int:
        """The number of the last change so far."""
        with self._reading.transaction(write=False) as db:
            return journal_rows.latest_change(db)

    def needs(self, content: str) -> bool:
        """Whether a row names that file of the spool."""
        return bool(self._reading.rows("SELECT 1 FROM pending WHERE spool = ?", (content,)))

    def needs_pack(self, pack: str) -> bool:
        """Whether a row names a content in that pack of the spool."""
        sql = "SELECT 1 FROM pending WHERE spool >= ? AND spool < ? LIMIT 1"
        return bool(self._reading.rows(sql, names_in(pack)))

    def in_pack(self, pack: str) -> list[Row]:
        """The rows whose content lies in that pack of the spool."""
        with self._reading.transaction(write=False) as db:
            return journal_rows.rows_in(db, names_in(pack))

    def has_below(self, directory: str) -> bool:
        """Whether there is any row below."""
        with self._reading.transaction(write=False) as db:
            return journal_rows.has_below(db, directory)

    def seen_as(self, path: str, metadata: Metadata) -> Metadata:
        """The store's metadata of a file as clients see it."""
        if metadata["is_dir"] or "etag" not in metadata or self._done_if_idle() is not None:
            return metadata
        with self._reading.transaction(write=False) as db:
            known_as = journal_rows.alias(db, path)
        return known_as.applied(metadata) if known_as else metadata

    def stored_as(self, path: str, given: str) -> str:
        """The store's ETag of the version that clients know as `given`."""
        if self._done_if_idle() is not None:
            return given
        with self._reading.transaction(write=False) as db:
            known_as = journal_rows.alias(db, path)
        return known_as.stored if known_as and known_as.given == given else given

    def count(self) -> int:
        """How many paths the store has not got as they are to be."""
        return int(self._reading.rows("SELECT count(*) FROM pending")[0][0])

    def volume(self) -> int:
        """Bytes that the disk gives for all that has not reached the store, and not many more.

        Without the contents that lie in packs.
        """
        sql = "SELECT total.bytes - packed.bytes, paths FROM total, packed"
        size, count = self._reading.rows(sql)[0]
        return int(size + count * ROW_COST)

    def progress(self) -> tuple[int, int]:
        """What changes whenever something reaches the store."""
        sql = (
            "SELECT done, (SELECT total(progress) FROM pending WHERE path IN"
            " (SELECT path FROM sending)) FROM total"
        )
        done, sent = self._reading.rows(sql)[0]
        return int(done), int(sent)

    @contextmanager
    def change(self, *, even_if_low: bool = False) -> Iterator[Change]:
        """A transaction; once it is committed, contents that nothing needs any more are removed.

        Raises StoreSpaceLimitError for a full disk; the last of it are the mover's
        (`even_if_low`).
        """
        if is_low(self._folder) and not even_if_low:
            raise StoreSpaceLimitError("the cache's disk is full")
        with disk_space(), self.database.transaction() as db:
            change = Change(db, self.clock(), self._delay, LONGEST_DELAY)
            yield change
            for name in change.dropped:
                set_apart(self._spool, name)
        for name in change.dropped:
            remove_content(self._spool, name)
