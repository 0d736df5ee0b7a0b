"""What is sent: a source that several threads read at different places, at constant memory."""

import hashlib
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from itertools import chain
from tempfile import TemporaryFile
from typing import IO, BinaryIO, Final, TypeVar

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
from davfusion.stores.streams import size_of
from davfusion.stores.transfer import blocks, temporary_space

HELD: Final = 3
"""Parts of a Passing source that are held at once."""
IN_MEMORY: Final = 16 * 1024 * 1024
"""Bytes of a part that is held in memory; a larger one is held in a temporary file."""
SMALL: Final = 256 * 1024
"""Bytes of a source that may be held in memory as a whole, by as many as come at once."""
UNTOLD: Final = sys.maxsize
"""Size of a source that does not tell it, until its last part has been read."""

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
    """A stream on its way, of which only the parts that are being sent are held.

    As nobody can begin anew with it, a part that fails is sent again by `retry`.
    """

    def __init__(
        self,
        pieces: Iterator[bytes],
        size: int,
        interrupt_event: InterruptEvent | None = None,
        retry: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        """`size`: of all `pieces`, or UNTOLD; they are not empty."""
        self.size = size
        self._pieces = pieces
        self._ahead = next(pieces)
        self._interrupt_event = interrupt_event
        self._retry = retry
        self._broken = None
        self._given_up: BaseException | None = None
        self._free = threading.BoundedSemaphore(HELD)
        self._held: dict[int, IO[bytes]] = {}

    def parts(self, ranges: Iterable[Range]) -> Iterator[Range]:
        """As Source.parts; `ranges` are in order, without gaps, and the last is cut to size.

        Raises StoreSpaceLimitError (413) for a stream that goes on behind them.
        """
        end = 0
        for number, start, length in ranges:
            self._free.acquire()
            if self._given_up is not None:
                raise self._given_up
            self._held[start] = part = self._next(length)
            end = start + part.tell()
            if not self._ahead:
                self.size = end
            yield number, start, end - start
            if not self._ahead:
                return
        raise StoreSpaceLimitError(f"larger than {end} bytes", 413)

    def send(self, function: Callable[[Range], R], part: Range) -> R:
        """As Source.send."""
        try:
            return self._retry.retrying(self._interrupt_event)(function, part)
        except BaseException as error:
            self._given_up = error
            raise
        finally:
            self._held.pop(part[1]).close()
            self._free.release()

    def _next(self, length: int) -> IO[bytes]:
        with temporary_space(), ExitStack() as on_failure:
            part: IO[bytes] = BytesIO()
            if length > IN_MEMORY:
                part = on_failure.enter_context(TemporaryFile())
            while self._ahead and (left := length - part.tell()):
                part.write(self._ahead[:left])
                self._ahead = self._ahead[left:] or next(self._pieces, b"")
            part.flush()
            on_failure.pop_all()
        return part

    def _read_at(self, offset: int, size: int) -> bytes:
        self.require_uninterrupted()
        start = max(start for start in list(self._held) if start <= offset)
        part = self._held[start]
        part.seek(offset - start)
        return part.read(size)


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
        for block in self.blocks():
            digest.update(block)
        return digest.digest()

    def crc32(self) -> bytes:
        """As md5; four bytes, the first the highest."""
        checksum = 0
        for block in self.blocks():
            checksum = zlib.crc32(block, checksum)
        return checksum.to_bytes(4)

    def blocks(self) -> Iterator[bytes]:
        """All of the slice from its beginning, where it is again in the end."""
        self.seek(0)
        yield from iter(lambda: self.read(COPY_BUFFER), b"")
        self.seek(0)


def opened(
    fileobject: SourceStream,
    interrupt_event: InterruptEvent | None,
    limit: int,
    threshold: int,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> Source:
    """`fileobject` as a Source of at most `limit` bytes; Passing if it cannot seek.

    But less than `threshold` bytes are read at once. Raises StoreSpaceLimitError (413).
    """
    rewindable = seekable(fileobject)
    source = None if rewindable is None else Source(rewindable, interrupt_event)
    size = size_of(fileobject) if source is None else source.size
    if size is not None and size > limit:
        raise StoreSpaceLimitError(f"larger than {limit} bytes", 413)
    if source is not None:
        return source
    pieces, head = exactly(fileobject, size, interrupt_event), BytesIO()
    for piece in pieces:
        head.write(piece)
        if head.tell() >= threshold:
            begun = chain([head.getvalue()], pieces)
            return Passing(begun, UNTOLD if size is None else size, interrupt_event, retry)
    head.seek(0)
    return Source(head, interrupt_event)


def small(source: SourceStream, interrupt_event: InterruptEvent | None) -> BinaryIO | None:
    """All of a source that says that it is small, in memory; else None, and nothing is read.

    Raises what exactly() does.
    """
    size = size_of(source)
    if size is None or size > SMALL:
        return None
    return BytesIO(b"".join(exactly(source, size, interrupt_event)))


def exactly(
    source: SourceStream, size: int | None, interrupt_event: InterruptEvent | None
) -> Iterator[bytes]:
    """All of `source` in pieces; the last comes only if they are `size` bytes, where that is told.

    So nobody takes what broke off for all. Raises StoreAccessError (400), and what blocks() does.
    """
    received, last = 0, b""
    for block in blocks(source, interrupt_event):
        if last:
            yield last
        last = block
        received += len(block)
        if size is not None and received > size:
            raise StoreAccessError(f"the source is longer than {size} bytes", 400)
    if size not in (None, received):
        raise StoreAccessError(f"the source is shorter than {size} bytes", 400)
    if last:
        yield last
