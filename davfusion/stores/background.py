"""BackgroundPool: threads for calls that need not be waited for to the end."""

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_Task = tuple[Future[Any], Callable[[], Any]]


class _Process:
    """What belongs to one process: no thread survives a fork."""

    def __init__(self) -> None:
        self.id = os.getpid()
        self.lock = threading.Lock()
        self.tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self.idle = threading.Semaphore(0)
        self.threads = 0


class BackgroundPool:
    """At most `size` daemon threads, begun when they are needed.

    Unlike those of a ThreadPoolExecutor they are not joined when the process ends, so a call that
    hangs does not hold it up.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._process = _Process()

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have `function` called by one of the threads, after what was submitted before."""
        process = self._here()
        future: Future[R] = Future()
        process.tasks.put((future, lambda: function(*args, **kwargs)))
        if not process.idle.acquire(blocking=False):
            self._grow(process)
        return future

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """What `function` returns for each item, in their order; all are submitted at once."""
        futures = [self.submit(function, item) for item in items]
        return (future.result() for future in futures)

    def close(self) -> None:
        """End the threads, each after the call it is in, once all that was submitted is begun."""
        process, self._process = self._here(), _Process()
        for _ in range(process.threads):
            process.tasks.put(None)

    def _grow(self, process: _Process) -> None:
        with process.lock:
            if process.threads == self._size:
                return
            process.threads += 1
        try:
            threading.Thread(target=_work, args=[process], name=self._name, daemon=True).start()
        except RuntimeError:  # the system gives no more; those there are do it
            with process.lock:
                process.threads -= 1
            if not process.threads:
                raise

    def _here(self) -> _Process:
        if self._process.id != os.getpid():
            self._process = _Process()
        return self._process


def _work(process: _Process) -> None:
    while (task := _next_task(process)) is not None:
        _carry_out(*task)
        del task  # a thread that waits keeps no result alive


def _next_task(process: _Process) -> _Task | None:
    try:
        return process.tasks.get_nowait()
    except queue.Empty:
        process.idle.release()
        return process.tasks.get()


def _carry_out(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # it is for who waits
        future.set_exception(error)
    else:
        future.set_result(result)
