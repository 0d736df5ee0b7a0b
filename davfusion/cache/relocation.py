"""Moving and copying paths of which some are pending and some are in the store.

What is in the store is copied there, many files at a time; then one transaction gives the rows
their new paths and, for a move, has the source deleted. So nothing is lost whenever it ends: until
that transaction all of the source is there, and after it all of the destination.
"""

from davfusion.cache import spool
from davfusion.cache.filestore import FileStore
from davfusion.cache.holds import Holds
from davfusion.cache.journal import Journal
from davfusion.cache.journal_change import Change
from davfusion.cache.outbox import Outbox, moved
from davfusion.cache.overlay import Overlay
from davfusion.cache.pending import ABSENT, DIRECTORY, NOTHING, Held, Row
from davfusion.stores import paths
from davfusion.stores.store import (
    NoSuchFilesytemObjectError,
    PartialFailureError,
    Store,
    StoreAutorizationError,
)
from davfusion.stores.transfer import require_apart

Bases = dict[str, str | None]
"""Source path of a row -> the store's version at its destination that the row is to replace."""


class Relocation:
    """The moves and copies of one share; `store` is what lies below the journal."""

    def __init__(self, store: Store, journal: Journal, files: FileStore, holds: Holds) -> None:
        self._store = store
        self._journal = journal
        self._files = files
        self._holds = holds
        self._overlay = Overlay(journal, store)
        self._outbox = Outbox(journal, files)

    def carry_out(self, src: str, dst: str, *, keep: bool) -> None:
        """Copy (`keep`) or move; as Store.duplicate and Store.move."""
        for path in (src, dst):
            if paths.check_path(path) == paths.ROOT:
                raise StoreAutorizationError("the root cannot be replaced or removed")
        require_apart(src, dst)
        while not self._try(src, dst, keep=keep):
            self.settle(paths.parent(dst))

    def _try(self, src: str, dst: str, *, keep: bool) -> bool:
        """False where the store must first have what is pending above the destination."""
        with self._holds.held(src, dst):
            self._overlay.metadata(src)
            stored = self._overlay.held(self._journal.view(src))
            if stored.kind == NOTHING:
                self._rekey(src, dst, stored, {}, keep=keep)
            elif not self._is_settled(paths.parent(dst)):
                return False
            else:
                self._carry_stored(src, dst, stored, keep=keep)
        return True

    def _carry_stored(self, src: str, dst: str, stored: Held, *, keep: bool) -> None:
        rows = self._journal.below(src)
        if not (keep or rows) and self._store.features.atomic_move:
            self._store.move(src, dst)
            self._forget_at(src, dst)
            return
        current = [row for row in rows if self._is_based_on_present(row)]
        failures: PartialFailureError | None = None
        try:
            self._store.duplicate(src, dst)
        except PartialFailureError as error:
            if not keep:
                raise
            failures = error
        bases: Bases = {row.path: row.base for row in rows}
        bases |= {row.path: self._etag(paths.rebase(row.path, src, dst)) for row in current}
        self._rekey(src, dst, stored, bases, keep=keep)
        if failures is not None:
            raise failures

    def settle(self, path: str) -> None:
        """Return when the store has all that is pending at the path and above it."""
        if self._is_settled(path):
            return
        self._outbox.hurry(path)
        self._holds.settled(lambda: self._is_settled(path))

    def _is_settled(self, path: str) -> bool:
        return not any(self._journal.view(step).row for step in (path, *paths.ancestors(path)))

    def _is_based_on_present(self, row: Row) -> bool:
        """Whether the store still has the version that the row is to replace or delete."""
        if row.kind == DIRECTORY or not row.base:
            return False
        self._store.forget(row.path)
        etag = self._etag(row.path)
        return etag == row.base or etag in row.sent.split()

    def _etag(self, path: str) -> str:
        try:
            return self._store.get_metadata(path).get("etag", "")
        except NoSuchFilesytemObjectError:
            return ""

    def _forget_at(self, src: str, dst: str) -> None:
        """The store has moved what was at `src`: rows of both are of the past."""
        with self._journal.change() as change:
            for path in (src, dst):
                change.forget(path)

    def _rekey(self, src: str, dst: str, stored: Held, bases: Bases, *, keep: bool) -> None:
        """Give the rows at and below `src` their place at `dst`, where `stored` has been copied."""
        replaced = self._overlay.held(self._journal.view(dst))
        links = _Links(self._files)
        try:
            with self._journal.change() as change:
                rows = change.at_and_below(src)
                copies = [links.of(row) for row in rows] if keep else rows
                if stored.kind == NOTHING:
                    _replace(change, copies, src, dst, replaced)
                else:
                    change.forget(dst)
                    _add(change, copies, src, dst, bases)
                if not keep:
                    change.vacate(src, stored, keep=[row.spool for row in rows if row.spool])
        except BaseException:
            links.remove()
            raise
        links.complete()


class _Links:
    """Second files for the contents of rows that are copied."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._names: list[str] = []

    def of(self, row: Row) -> Row:
        """The row with a file of its own."""
        if row.spool is None:
            return row
        self._names.append(spool.link_content(self._files, row.spool))
        return row._replace(spool=self._names[-1])

    def complete(self) -> None:
        """Rows of the journal name them now."""
        for name in self._names:
            spool.complete(self._files, name)

    def remove(self) -> None:
        """The copy came to nothing."""
        for name in self._names:
            spool.remove_content(self._files, name)


def _replace(change: Change, rows: list[Row], src: str, dst: str, replaced: Held) -> None:
    """Rows alone: what they do not name is not at the destination."""
    top, *below = rows
    change.drop_below(dst)
    change.place(replaced, moved(top, dst))
    for row in below:
        if row.kind != ABSENT:
            change.insert(moved(row, paths.rebase(row.path, src, dst)))


def _add(change: Change, rows: list[Row], src: str, dst: str, bases: Bases) -> None:
    """Rows over a copy of what the store has below them."""
    for row in rows:
        if row.path != src:
            target = paths.rebase(row.path, src, dst)
            carried = moved(row, target, bases.get(row.path, row.base))
            change.insert(carried._replace(clears=row.held if row.hides_below else NOTHING))
