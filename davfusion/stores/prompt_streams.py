"""What PromptStore lends to and takes from calls that it may give up."""

import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Self

from davfusion.stores.errors import InterruptedException, UnreachableError
from davfusion.stores.retry import given_up
from davfusion.stores.store import Metadata, ReadableStream, SourceStream


class LentSource:
    """A source that counts how often it was read, and is not read any more after its block."""

    def __init__(self, source: SourceStream) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._count = 0
        self._is_lent = True

    def count(self) -> int:
        """How often it was read."""
        return self._count

    def read(self, size: int = -1, /) -> bytes:
        """As SourceStream; raises InterruptedException when it was given back."""
        with self._lock:
            if not self._is_lent:
                raise InterruptedException("the upload was given up")
            try:
                data = self._source.read(size)
            except UnreachableError as error:  # it is another service that is not reached
                raise given_up(error) from error
            self._count += 1
            return data

    def __getattr__(self, name: str) -> Any:
        """What else the source can do, such as to seek."""
        return getattr(self._source, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_lent = False


class BegunWalk:
    """A walk whose first member has come."""

    def __init__(self, walk: Iterator[tuple[str, Metadata]]) -> None:
        self._walk = walk
        self._first = list(islice(walk, 1))

    def __iter__(self) -> Iterator[tuple[str, Metadata]]:
        yield from self._first
        yield from self._walk


class BegunStream:
    """A stream whose first byte has come."""

    def __init__(self, stream: ReadableStream, noticing: Callable[[], Any]) -> None:
        self._stream = stream
        self._noticing = noticing
        try:
            self._first = stream.read(1)
        except BaseException:
            stream.close()
            raise

    def read(self, size: int = -1, /) -> bytes:
        if size == 0:
            return b""
        first, self._first = self._first, b""
        with self._noticing():
            return first + self._stream.read(size - len(first) if size > 0 else size)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
