"""A write that turns out larger than the cache: what has been received of it, and then the rest."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from davfusion.cache.notes import Content
from davfusion.stores.store import SourceStream

RATE: Final = 128 << 10
"""Bytes a second that a client can send at least while what has been received goes to the store."""
_PIECE: Final = 2 * RATE
_STEP: Final = 16 << 10
_HELD_UP: Final = 0.5
"""Seconds for a piece; a client that takes longer was not held up, and what waits is to go on."""


class TooLargeError(Exception):
    """A write is larger than the whole cache; `rest` is what of it has been read already."""

    rest: "Parts | None" = None

    @contextmanager
    def begun(self, source: SourceStream) -> Iterator[SourceStream]:
        """All of `source`, from where it was first read."""
        if self.rest is None:
            yield source
            return
        with self.rest as whole:
            yield whole


class Parts:
    """A source in parts, one after the other."""

    def __init__(self, *parts: SourceStream) -> None:
        self._parts = list(parts)

    def read(self, size: int = -1, /) -> bytes:
        """As SourceStream."""
        while not (data := self._parts[0].read(size)) and len(self._parts) > 1 and size:
            self._parts.pop(0)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing is to be given back."""


class Unspooled(Parts):
    """The `size` bytes that were received into the file at `path`, then `block`, then `source`.

    The file is removed as soon as it has been read. That takes as long as the store takes to store
    a whole cache, and a client that cannot send for some 30 s gives up. So `source` is read a
    little meanwhile, into the part of the file that has been read.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        block: bytes,
        source: SourceStream,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._clock = clock
        self._received = Content(path.open("rb"), size)
        self._ahead = _Ahead(path)
        self._source = source
        self._took = clock()
        super().__init__(self._received, io.BytesIO(block), self._ahead, source)

    def read(self, size: int = -1, /) -> bytes:
        if self._parts[0] is self._received:
            self._read_ahead()
        data = super().read(size)
        if self._parts[0] is self._source and not self._received.closed:
            self._remove()
        return data

    def _read_ahead(self) -> None:
        began = self._clock()
        free = self._received.tell() - self._ahead.size
        due = min(free, int((began - self._took) * RATE))
        if due < _PIECE:
            return
        while due > 0 and self._clock() - began < _HELD_UP:
            data = self._source.read(min(due, _STEP))
            self._ahead.add(data)
            due -= len(data) or due
        self._took = self._clock()

    def __exit__(self, *_error: object) -> None:
        self._remove()

    def _remove(self) -> None:
        self._received.close()
        self._ahead.close()
        self._path.unlink(missing_ok=True)


class _Ahead:
    """What is put at the beginning of a file whose beginning is needed no longer, as a source."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._read = self.size = 0

    def add(self, data: bytes) -> None:
        self._file.seek(self.size)
        self._file.write(data)
        self.size += len(data)

    def read(self, size: int = -1, /) -> bytes:
        self._file.seek(self._read)
        left = self.size - self._read
        data = self._file.read(left if size < 0 else min(size, left))
        self._read += len(data)
        return data

    def close(self) -> None:
        self._file.close()
