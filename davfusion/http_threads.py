"""The threads of one worker's HTTP server: those that wait for a slow client get a substitute."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from cheroot.workers import threadpool
from cheroot.workers.threadpool import ThreadPool

THREADS: Final = 16
"""Requests that one worker serves at a time, besides those that wait for their clients."""

MOST_THREADS: Final = 256

_END: Final[object] = vars(threadpool)["_SHUTDOWNREQUEST"]  # what a thread ends at


class Threads(ThreadPool):
    """As cheroot's pool, whose every thread a client could hold up for as long as it likes.

    As a context manager: the calling thread waits for its client within the block. There are
    THREADS besides those that wait, while any connection is in the queue, and MOST_THREADS in all.
    """

    _threads: list[threading.Thread]  # as cheroot has them, whose stubs leave them out
    _queue: queue.Queue[object]
    _spawn_worker: Callable[[], threading.Thread]
    min: int
    max: int

    def __init__(self, server: object) -> None:
        super().__init__(server, min=THREADS, max=MOST_THREADS)
        self.get = self._next
        self._changing = threading.Lock()
        self._waiting: set[int] = set()

    def __enter__(self) -> None:
        self._waiting.add(threading.get_ident())
        self._substitute()

    def __exit__(
        self, _type: type[BaseException] | None, _error: object, _trace: TracebackType | None, /
    ) -> None:
        self._waiting.discard(threading.get_ident())

    def put(self, obj: object) -> None:
        """Have a thread take the connection."""
        super().put(obj)
        self._substitute()

    @property
    def _spare(self) -> int:
        return len(self._threads) - len(self._waiting) - self.min

    def _substitute(self) -> None:
        if self._spare >= 0 or self._queue.empty():
            return
        with self._changing:
            if self._threads and self._spare < 0 and len(self._threads) < self.max:
                self._threads.append(self._spawn_worker())

    def _next(self) -> Any:
        """What the thread that asks is to do next; it is to end if it is not needed any more."""
        if self._spare > 0 and self._queue.empty():
            with self._changing:
                if self._spare > 0 and threading.current_thread() in self._threads:
                    self._threads.remove(threading.current_thread())
                    return _END
        taken = self._queue.get()
        if taken is _END:  # of stop(), for each thread there was; some may have come since
            self._queue.put(_END)
        return taken
