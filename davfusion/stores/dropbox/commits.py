"""Making files of upload sessions, many by one request: one commit at a time, as Dropbox has it.

Writes to one Dropbox wait for each other there, and those that come at the same time are refused
(too_many_write_operations; developers.dropbox.com/error-handling-guide). So each waits for the one
before here, and all that have come meanwhile go together.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

from dropbox import files

from davfusion.stores.dropbox.client import Connection
from davfusion.stores.dropbox.errors import dropbox_errors, error_for, tags
from davfusion.stores.store import StoreAccessError

BATCH: Final = 1000
"""Files of one request, the most Dropbox takes."""

LARGE_AT_ONCE: Final = 4
"""Requests on their way that wait for the turn at their end."""
TURN_SECONDS: Final = 20
"""The longest of such a wait: nothing is sent meanwhile, which Dropbox bears for a while only."""

_Waiting = tuple[Any, "Future[Any]"]


class Commits:
    """The commits of one process, by any of its threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._turn = threading.Lock()
        self._late = threading.BoundedSemaphore(LARGE_AT_ONCE)
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []

    @property
    def client(self) -> Any:
        """The SDK's client of this process."""
        return self._connection.client

    @contextmanager
    def turn_if_free(self) -> Iterator[bool]:
        """Whether nobody else writes; if so, nobody does until the block ends."""
        is_free = self._turn.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._turn.release()

    @contextmanager
    def late_turn(self) -> Iterator["LateTurn | None"]:
        """What has the turn until the block ends, once it takes it; None: too many others do so."""
        if not self._late.acquire(blocking=False):
            yield None
            return
        turn = LateTurn(self._turn)
        try:
            yield turn
        finally:
            turn.give_back()
            self._late.release()

    def finish(self, arg: Any) -> Any:
        """The metadata of the file that an UploadSessionFinishArg makes.

        Raises errors of the Store contract; `__cause__` is the SDK's, if Dropbox has refused all.
        """
        mine: Future[Any] = Future()
        with self._lock:
            self._waiting.append((arg, mine))
        while not mine.done():
            with self._turn:
                if not mine.done():
                    self._finish(self._next())
        return mine.result()

    def _next(self) -> list[_Waiting]:
        with self._lock:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            return batch

    def _finish(self, batch: list[_Waiting]) -> None:
        try:
            with dropbox_errors(f"commit of {len(batch)} files"):
                finish = self.client.files_upload_session_finish_batch_v2
                results = finish([arg for arg, _ in batch]).entries
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (arg, future), result in zip(batch, results, strict=True):
            if result.is_success():
                future.set_result(result.get_success())
            else:
                future.set_exception(FinishError(arg.commit.path, tags(result.get_failure())))


class LateTurn:
    """The turn of a request that takes minutes, and commits in its last moment."""

    def __init__(self, turn: threading.Lock) -> None:
        self._turn = turn
        self._is_taken = False

    def take(self) -> None:
        """Return when nobody else writes, or after TURN_SECONDS: Dropbox may refuse it then."""
        self._is_taken = self._is_taken or self._turn.acquire(timeout=TURN_SECONDS)

    def give_back(self) -> None:
        """Let others write, if it was taken."""
        if self._is_taken:
            self._turn.release()
        self._is_taken = False


class FinishError(Exception):
    """Dropbox has refused one file of several; `error` is what that is in the Store contract."""

    def __init__(self, remote: str, found: tuple[str, ...]) -> None:
        super().__init__(remote)
        self.is_lost = "lookup_failed" in found
        """Whether it does not know the session: it is committed already, or too old."""
        self.error: StoreAccessError = error_for(found, f"dropbox:{remote}")


def finish_arg(session_id: str, size: int, commit: Any) -> Any:
    """What makes a file of a session of `size` bytes."""
    return files.UploadSessionFinishArg(files.UploadSessionCursor(session_id, size), commit)
