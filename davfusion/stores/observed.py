"""ObservedStore: counts what is asked of a store."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, ParamSpec, Self, TypeVar, cast

from davfusion.stores import paths
from davfusion.stores.store import Metadata, ReadableStream, Store
from davfusion.stores.wrapper import StoreWrapper

P = ParamSpec("P")
R = TypeVar("R")

_WRITING: Final = frozenset({"store_fileobject", "store_resumable"})


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
            result = method(*args, **kwargs)
        if method.__name__ in _WRITING:
            with self._lock:
                self.bytes_written += cast("Metadata", result)["bytes"]
        return result

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
