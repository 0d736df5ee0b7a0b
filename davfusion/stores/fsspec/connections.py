"""Connections to one service: each is one thread's while it is lent."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from davfusion.stores.errors import TransientStoreError
from davfusion.stores.fsspec.backend import Backend
from davfusion.stores.fsspec.errors import SourceFailed, backend_errors, store_error
from davfusion.stores.store import ReadableStream

IDLE = 8
"""Connections that are kept for later."""


class Connections:
    """Lends the backends that `connect` makes, and keeps those that were given back.

    There is no limit to those lent, since who reads from one may need another to write. They are
    made one at a time: an SSH server refuses a crowd of newcomers (sshd's MaxStartups).
    """

    def __init__(self, connect: Callable[[], Backend]) -> None:
        self._connect = connect
        self._idle: list[Backend] = []
        self._lock = threading.Lock()
        self._connecting = threading.Lock()

    @contextmanager
    def lent(self, path: str) -> Iterator[Backend]:
        """A backend for what concerns `path`; its errors become those of the contract."""
        try:
            with backend_errors(path), self._lent(path) as backend, backend.serialized:
                yield backend
        except SourceFailed as failed:
            raise failed.error from None

    @contextmanager
    def _lent(self, path: str) -> Iterator[Backend]:
        backend = self._take()
        is_sound = True
        try:
            yield backend
        except Exception as error:
            is_sound = not is_passing(error, path)
            raise
        finally:
            self.give_back(backend, is_sound)

    def opened(self, path: str, open_stream: Callable[[Backend], ReadableStream]) -> ReadableStream:
        """A stream that has its backend to itself until it is closed."""
        with backend_errors(path):
            backend = self._take()
            try:
                with backend.serialized:
                    return _LentStream(open_stream(backend), backend, path, self)
            except Exception as error:
                self.give_back(backend, not is_passing(error, path))
                raise

    def give_back(self, backend: Backend, is_sound: bool) -> None:
        """Keep a backend for later; one that is not sound is closed, with all that lie idle.

        A server that has gone has closed those too.
        """
        if backend.shared:
            return
        with self._lock:
            is_kept = is_sound and len(self._idle) < IDLE
            if is_kept:
                self._idle.append(backend)
        if not is_kept:
            backend.close()
        if not is_sound:
            self.close()

    def close(self) -> None:
        """Close what lies idle; what is lent stays in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for backend in idle:
            backend.close()

    def _take(self) -> Backend:
        return self._idle_or_none() or self._new()

    def _idle_or_none(self) -> Backend | None:
        with self._lock:
            if not self._idle:
                return None
            return self._idle[-1] if self._idle[-1].shared else self._idle.pop()

    def _new(self) -> Backend:
        with self._connecting:
            backend = self._idle_or_none()
            if backend is None:
                backend = self._connect()
                if backend.shared:
                    self._idle.append(backend)
        return backend


class _LentStream:
    """A stream whose end gives its backend back."""

    def __init__(
        self, stream: ReadableStream, backend: Backend, path: str, connections: Connections
    ) -> None:
        self._stream = stream
        self._backend: Backend | None = backend
        self._path = path
        self._connections = connections
        self._is_sound = True

    def read(self, size: int = -1, /) -> bytes:
        with backend_errors(self._path):
            try:
                return self._stream.read(size)
            except Exception as error:
                self._is_sound = not is_passing(error, self._path)
                raise

    def close(self) -> None:
        backend, self._backend = self._backend, None
        if backend is None:
            return
        try:
            with backend_errors(self._path):
                self._stream.close()
        except TransientStoreError:  # what was read has come
            self._is_sound = False
        self._connections.give_back(backend, self._is_sound)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def is_passing(error: Exception, path: str) -> bool:
    """Whether `error` may pass, and the connection that met it is not to be used again."""
    return isinstance(error, TransientStoreError) or isinstance(
        store_error(error, path), TransientStoreError
    )
