"""granian's threads, and the clients that they wait for: a slow one holds up nobody for long.

granian gives each request a thread, and waits without an end for the rest of a body.
"""

import io
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from davfusion.http_body import Pace, RequestBodyError

THREADS: Final = 256
"""Requests under way in one worker; each may have a file open beside its connection."""

LEAST: Final = 8
MOST: Final = 32
"""Threads that take requests, besides those that wait for clients. More hinder each other."""

PIECE: Final = 16 * 1024
"""Bytes of a body; granian waits until it has all of a piece, and says nothing meanwhile."""


class Threads:
    """Which of granian's threads take requests.

    granian starts one for each request of a burst, and they never end. Those that are too many to
    work at once rest until others wait for their clients. As a context manager: the calling thread
    waits for its client within the block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: set[int] = set()
        self._answering: set[int] = set()
        self._resting = 0
        self._waiting = 0
        self._needed = threading.Semaphore(0)

    @property
    def _free(self) -> int:
        """Those that work, or are with granian for the next request."""
        return len(self._all) - self._resting - self._waiting

    @property
    def are_all_taken(self) -> bool:
        """Whether none is with granian for the next request, though there may be more."""
        return 0 < len(self._answering) == len(self._all) < THREADS

    def begin(self) -> None:
        """The calling thread has taken a request."""
        self._answering.add(threading.get_ident())
        self._all.add(threading.get_ident())

    def end(self, *, may_rest: bool) -> None:
        """It has answered. Returns when it is to take another request."""
        self._answering.discard(threading.get_ident())
        with self._lock:
            if self._free <= MOST or not may_rest:
                return
            self._resting += 1
        self._needed.acquire()

    def wait(self) -> None:
        """It waits; another may be needed in its place."""
        with self._lock:
            self._waiting += 1
            if self._resting and self._free < LEAST:
                self._resting -= 1
                self._needed.release()

    def go_on(self) -> None:
        """It waits no longer."""
        with self._lock:
            self._waiting -= 1

    def __enter__(self) -> None:
        self.wait()

    def __exit__(
        self, _type: type[BaseException] | None, _error: object, _trace: TracebackType | None, /
    ) -> None:
        self.go_on()


class Awaited:
    """The bodies that are waited for, and until when.

    granian cannot be told to stop waiting. But it ends a connection, and so the wait, over an
    answer that is shorter than announced.
    """

    def __init__(self, threads: Threads, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = threads
        self._clock = clock
        self._until: dict[Any, float] = {}

    def read(self, stream: Any, size: int, protocol: Any, pace: Pace) -> bytes:
        """`size` bytes, fewer where the body ends. Raises RequestBodyError for one that is slow."""
        start = self._clock()
        self._until[protocol] = start + pace.left
        with self._threads:
            data: bytes = stream.read(size)
            seconds = self._clock() - start
        if self._until.pop(protocol, None) is None:
            raise RequestBodyError("the body comes too slowly")
        pace.note(len(data), seconds)
        return data

    def end_late(self) -> None:
        """End the connections whose next piece should have come by now."""
        now = self._clock()
        for protocol, until in self._until.copy().items():
            if until < now and self._until.pop(protocol, 0.0):
                protocol.response_iter(408, [("Content-Length", "1")], iter(()))


class Source:
    """granian's view of a body, which ends where it was cut off."""

    def __init__(self, stream: Any, protocol: Any, awaited: Awaited) -> None:
        self._stream = stream
        self._protocol = protocol
        self._awaited = awaited
        self._pace = Pace()

    def readinto(self, buffer: memoryview, /) -> int:
        size = min(len(buffer), PIECE)
        data = self._awaited.read(self._stream, size, self._protocol, self._pace)
        buffer[: len(data)] = data
        return len(data)

    def readline(self, limit: int, /) -> bytes:  # noqa: ARG002 - of the protocol
        raise io.UnsupportedOperation("granian takes chunks apart")
