"""Sending one row of the journal to the store, and judging what the store says to it."""

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final

from davfusion.cache import conflicts, spool
from davfusion.cache.block_caching_store import BlockCachingStore
from davfusion.cache.filestore import FileStore
from davfusion.cache.outbox import Outbox
from davfusion.cache.pending import (
    DELETIONS,
    DIRECTORY,
    EITHER,
    FILE,
    LARGE,
    NOTHING,
    PARTS_FROM,
    Row,
)
from davfusion.cache.schedule import lane
from davfusion.stores import paths
from davfusion.stores.retry import GivenUpError
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    ReadableStream,
    Store,
    StoreAccessError,
    TransientStoreError,
)
from davfusion.stores.transfer import blocks

logger = logging.getLogger(__name__)

_ONE_BY_ONE: Final = 16
"""Up to so many files of a directory are looked at singly; for more, the directory is listed."""


class Sending:
    """A row that is being sent, as store_resumable wants it; `stop` breaks it off."""

    def __init__(self, row: Row, outbox: Outbox) -> None:
        self.row = row
        self.token = row.token
        self._outbox = outbox
        self._stop = threading.Event()
        self._pause = threading.Event()
        self._sent = 0
        self._lock = threading.Lock()

    def is_set(self) -> bool:
        """Whether it is to be broken off; GivenUpError if what has been sent is still of use."""
        if self._pause.is_set():
            raise GivenUpError("the server is stopping")
        return self._stop.is_set()

    def stop(self) -> None:
        """Break it off: what has been sent is of no use any more."""
        self._stop.set()

    def pause(self) -> None:
        """Break it off, to go on with it after the next start."""
        self._pause.set()

    def begun(self, token: str | None) -> None:
        """As Upload.begun."""
        self.token = token
        self._outbox.keep_token(self.row, token)

    def sent(self, size: int) -> None:
        """As Upload.sent; what is small is not worth a note."""
        with self._lock:
            self._sent += size
            total = self._sent
        if self.row.bytes >= PARTS_FROM:
            self._outbox.note_progress(self.row, total)


class Sender:
    """Sends rows by `store`; `service` is the same store without caches.

    Its methods are called by several threads, for different paths. `reached` is told whether the
    store answered.
    """

    def __init__(
        self,
        store: BlockCachingStore,
        service: Store,
        outbox: Outbox,
        files: FileStore,
        reached: Callable[[bool], None],
    ) -> None:
        self._store = store
        self._service = service
        self._outbox = outbox
        self._files = files
        self._reached = reached

    def send(self, together: Sequence[Sending]) -> None:
        """Send rows, several only of schedule.DELETIONS, and note what came of it.

        Raises sqlite3.Error where it cannot be noted.
        """
        rows = [sending.row for sending in together]
        try:
            if lane(rows[0]) == DELETIONS:
                self._delete_files(rows)
            else:
                self._send(together[0])
            self._reached(True)
        except InterruptedException:
            self._outbox.released(rows)
        except sqlite3.Error:
            raise  # whatever became of it cannot be noted
        except FileNotFoundError as error:
            self._missing(rows[0], error)
        except Exception as error:
            self._note(rows, error)

    def _delete_files(self, rows: Sequence[Row]) -> None:
        """Delete files that are still the versions that were to be deleted."""
        ours = self._unchanged(rows)
        failures: Mapping[str, StoreAccessError] = {}
        try:
            self._store.delete_many([row.path for row in ours])
        except PartialFailureError as error:
            failures = error.failures
        self._outbox.all_done(row for row in ours if row.path not in failures)
        for row in ours:
            if row.path in failures:
                self._note([row], failures[row.path])

    def _note(self, rows: Sequence[Row], error: Exception) -> None:
        """An error after which nothing is lost: the row stays, to be sent again or looked at."""
        if isinstance(error, TransientStoreError):
            logger.info("%s waits: %s", rows[0].path, error)
            self._outbox.postponed(rows, error, error.retry_after)
            self._reached(False)
        elif isinstance(error, StoreAccessError):
            for row in rows:
                logger.error("%s is not stored: %s", row.path, error)
                self._outbox.failed(row, error)
            self._reached(True)
        else:
            logger.error("%s cannot be sent", rows[0].path, exc_info=error)
            self._outbox.postponed(rows, error, None)

    def _missing(self, row: Row, error: FileNotFoundError) -> None:
        if not self._outbox.is_current(row):
            self._outbox.released([row])  # changed meanwhile, so its content has gone
        else:
            logger.error("the content of %s is missing in the spool", row.path)
            self._outbox.failed(row, error)

    def _send(self, sending: Sending) -> None:
        row = sending.row
        if row.kind in (FILE, DIRECTORY) and row.clears != NOTHING:
            try:
                self._clear(row)
            except ConflictError:
                self._set_aside(row)
                return
            row = row._replace(clears=NOTHING, base="")
        if row.kind == FILE:
            self._upload(row, sending)
        elif row.kind == DIRECTORY:
            self._make_directory(row)
        else:
            self._clear(row)
            self._outbox.done(row, None)

    def _clear(self, row: Row) -> None:
        if row.clears == FILE and not self._is_unchanged(row, self._found(row.path)):
            raise ConflictError(f"{row.path} was changed by another program")
        if row.clears in (FILE, EITHER):
            self._store.delete(row.path)
        if row.clears in (DIRECTORY, EITHER):
            self._store.delete(row.path, is_dir=True)
        self._outbox.cleared(row)

    def _upload(self, row: Row, sending: Sending) -> None:
        name = row.spool or ""
        spool.claim(self._files, name)
        if lane(row) == LARGE:
            self._found(row.path)  # before all of it is read for a store that is away
        with spool.open_content(self._files, name, row.bytes) as content:
            _require_sound(row, content, sending)
            try:
                stored = self._store.store_resumable(
                    content,
                    row.path,
                    sending,
                    if_etag=row.base,
                    modified=row.modified,
                    content_type=row.content_type,
                )
            except (ConflictError, NoSuchFilesytemObjectError):
                self._resolve(row)
                return
            except AlreadyExistsError:
                self._set_aside(row)
                return
            self._store.keep(row.path, stored, content)
        self._outbox.done(row, stored)
        if row.begun is not None and row.bytes >= PARTS_FROM:
            # A try whose answer was lost may have left an upload that nobody has a token of.
            self._outbox.abandon(row)

    def _make_directory(self, row: Row) -> None:
        try:
            self._store.create_directory(row.path)
        except AlreadyExistsError:
            self._store.forget(row.path)
            if not self._store.is_dir(row.path):
                self._set_aside(row)
                return
        self._outbox.done(row, None)

    def _resolve(self, row: Row) -> None:
        """The store has not the version that the row was based on."""
        found = self._found(row.path)
        if found is None:
            self._outbox.rebased(row, "")  # gone: there is nothing to be overwritten
        elif not found["is_dir"] and self._is_ours(row, found):
            self._outbox.rebased(row, found.get("etag"))
        else:
            self._set_aside(row)

    def _set_aside(self, row: Row) -> None:
        self._store.forget(row.path)
        copy = conflicts.free_name(row.path, self._is_taken)
        logger.warning("%s was changed by another program: ours is kept as %s", row.path, copy)
        self._outbox.set_aside(row, copy)

    def _is_taken(self, path: str) -> bool:
        return self._outbox.is_pending(path) or self._service.exists(path)

    def _is_ours(self, row: Row, found: Metadata) -> bool:
        """Whether the version in the store is what a try of ours has left there."""
        tried = {*row.sent.split(), row.etag or ""} - {""}
        if not tried or found.get("etag") in tried:
            return bool(tried)
        try:
            with self._service.open_read(row.path, etag=found.get("etag")) as content:
                return _md5(content) in tried
        except (ConflictError, NoSuchFilesytemObjectError) as error:
            raise TransientStoreError(f"{row.path} is being changed by another program") from error

    def _found(self, path: str) -> Metadata | None:
        try:
            return self._service.get_metadata(path)
        except NoSuchFilesytemObjectError:
            return None

    def _unchanged(self, rows: Sequence[Row]) -> list[Row]:
        """The rows whose file is still the one to be deleted, or gone; the others are let go."""
        by_parent: dict[str, list[Row]] = {}
        for row in rows:
            by_parent.setdefault(paths.parent(row.path), []).append(row)
        kept = []
        for directory, members in by_parent.items():
            find = self._listed(directory) if len(members) > _ONE_BY_ONE else self._found
            for row in members:
                try:
                    if self._is_unchanged(row, find(row.path)):
                        kept.append(row)
                        continue
                except StoreAccessError as error:
                    self._note([row], error)
                    continue
                logger.warning("%s was changed by another program, and stays", row.path)
                self._outbox.kept_foreign(row)
                self._store.forget(row.path)
        return kept

    def _is_unchanged(self, row: Row, found: Metadata | None) -> bool:
        """Whether a file that the store has is one that the row may remove."""
        if found is None or found["is_dir"] or row.base in (None, found.get("etag")):
            return True
        return self._is_ours(row, found)

    def _listed(self, directory: str) -> Callable[[str], Metadata | None]:
        """As _found, for the members of a directory."""
        try:
            listing = self._service.get_directory_metadata(directory)
        except NoSuchFilesytemObjectError:
            listing = {}
        return lambda path: listing.get(paths.name(path))


def _require_sound(row: Row, content: BinaryIO, sending: Sending) -> None:
    """StoreAccessError unless the spool still has what was acknowledged.

    The service is sent a digest of what is read here, so it would take damaged bytes for right.
    """
    if _md5(content, sending) != row.etag:
        raise StoreAccessError("its content is damaged in the spool")
    content.seek(0)


def _md5(content: ReadableStream, interrupt_event: InterruptEvent | None = None) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks(content, interrupt_event):
        digest.update(block)
    return digest.hexdigest()
