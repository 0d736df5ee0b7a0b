"""ObservedStore: counts what is asked of a store."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, Self, TypeVar

from davfusion.stores import paths
from davfusion.stores.store import (
    InterruptEvent,
    Metadata,
    ReadableStream,
    SourceStream,
    Store,
)
from davfusion.stores.wrapper import StoreWrapper

P = ParamSpec("P")
R = TypeVar("R")


class ObservedStore(StoreWrapper):
    """`store`, with counters: calls and failed calls by method, bytes read and written.

    A listing is one call, however the service pages it.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin to count again."""
        with self._lock:
            self.calls: Counter[str] = Counter()
            self.errors: Counter[str] = Counter()
            self.bytes_read = 0
            self.bytes_written = 0

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        with self._observed(method.__name__):
            return method(*args, **kwargs)

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        with self._observed("walk_metadata"):
            yield from self._store.walk_metadata(paths.check_path(directory))

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        return _CountingStream(super().open_read(path, offset, length, etag), self._count_read)

    def get_file(self, path: str) -> bytes:
        content = super().get_file(path)
        self._count_read(len(content))
        return content

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
        metadata = super().store_fileobject(
            fileobject,
            path,
            interrupt_event,
            if_etag=if_etag,
            modified=modified,
            content_type=content_type,
        )
        with self._lock:
            self.bytes_written += metadata["bytes"]
        return metadata

    @contextmanager
    def _observed(self, method: str) -> Iterator[None]:
        with self._lock:
            self.calls[method] += 1
        try:
            yield
        except Exception:
            with self._lock:
                self.errors[method] += 1
            raise

    def _count_read(self, size: int) -> None:
        with self._lock:
            self.bytes_read += size


class _CountingStream:
    """Tells `count` the size of what has been read."""

    def __init__(self, stream: ReadableStream, count: Callable[[int], None]) -> None:
        self._stream = stream
        self._count = count

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._count(len(data))
        return data

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
