"""A request's body as a stream that ends only where the body really ends.

What is cut off or malformed raises RequestBodyError and never looks like the end of the body.
Bodies are read from the socket straight into the reader's buffer; no chunk is held in memory.
"""

import io
import re
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, Protocol

BUFFER: Final = 64 * 1024
MAX_TRAILERS: Final = 16 * 1024
"""Bytes of trailer lines after the last chunk; they are read and ignored."""

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")


class RequestBodyError(ValueError):
    """The body broke off, is malformed, or did not come in time."""


class Pace:
    """How long a client may keep a thread waiting for a body.

    It may pause for `pause` seconds in all; every `rate` bytes win one of them back. So a body that
    keeps to the rate may be as long as it likes, and one that trickles ends soon.
    """

    def __init__(self, pause: float = 60.0, *, rate: float = 1024.0) -> None:
        self._pause = self._left = pause
        self._rate = rate

    @property
    def left(self) -> float:
        """Seconds that it may pause now."""
        return self._left

    def note(self, count: int, seconds: float) -> None:
        """`count` bytes came after this long; raises RequestBodyError when that was too slow."""
        self._left -= seconds
        if self._left < 0:
            raise RequestBodyError("the body comes too slowly")
        self._left = min(self._pause, self._left + count / self._rate)


class Source(Protocol):
    """The bytes of the connection, after the headers; raises OSError and RequestBodyError."""

    def readinto(self, buffer: memoryview, /) -> int: ...
    def readline(self, limit: int, /) -> bytes: ...


class Body(io.RawIOBase):
    """The part that both framings share; `input()` is what an application reads.

    `before_read` is called once, before the first byte is taken from the connection.
    """

    def __init__(self, source: Source, before_read: Callable[[], None]) -> None:
        self._source = source
        self._before_read: Callable[[], None] | None = before_read
        self._error: RequestBodyError | None = None
        self._left = 0

    @property
    @abstractmethod
    def is_at_end(self) -> bool:
        """Whether all of the body has been taken from the connection."""

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has been asked for yet."""
        return self._before_read is not None

    def input(self) -> io.BufferedReader:
        """The stream for `wsgi.input`: read(n) gives n bytes unless the body ends before."""
        return io.BufferedReader(self, BUFFER)

    def drain(self, limit: int) -> bool:
        """Take what is left and drop it, at most `limit` bytes; whether the end was reached."""
        buffer = memoryview(bytearray(BUFFER))
        try:
            while limit > 0 and not self.is_at_end:
                limit -= self.readinto(buffer)
        except RequestBodyError:
            return False
        return self.is_at_end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Some of the body; 0 at its end. Raises RequestBodyError, and again when asked again."""
        if self._error:
            raise self._error
        try:
            return 0 if self.is_at_end else self._take(memoryview(buffer))
        except OSError as error:
            self._error = RequestBodyError(f"the body was cut off: {error}")
            raise self._error from error
        except RequestBodyError as error:
            self._error = error
            raise

    def _take(self, view: memoryview) -> int:
        if self._before_read:
            before, self._before_read = self._before_read, None
            before()
        return self._fill(view)

    def _fill(self, view: memoryview) -> int:
        """Bytes of the piece under way, at least one."""
        count = self._source.readinto(view[: self._left])
        if count == 0:
            raise RequestBodyError("the connection ended within the body")
        self._left -= count
        return count


class LengthBody(Body):
    """A body of a length announced by Content-Length."""

    def __init__(self, source: Source, length: int, before_read: Callable[[], None]) -> None:
        super().__init__(source, before_read)
        self._left = length

    @property
    def is_at_end(self) -> bool:
        return self._left == 0


class ChunkedBody(Body):
    """A body in chunks (RFC 9112 section 7.1)."""

    _is_done = False

    @property
    def is_at_end(self) -> bool:
        return self._is_done

    def _fill(self, view: memoryview) -> int:
        if self._left == 0:
            self._left = self._chunk_size()
            if self._left == 0:
                self._skip_trailers()
                self._is_done = True
                return 0
        count = super()._fill(view)
        if self._left == 0 and self._source.readline(2) != b"\r\n":
            raise RequestBodyError("a chunk does not end where its size says")
        return count

    def _chunk_size(self) -> int:
        match = _CHUNK_LINE.fullmatch(self._source.readline(1024))
        if not match:
            raise RequestBodyError("malformed chunk size, or the connection ended before it")
        return int(match[1], 16)

    def _skip_trailers(self) -> None:
        left = MAX_TRAILERS
        while (line := self._source.readline(left)) != b"\r\n":
            left -= len(line)
            if left <= 0 or not line.endswith(b"\r\n"):
                raise RequestBodyError("malformed lines after the last chunk")
