"""FlakyStore: a service whose calls fail now and then, before, half-way or after they are done."""

import io
from collections.abc import Callable, Iterator
from typing import Literal, cast

from davfusion.stores import paths
from davfusion.stores.store import (
    Metadata,
    ReadableStream,
    SourceStream,
    Store,
    TransientStoreError,
)
from davfusion.stores.wrapper import P, R, StoreWrapper

Fault = Literal["before", "half-way", "after"] | None


class FlakyStore(StoreWrapper):
    """`store`, whose next calls meet `faults`, one each; None is a call that succeeds."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.faults: list[Fault] = []
        self.failed = 0

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        fault = self._next_fault()
        if fault == "half-way" and method.__name__ in ("store_fileobject", "store_resumable"):
            cast("SourceStream", args[0]).read(3)
        if fault in ("before", "half-way"):
            raise self._failure(fault)
        result = method(*args, **kwargs)
        if fault is not None:
            raise self._failure(fault)
        return result

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        fault = self._next_fault()
        if fault == "before":
            raise self._failure(fault)
        for number, found in enumerate(self._store.walk_metadata(paths.check_path(directory))):
            if fault == "half-way" and number == 2:
                raise self._failure(fault)
            yield found
        if fault == "after":
            raise self._failure(fault)

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        if self.faults[:1] != ["half-way"]:
            return super().open_read(path, offset, length, etag)
        fault = self._next_fault()
        with self._store.open_read(path, offset, length, etag) as stream:
            return _Breaking(stream.read(3), self._failure(fault))

    def _next_fault(self) -> Fault:
        return self.faults.pop(0) if self.faults else None

    def _failure(self, fault: Fault) -> TransientStoreError:
        self.failed += 1
        return TransientStoreError(f"the connection broke {fault} the call")


class _Breaking(io.BytesIO):
    """A stream whose connection breaks at its end."""

    def __init__(self, content: bytes, failure: TransientStoreError) -> None:
        super().__init__(content)
        self._failure = failure

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise self._failure
        return data
