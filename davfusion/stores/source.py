"""What is sent: a source that several threads read at different places, at constant memory."""

import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import BinaryIO, Final, TypeVar, cast

from davfusion.stores.retry import DEFAULT_POLICY, RetryPolicy
from davfusion.stores.store import (
    COPY_BUFFER,
    InterruptedException,
    InterruptEvent,
    SourceStream,
    StoreAccessError,
    StoreSpaceLimitError,
    seekable,
)
from davfusion.stores.transfer import blocks, temporary_space

HELD: Final = 3
"""Parts of a Passing source that are in memory at once."""
NO_SIZE: Final = range(0)

R = TypeVar("R")
Range = tuple[int, int, int]
"""Number of a part, its first byte, its length."""


class Source:
    """The rest of a seekable file, readable at any offset by any thread.

    What its `read` raises is kept, since an HTTP library that reads it wraps the exception.
    """

    def __init__(self, fileobject: BinaryIO, interrupt_event: InterruptEvent | None = None) -> None:
        self._file = fileobject
        self._interrupt_event = interrupt_event
        self._lock = threading.Lock()
        self._broken: BaseException | None = None
        self._start = fileobject.tell()
        self.size = fileobject.seek(0, os.SEEK_END) - self._start
        fileobject.seek(self._start)

    def read_at(self, offset: int, size: int) -> bytes:
        """Between 1 and `size` bytes from `offset`.

        Raises InterruptedException, and StoreAccessError when the file became shorter.
        """
        try:
            return self._read_at(offset, size)
        except BaseException as error:
            self._broken = error
            raise

    def parts(self, ranges: Iterable[Range]) -> Iterator[Range]:
        """Each of `ranges` when it may be read, to be given to send() in any thread."""
        yield from ranges

    def send(self, function: Callable[[Range], R], part: Range) -> R:
        """What `function`, which reads a part and sends it, returns."""
        return function(part)

    def require_uninterrupted(self) -> None:
        """Raise InterruptedException once the caller's event is set."""
        if self._interrupt_event is not None and self._interrupt_event.is_set():
            raise InterruptedException("interrupted while storing")

    def _read_at(self, offset: int, size: int) -> bytes:
        self.require_uninterrupted()
        with self._lock:
            self._file.seek(self._start + offset)
            data = self._file.read(size)
        if not data:
            raise StoreAccessError("the source became shorter while it was sent")
        return data

    @contextmanager
    def unwrapped(self) -> Iterator[None]:
        """Raise what the source itself raised instead of what a library made of it."""
        try:
            yield
        except Exception:
            if self._broken is not None:
                raise self._broken from None
            raise


class Passing(Source):
    """A stream of `size` bytes on its way, of which only the parts that are being sent are held.

    As nobody can begin anew with it, a part that fails is sent again by `retry`.
    """

    def __init__(
        self,
        stream: SourceStream,
        size: int,
        interrupt_event: InterruptEvent | None = None,
        retry: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        self.size = size
        self._stream = stream
        self._interrupt_event = interrupt_event
        self._retry = retry
        self._broken = None
        self._free = threading.BoundedSemaphore(HELD)
        self._held: dict[int, bytearray] = {}

    def parts(self, ranges: Iterable[Range]) -> Iterator[Range]:
        """As Source.parts; `ranges` are in order, without gaps."""
        for number, start, length in ranges:
            self._free.acquire()
            self._held[start] = self._next(length)
            if start + length == self.size and self._stream.read(1):
                raise StoreAccessError(f"the source is longer than {self.size} bytes", 400)
            yield number, start, length

    def send(self, function: Callable[[Range], R], part: Range) -> R:
        """As Source.send."""
        try:
            return self._retry.call(function, part)
        finally:
            del self._held[part[1]]
            self._free.release()

    def _next(self, length: int) -> bytearray:
        data = bytearray()
        while len(data) < length:
            self.require_uninterrupted()
            block = self._stream.read(min(COPY_BUFFER, length - len(data)))
            if not block:
                raise StoreAccessError(f"the source is shorter than {self.size} bytes", 400)
            data += block
        return data

    def _read_at(self, offset: int, size: int) -> bytes:
        self.require_uninterrupted()
        start = max(start for start in list(self._held) if start <= offset)
        return bytes(memoryview(self._held[start])[offset - start : offset - start + size])


class Slice:
    """`length` bytes of a Source from `start`, as the file that an HTTP library sends."""

    def __init__(self, source: Source, start: int, length: int) -> None:
        self._source = source
        self._start = start
        self._length = length
        self._position = 0

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes; None or negative: all the rest."""
        left = self._length - self._position
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(COPY_BUFFER), b""))
        wanted = min(size, left)
        data = self._source.read_at(self._start + self._position, wanted) if wanted else b""
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the slice."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position within the slice."""
        return self._position

    def md5(self) -> bytes:
        """The digest of the whole slice, which is then back at its beginning."""
        digest = hashlib.md5(usedforsecurity=False)
        for block in self._blocks():
            digest.update(block)
        return digest.digest()

    def crc32(self) -> bytes:
        """As md5; four bytes, the first the highest."""
        checksum = 0
        for block in self._blocks():
            checksum = zlib.crc32(block, checksum)
        return checksum.to_bytes(4)

    def _blocks(self) -> Iterator[bytes]:
        self.seek(0)
        yield from iter(lambda: self.read(COPY_BUFFER), b"")
        self.seek(0)


@contextmanager
def opened(
    fileobject: SourceStream,
    interrupt_event: InterruptEvent | None,
    limit: int,
    passing: range = NO_SIZE,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> Iterator[Source]:
    """`fileobject` as a Source of at most `limit` bytes; what cannot seek is spooled to disk.

    But where it tells its size, and that is one of `passing`, it is Passing. Raises
    StoreSpaceLimitError: with status 413, or where the disk of temporary files is full.
    """
    rewindable = seekable(fileobject)
    if rewindable is not None:
        yield _limited(Source(rewindable, interrupt_event), limit)
        return
    size: int | None = getattr(fileobject, "size", None)
    if size is not None and size in passing:
        yield _limited(Passing(fileobject, size, interrupt_event, retry), limit)
        return
    with temporary_space(), TemporaryFile() as spool:
        for block in blocks(fileobject, interrupt_event):
            spool.write(block)
            if spool.tell() > limit:
                break
        spool.seek(0)
        yield _limited(Source(cast(BinaryIO, spool), interrupt_event), limit)


def _limited(source: Source, limit: int) -> Source:
    if source.size > limit:
        raise StoreSpaceLimitError(f"larger than {limit} bytes", 413)
    return source
