"""RetryingStore: calls that may succeed later are made again, after a growing pause.

Only TransientStoreError is retried. A call whose answer was lost may have been done: where doing
it twice would show as an error, the second try is judged by what is stored then.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Final, ParamSpec, Self, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from davfusion.stores import paths
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    TransientStoreError,
    seekable,
)
from davfusion.stores.transfer import blocks
from davfusion.stores.wrapper import StoreWrapper

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_PAUSE: Final = 20.0
"""Seconds between two tries, if the service does not wish more."""

_HEARTBEAT: Final = 0.2
"""Seconds after which a pause looks at the interrupt_event again."""


class RetryingStore(StoreWrapper):
    """`store`, with at most `attempts` tries of a call.

    No new try begins later than `total` seconds after the first; a service that wishes
    (`retry_after`) a longer pause than is left gets none. The first pause lasts up to `first`
    seconds, each further one up to twice as long, none more than LONGEST_PAUSE.
    """

    def __init__(
        self,
        store: Store,
        *,
        attempts: int = 6,
        total: float = 60,
        first: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(store)
        self._attempts = attempts
        self._total = total
        self._backoff = wait_random_exponential(multiplier=first, max=LONGEST_PAUSE)
        self._sleep = sleep
        self._clock = clock

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._retrying()(method, *args, **kwargs)

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """A walk that breaks off begins again and leaves out what it has named already."""
        seen: set[str] = set()
        for attempt in self._retrying():
            with attempt:
                for path, metadata in self._store.walk_metadata(paths.check_path(directory)):
                    if path not in seen:
                        seen.add(path)
                        yield path, metadata

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        """A stream that goes on in the same version after its connection broke.

        Without `etag` that costs a stat first.
        """
        version = self.get_metadata(path).get("etag") if etag is None else etag
        stream = self._call(self._store.open_read, path, offset, length, version)

        def reopen(done: int) -> ReadableStream:
            left = None if length is None else length - done
            return self._store.open_read(path, offset + done, left, version)

        return _ResumingStream(stream, reopen, self._call)

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,
    ) -> Metadata:
        """Rewinds a source that can seek for each try; any other is tried once."""
        paths.check_path(path)
        source = seekable(fileobject)
        start = 0 if source is None else source.tell()
        tries = _Tries()

        def store() -> Metadata:
            again = tries.again()
            if again and source is not None:
                source.seek(start)
            try:
                return self._store.store_fileobject(
                    fileobject,
                    path,
                    interrupt_event,
                    if_etag=if_etag,
                    modified=modified,
                    content_type=content_type,
                )
            except ConflictError:
                if not again or source is None:
                    raise
                source.seek(start)
                return self._require_stored(source, path)

        return store() if source is None else self._retrying(interrupt_event)(store)

    def create_directory(self, directory: str) -> None:
        paths.check_path(directory)
        tries = _Tries()

        def create() -> None:
            again = tries.again()
            try:
                self._store.create_directory(directory)
            except AlreadyExistsError:
                if not again or not self._store.is_dir(directory):
                    raise

        self._call(create)

    def move(self, path_to_src: str, path_to_dest: str) -> None:
        paths.check_path(path_to_src)
        paths.check_path(path_to_dest)
        tries = _Tries()

        def move() -> None:
            again = tries.again()
            try:
                self._store.move(path_to_src, path_to_dest)
            except NoSuchFilesytemObjectError:
                if not again or not self._store.exists(path_to_dest):
                    raise

        self._call(move)

    def _require_stored(self, source: SourceStream, path: str) -> Metadata:
        """The metadata of `path` if it holds what `source` holds: then we wrote it before."""
        metadata = self._store.get_metadata(path)
        with self._store.open_read(path, etag=metadata.get("etag")) as stream:
            if _digest(stream) != _digest(source):
                raise ConflictError(f"{path} has been changed")
        return metadata

    def _retrying(self, interrupt_event: InterruptEvent | None = None) -> Retrying:
        deadline = self._clock() + self._total

        def is_last(state: RetryCallState) -> bool:
            late = self._clock() + state.upcoming_sleep > deadline
            return state.attempt_number >= self._attempts or late

        def pause(seconds: float) -> None:
            self._pause(seconds, interrupt_event)

        return Retrying(
            retry=retry_if_exception_type(TransientStoreError),
            stop=is_last,
            wait=self._wait,
            sleep=pause,
            reraise=True,
        )

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        wish = error.retry_after if isinstance(error, TransientStoreError) else None
        return max(self._backoff(state), wish or 0)

    def _pause(self, seconds: float, interrupt_event: InterruptEvent | None) -> None:
        if interrupt_event is None:
            self._sleep(seconds)
            return
        while seconds > 0:
            if interrupt_event.is_set():
                raise InterruptedException("interrupted while waiting for another try")
            self._sleep(min(seconds, _HEARTBEAT))
            seconds -= _HEARTBEAT


class _Tries:
    """Tells the first try of a call from those that follow."""

    def __init__(self) -> None:
        self._begun = False

    def again(self) -> bool:
        """Whether this is not the first try."""
        begun, self._begun = self._begun, True
        return begun


class _ResumingStream:
    """A stream that `reopen`s at its position when it breaks; `call` repeats what fails."""

    def __init__(
        self,
        stream: ReadableStream,
        reopen: Callable[[int], ReadableStream],
        call: Callable[[Callable[[int], bytes], int], bytes],
    ) -> None:
        self._stream: ReadableStream | None = stream
        self._reopen = reopen
        self._call = call
        self._done = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._call(self._read_once, size)
        self._done += len(data)
        return data

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_once(self, size: int) -> bytes:
        if self._stream is None:
            self._stream = self._reopen(self._done)
        try:
            return self._stream.read(size)
        except TransientStoreError:
            self._stream.close()
            self._stream = None
            raise


def _digest(source: SourceStream) -> bytes:
    digest = hashlib.sha256()
    for block in blocks(source):
        digest.update(block)
    return digest.digest()
