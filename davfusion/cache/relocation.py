"""Moving and copying paths of which some are pending and some are in the store.

What is in the store is copied there, many files at a time; then one transaction gives the rows
their new paths and, for a move, has the source deleted. So nothing is lost whenever it ends: until
that transaction all of the source is there, and after it all of the destination.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Final

from davfusion.cache import spool
from davfusion.cache.block_caching_store import BlockCachingStore
from davfusion.cache.filestore import FileStore
from davfusion.cache.holds import Holds
from davfusion.cache.journal import Journal
from davfusion.cache.journal_change import Change, OvertakenError
from davfusion.cache.outbox import Outbox, moved
from davfusion.cache.overlay import Overlay, kind_of
from davfusion.cache.packs import Grow
from davfusion.cache.pending import ABSENT, DIRECTORY, FILE, NOTHING, Held, Row, View
from davfusion.cache.room import Room
from davfusion.stores import paths
from davfusion.stores.spelling import fold
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    StoreAutorizationError,
    TransientStoreError,
)
from davfusion.stores.transfer import require_apart

_ATTEMPTS: Final = 100
_NONE: Final = Held(NOTHING)
Bases = Mapping[str, str | None]
"""Source path of a row -> the store's version at its destination that the row is to replace."""


class Relocation:
    """The moves and copies of one share; `store` is what lies below the journal."""

    def __init__(
        self, store: BlockCachingStore, journal: Journal, files: FileStore, holds: Holds, room: Room
    ) -> None:
        self._store = store
        self._journal = journal
        self._files = files
        self._room = room
        self._holds = holds
        self._overlay = Overlay(journal, store)
        self._outbox = Outbox(journal, files)

    def carry_out(self, src: str, dst: str, *, keep: bool, replace: bool) -> None:
        """Copy (`keep`) or move; as Store.duplicate and Store.move."""
        for path in (src, dst):
            if paths.check_path(path) == paths.ROOT:
                raise StoreAutorizationError("the root cannot be replaced or removed")
        require_apart(src, dst)
        if self._store.features.case_insensitive_names and fold(src) == fold(dst):
            self._settle_tree(src)  # what is pending under two spellings would meet in the store
        for _ in range(_ATTEMPTS):
            view = self._journal.view(src)
            stored = self._overlay.held(view)
            if kind_of(view, stored) == NOTHING:
                raise NoSuchFilesytemObjectError(src)
            with suppress(OvertakenError):
                if stored.kind == NOTHING:
                    self._carry_pending(view, dst, keep=keep, replace=replace)
                elif not self._is_settled(paths.parent(dst)):
                    self.settle(paths.parent(dst))
                    continue
                else:
                    self._carry_stored(src, dst, stored, keep=keep, replace=replace)
                return
        raise TransientStoreError(f"{src} keeps changing")

    def _carry_pending(self, seen: View, dst: str, *, keep: bool, replace: bool) -> None:
        """OvertakenError where something else is to be seen there, or at `dst`, by now."""
        there = self._journal.view(dst)
        replaced = self._overlay.held(there, strict=False)
        if not replace:
            _require_nothing(there, replaced)
            self._holds.wait_until_free(dst)
        self._rekey(
            seen.path,
            dst,
            _NONE,
            _NONE,
            keep=keep,
            replaced=replaced,
            seen=(seen, there),
            is_alone=not replace,
        )

    def _carry_stored(self, src: str, dst: str, stored: Held, *, keep: bool, replace: bool) -> None:
        """OvertakenError where something else is to be seen there, or at `dst`, by now."""
        with self._holds.held(src, dst):
            now = self._overlay.held(self._journal.view(src))
            if now != stored or not self._is_settled(paths.parent(dst)):
                raise OvertakenError(src)
            latest, there = self._journal.latest(), self._journal.view(dst)
            replaced = self._overlay.held(there)
            if replace:
                self._require_present(there, replaced)
            else:
                _require_nothing(there, replaced)
            rows = self._journal.below(src)
            self._require_storable(rows, src, dst)
            # What is pending at the destination would be done to what has moved there, were this
            # process to end in between.
            is_plain = not (keep or rows or self._journal.at_and_below(dst))
            if is_plain and self._store.features.atomic_move:
                self._store.move(src, dst, replace=replace)
                undo = partial(self._store.move, dst, src, replace=False)
                with _undoing(undo, replace=replace):
                    self._rekey(src, dst, stored, _NONE, keep=False, latest=latest)
            else:
                self._carry_copy(src, there, stored, rows, keep=keep, replace=replace)

    def _require_present(self, there: View, known: Held) -> None:
        """ConflictError for a file that another program has stored since the store was asked."""
        if known.kind == FILE and there.row is None:
            self._store.forget(there.path)
            if self._overlay.held(there) not in (known, _NONE):
                raise ConflictError(f"{there.path} has been changed by another program")

    def _carry_copy(
        self, src: str, there: View, stored: Held, rows: list[Row], *, keep: bool, replace: bool
    ) -> None:
        dst = there.path
        current = [row for row in rows if self._is_based_on_present(row)]
        with self._journal.change() as change:
            if not replace:
                change.require(there)
            change.overrule(dst)
            latest = change.latest()
        is_cleared = there.row is not None  # what the store still has there waits to be deleted
        failures = self._duplicate(src, dst, keep=keep, replace=replace or is_cleared)
        bases = {row.path: self._etag(paths.rebase(row.path, src, dst)) for row in current}
        undo = partial(self._store.delete, dst, stored.kind == DIRECTORY)
        with nullcontext() if replace else _undoing(undo, replace=False):
            self._rekey(src, dst, stored, stored, bases, keep=keep, latest=latest)
        if failures is not None:
            raise failures

    def _duplicate(
        self, src: str, dst: str, *, keep: bool, replace: bool
    ) -> PartialFailureError | None:
        """What could not be copied; for a move that is an error, after which nothing has moved."""
        try:
            self._store.duplicate(src, dst, replace=replace)
        except PartialFailureError as error:
            if not keep:
                raise
            return error
        return None

    def settle(self, path: str) -> None:
        """Return when the store has all that is pending at the path and above it."""
        if self._is_settled(path):
            return
        self._outbox.hurry(path)
        self._holds.wait_until(lambda: self._is_settled(path))

    def _settle_tree(self, path: str) -> None:
        self.settle(path)
        if self._journal.has_below(path):
            self._outbox.hurry()
            self._holds.wait_until(lambda: not self._journal.has_below(path))

    def _require_storable(self, rows: list[Row], src: str, dst: str) -> None:
        """InvalidPathValueError where the store would not take what is pending there."""
        for row in rows:
            if row.kind != ABSENT:
                self._store.require_storable(paths.rebase(row.path, src, dst))

    def _is_settled(self, path: str) -> bool:
        return not any(self._journal.view(step).row for step in (path, *paths.ancestors(path)))

    def _is_based_on_present(self, row: Row) -> bool:
        """Whether the store still has the version that the row is to replace or delete."""
        if not (row.base or row.sent):
            return False
        self._store.forget(row.path)
        etag = self._etag(row.path)
        return etag == row.base or etag in row.sent.split()

    def _etag(self, path: str) -> str:
        try:
            return self._store.get_metadata(path).get("etag", "")
        except NoSuchFilesytemObjectError:
            return ""

    def _rekey(  # noqa: PLR0913 - one transaction, whatever is to be moved
        self,
        src: str,
        dst: str,
        stored: Held,
        left: Held,
        bases: Bases | None = None,
        *,
        keep: bool,
        replaced: Held = _NONE,
        seen: Sequence[View] = (),
        is_alone: bool = False,
        latest: int = 0,
    ) -> None:
        """Give the rows at and below `src` their place at `dst`, where `stored` has been copied.

        `left` is what of it the store still has at `src`, `replaced` what it has at `dst` where
        nothing has been copied. OvertakenError unless all is as `seen` and, if `is_alone`, nobody
        holds `dst`. What has changed at `dst` after the change `latest`, while the store copied,
        came later: _TakenError.
        """
        there = self._journal.view(dst)
        missing = self._overlay.missing_above(dst)
        links = _Links(self._files, self._room)
        try:
            if keep:
                links.prepare(self._journal.at_and_below(src))
            with self._journal.change() as change:
                for view in seen:
                    change.require(view)
                if is_alone:
                    change.require_unheld(dst)
                change.require_above(there)
                change.make_directories(missing)
                rows = change.at_and_below(src)
                self._require_storable(rows, src, dst)
                copies = [links.of(row) if keep else row for row in rows]
                is_taken = False
                if stored.kind == NOTHING:
                    _replace(change, copies, src, dst, replaced)
                else:
                    _require_copied(rows, src)
                    change.note_done()
                    is_taken = change.forget(dst, until=latest)
                    if not is_taken:
                        _add(change, copies, src, dst, bases or {})
                if not (keep or is_taken):
                    change.vacate(src, left, keep=[row.spool for row in rows if row.spool])
        finally:
            links.complete(self._journal)
        if is_taken:
            raise _TakenError(f"{dst} has just been changed")


class _Links:
    """Second files for the contents of rows that are copied, within the limit of the cache."""

    def __init__(self, files: FileStore, room: Room) -> None:
        self._files = files
        self._room = room
        self._names: dict[str, str] = {}

    def prepare(self, rows: list[Row]) -> None:
        """Make them before the transaction that is to name them, waiting for room."""
        with_content = [row for row in rows if row.spool is not None]
        if not with_content:
            return
        with spool.disk_space(), self._room.ahead() as make_room:
            for row in with_content:
                with suppress(FileNotFoundError):  # sent meanwhile
                    self._link(row, make_room)
        spool.flush(self._files)

    def of(self, row: Row) -> Row:
        """The row with a file of its own."""
        if row.spool is None:
            return row
        if row.spool not in self._names:
            self._link(row, self._room.require_now)
            spool.flush(self._files)
        return row._replace(spool=self._names[row.spool])

    def complete(self, journal: Journal) -> None:
        """Rows of the journal name them now; those that none names are removed."""
        for name in self._names.values():
            spool.settle(self._files, name, is_needed=journal.needs(name))

    def _link(self, row: Row, make_room: Grow) -> None:
        if row.spool is not None:
            self._names[row.spool] = spool.link_content(self._files, row.spool, make_room)


class _TakenError(TransientStoreError):
    """Something else has been put at the destination meanwhile."""


@contextmanager
def _undoing(undo: Callable[[], None], *, replace: bool) -> Iterator[None]:
    """If others were quicker, `undo` what the store has done; without `replace`, look again."""
    try:
        yield
    except (OvertakenError, _TakenError) as error:
        undo()
        if replace:
            raise
        raise OvertakenError(str(error)) from error


def _require_nothing(there: View, held: Held) -> None:
    if kind_of(there, held) != NOTHING:
        raise AlreadyExistsError(f"{there.path} exists")


def _require_copied(rows: list[Row], src: str) -> None:
    """OvertakenError where the store was not what is to be seen at the source by now."""
    if rows and rows[0].path == src and rows[0].hides_below:
        raise OvertakenError(src)


def _replace(change: Change, rows: list[Row], src: str, dst: str, replaced: Held) -> None:
    """Rows alone: what they do not name is not at the destination."""
    top, *below = rows
    change.drop_below(dst)
    change.place(replaced, moved(top, dst))
    for row in below:
        if row.kind != ABSENT:
            change.insert(moved(row, paths.rebase(row.path, src, dst)))


def _add(change: Change, rows: list[Row], src: str, dst: str, bases: Bases) -> None:
    """Rows over a copy of what the store has below them, but where a later change is pending."""
    for row in rows:
        target = paths.rebase(row.path, src, dst)
        if row.path == src or change.has_row(target):
            continue
        carried = moved(row, target, bases.get(row.path, row.base))
        is_overwriting = row.kind == row.held == FILE
        clears = row.held if row.hides_below and not is_overwriting else NOTHING
        change.insert(carried._replace(clears=clears, sent=row.sent, begun=row.begun))
