"""Sending one row of the journal to the store, and judging what the store says to it."""

import io
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import BinaryIO, Final

from davfusion.cache import conflicts, digests, spool
from davfusion.cache.block_caching_store import BlockCachingStore
from davfusion.cache.filestore import FileStore
from davfusion.cache.outbox import Outbox
from davfusion.cache.pending import (
    DELETIONS,
    DIRECTORY,
    FILE,
    LARGE,
    NOTHING,
    PARTS_FROM,
    Row,
)
from davfusion.cache.removal import Removal
from davfusion.cache.schedule import lane
from davfusion.cache.versions import found, our_version
from davfusion.stores.background import BackgroundPool
from davfusion.stores.retry import GivenUpError
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    Metadata,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    Store,
    StoreAccessError,
    TransientStoreError,
)

logger = logging.getLogger(__name__)

IN_MEMORY: Final = 1 << 20
"""Bytes of a content that is read once; what is larger is read again for each purpose."""
CHECKS_AT_ONCE: Final = 2


class Sending:
    """A row that is being sent, as store_resumable wants it; `stop` breaks it off."""

    def __init__(self, row: Row, outbox: Outbox) -> None:
        self.row = row
        self.token = row.token
        self._outbox = outbox
        self._is_stopped = self._is_paused = False
        self._sent = 0
        self.since = time.time()
        self.is_repeated = row.begun is not None
        """Whether a try of it has failed, whose answer may be all that was lost."""
        self._lock = threading.Lock()
        self.may_be_directory = True
        self.check: Future[None] | None = None
        """The check of the content, where that goes on beside the sending."""

    def is_set(self) -> bool:
        """Whether it is to be broken off; GivenUpError if what has been sent is still of use."""
        if self._is_paused:
            raise GivenUpError("the server is stopping")
        return self._is_stopped

    def stop(self) -> None:
        """Break it off: what has been sent is of no use any more."""
        self._is_stopped = True

    def pause(self) -> None:
        """Break it off, to go on with it after the next start."""
        self._is_paused = True

    def confirm(self) -> None:
        """As Upload.confirm: damaged content becomes no file."""
        if self.check is not None:
            self.check.result()

    def begun(self, token: str | None) -> None:
        """As Upload.begun."""
        self.token = token
        self._outbox.keep_token(self.row, token)

    def sent(self, size: int) -> None:
        """As Upload.sent; what is small is not worth a note."""
        with self._lock:
            self._sent += size
            self.is_repeated |= size <= 0
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
        self._removal = Removal(store, service, outbox)
        self._checks = BackgroundPool(CHECKS_AT_ONCE, "check")

    def send(self, together: Sequence[Sending]) -> None:
        """Send rows, several only of schedule.DELETIONS, and note what came of it.

        What is done is noted by Outbox.note_done(). Raises sqlite3.Error where something else
        cannot be noted.
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
        except FileNotFoundError:
            self._missing(rows[0])
        except Exception as error:
            self._note(rows, error)

    def _delete_files(self, rows: Sequence[Row]) -> None:
        """Delete files that are still the versions that were to be deleted."""
        gone, failures = self._removal.delete_files(rows)
        for row in gone:
            self._outbox.done(row, None)
        for row, error in failures:
            self._note([row], error)

    def _note(self, rows: Sequence[Row], error: Exception) -> None:
        """An error after which nothing is lost: the row stays, to be sent again or looked at."""
        if isinstance(error, PartialFailureError):
            error = error.passing or error
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

    def _missing(self, row: Row) -> None:
        if not self._outbox.is_current(row):
            self._outbox.released([row])  # changed meanwhile, so its content has gone
        else:
            self._note([row], StoreAccessError("its content is missing in the spool"))

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
        self._removal.clear(row)
        self._outbox.cleared(row)

    def _upload(self, row: Row, sending: Sending) -> None:
        name = row.spool or ""
        spool.claim(self._files, name)
        sending.may_be_directory = self._store.may_be_directory(row.path)
        with self._sound(row, sending) as content:
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
                self._resolve(row, sending)
                return
            except AlreadyExistsError:
                self._set_aside(row)
                return
            self._store.keep(row.path, stored, content)
        self._stored(row, stored, sending)

    @contextmanager
    def _sound(self, row: Row, sending: Sending) -> Iterator[BinaryIO]:
        """The content, checked: what is small before it is sent, what is large until its end.

        The service is sent a digest of what is read then, so it would take damaged bytes for
        right.
        """
        with spool.open_content(self._files, row.spool or "", row.bytes) as content:
            if row.bytes <= IN_MEMORY:
                held = io.BytesIO(content.read())
                _require_sound(row, held, sending)
                yield held
            elif lane(row) != LARGE:
                _require_sound(row, content, sending)
                yield content
            else:
                sending.check = self._checks.submit(self._check, row, sending)
                try:
                    yield content
                finally:
                    sending.stop()
                    wait([sending.check])

    def _check(self, row: Row, sending: Sending) -> None:
        with spool.open_content(self._files, row.spool or "", row.bytes) as content:
            _require_sound(row, content, sending)

    def _stored(self, row: Row, stored: Metadata, sending: Sending) -> None:
        """A try whose answer was lost may have left an upload that nobody has a token of."""
        if sending.is_repeated and row.bytes >= PARTS_FROM:
            since = row.begun or sending.since
            try:
                self._service.abandon(row.path, None, since)
            except StoreAccessError as error:
                logger.info("an upload of %s may be left: %s", row.path, error)
                self._outbox.abandon(row._replace(begun=since))
        self._outbox.done(row, stored)

    def _make_directory(self, row: Row) -> None:
        try:
            self._store.create_directory(row.path)
        except AlreadyExistsError:
            self._store.forget(row.path)
            if not self._store.is_dir(row.path):
                self._set_aside(row)
                return
        self._outbox.done(row, None)

    def _resolve(self, row: Row, sending: Sending) -> None:
        """The store has not the version that the row was based on."""
        present = found(self._service, row.path)
        if present is None:
            self._outbox.rebased(row, "")  # gone: there is nothing to be overwritten
            return
        ours = None if present["is_dir"] else our_version(self._service, row, present)
        if ours is None:
            self._set_aside(row)
        elif ours == row.etag:
            self._stored(row, present, sending)  # by a try whose answer was lost
        else:
            self._outbox.rebased(row, present.get("etag"))

    def _set_aside(self, row: Row) -> None:
        self._store.forget(row.path)
        copy = conflicts.free_name(row.path, self._is_taken)
        logger.warning("%s was changed by another program: ours is kept as %s", row.path, copy)
        self._outbox.set_aside(row, copy)

    def _is_taken(self, path: str) -> bool:
        return self._outbox.is_pending(path) or self._service.exists(path)


def _require_sound(row: Row, content: BinaryIO, sending: Sending) -> None:
    """StoreAccessError unless the spool still has what was acknowledged."""
    if not digests.matches(content, row.etag or "", sending):
        raise StoreAccessError("its content is damaged in the spool")
    content.seek(0)
