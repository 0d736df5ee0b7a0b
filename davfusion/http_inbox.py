"""What has come in on a connection: request heads without waiting for them, bodies at a least rate.

A head is gathered while the connection waits among the idle ones, so that one which is half sent
costs a little memory and no thread. Only bodies are waited for.
"""

import re
import socket
import ssl
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from davfusion.http_body import Pace

MAX_HEADER_BYTES: Final = 64 * 1024

_HEAD_END = re.compile(rb"\r\n\r\n|(?<!\r)\n")
"""The empty line, or a line end that is malformed: then there is nothing to wait for."""
_NO_METHOD = re.compile(rb"[^\r\n!-~]")
"""How no request begins; but TLS does, where it is not spoken."""

SHORT: Final = 4 * 1024
"""Bytes of a request that asks for something; what is longer brings something."""

_PIECE: Final = 16 * 1024
_DROPPED_PIECE: Final = 256 * 1024
_MARGIN: Final = 1024
"""Heads are refused by a reader that asks for up to 256 bytes beyond MAX_HEADER_BYTES."""


class Inbox:
    """The reading side of a connection, as cheroot's `rfile`; used by one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.closed = False
        self.is_over = False
        """Whether nothing can be read any more: the client has ended, or is not understood."""
        self.problem: OSError | None = None
        """Why the connection is over, if not by the client's wish."""
        self.began: float | None = None
        """When the head began (time.time) that is not whole yet; a TLS handshake belongs to it."""
        self.waiting: AbstractContextManager[object] = nullcontext()
        """Entered while a thread waits for the client."""
        self._socket = sock
        self._buffer = bytearray()
        self._searched = 0
        self._least = 0
        self._pace = Pace()
        self.beginning: bytes | None = None
        """What look() gave."""
        self._seen: bytes | None = None
        self._is_dropping = False
        self._handshake = sock.do_handshake if isinstance(sock, ssl.SSLSocket) else None
        if self._handshake:
            self.began = time.time()

    @property
    def is_spent(self) -> bool:
        """Whether there is nothing to read and nothing to wait for."""
        return self.is_over and not self._buffer

    def has_data(self) -> bool:
        """Take in what has come; whether a thread can go on without waiting for the client.

        True also at the end of the connection, and for a head that is too large or malformed.
        Leaves the socket without a timeout: wait() before anything else is done with it.
        """
        self._socket.settimeout(0)
        try:
            while not (self.is_over or self._has_head()):
                self._take_in()
                if self._is_dropping:
                    return self.is_over
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError as error:
            self.is_over, self.problem = True, error
        return True

    def _has_head(self) -> bool:
        if len(self._buffer) < self._least:
            return False
        if _HEAD_END.search(self._buffer, max(0, self._searched - 3)):
            return True
        self._searched = len(self._buffer)
        return self._searched > MAX_HEADER_BYTES + _MARGIN

    def _take_in(self) -> None:
        if self._handshake:
            self._handshake()
            self._handshake = self.began = None
            return
        data = self._socket.recv(_DROPPED_PIECE if self._is_dropping else _PIECE)
        self.is_over = not data
        if not self._is_dropping:
            self._buffer += data
            self.is_over |= _NO_METHOD.match(self._buffer) is not None
        if data and self.began is None:
            self.began = time.time()

    def look(self) -> bytes | None:
        """All that has come and was not read yet; None where that is more than SHORT bytes."""
        self.beginning = bytes(self._buffer) if len(self._buffer) <= SHORT else None
        self._seen = self.beginning
        return self.beginning

    @property
    def seen(self) -> bytes | None:
        """What look() gave and what came after it, if all of that has been read; None if not."""
        return None if self._buffer else self._seen

    def expect_more(self) -> None:
        """has_data() is to wait for more than has come by now."""
        self._least = len(self._buffer) + 1

    def skip(self) -> None:
        """Drop what look() gave."""
        self._consume(len(self._buffer))

    def is_drained(self) -> bool:
        """Whether the socket shows all that will come; TLS may hold more than it shows."""
        if not isinstance(self._socket, ssl.SSLSocket) or not self.has_data():
            return True
        self.look()  # what has come now is another question
        return False

    def wait(self, seconds: float) -> None:
        """From now on, reading and writing wait for the client, at most this long for a piece."""
        self._socket.settimeout(seconds)

    def begin_body(self) -> None:
        """What is read from now on is another body."""
        self._pace = Pace()

    def hurry(self, seconds: float) -> None:
        """The rest of the body is waited for no longer than this."""
        self._pace = Pace(seconds, rate=float("inf"))
        self._socket.settimeout(seconds)

    def drop(self) -> None:
        """Whatever comes from now on is thrown away, by has_data."""
        self._buffer.clear()
        self._is_dropping, self.began = True, time.time()

    def end(self) -> None:
        """Nothing is read any more, and what has come is dropped."""
        self._buffer.clear()
        self.is_over, self.began = True, None

    def readinto(self, buffer: memoryview, /) -> int:
        """At least one byte, 0 at the end. Raises OSError, and RequestBodyError for a slow body."""
        if not self._buffer:
            return self._receive_into(buffer)
        data = self._consume(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readline(self, limit: int, /) -> bytes:
        """Up to a line end or `limit` bytes; less at the end of the connection. Raises as above."""
        while (end := self._buffer.find(b"\n", 0, limit)) < 0 and len(self._buffer) < limit:
            if self.is_over:
                break
            piece = memoryview(bytearray(_PIECE))
            count = self._receive_into(piece)
            if not count:
                break
            self._buffer += piece[:count]
        return self._consume(limit if end < 0 else end + 1)

    def _receive_into(self, buffer: memoryview) -> int:
        start = time.monotonic()
        with self.waiting:
            count = self._socket.recv_into(buffer)
        if self._seen is not None:
            is_short = len(self._seen) + count <= SHORT
            self._seen = self._seen + buffer[:count] if is_short else None
        self._pace.note(count, time.monotonic() - start)
        return count

    def _consume(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._searched, self._least, self.began = 0, 0, None
        return data

    def close(self) -> None:
        """cheroot closes the socket itself."""
        self.closed = True
