"""PromptStore: a question to a service that does not answer ends soon, and the next one at once."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Self

from davfusion.stores import paths
from davfusion.stores.background import BackgroundPool
from davfusion.stores.errors import StoreAwayError, TransientStoreError, UnreachableError
from davfusion.stores.store import Metadata, ReadableStream, Store
from davfusion.stores.wrapper import P, R, StoreWrapper

RETRY_AFTER: Final = 5.0
"""Seconds that a client is asked to wait."""

THREADS: Final = 64
"""Questions under way; those left behind end by the SDK's own timeouts."""

GLANCE: Final = 0.3
"""Seconds that a call waits to see whether a store that was away is back."""

PROBED: Final = "/.davfusion-probe"
"""What is listed to learn whether the service answers: any answer will do."""

_log = logging.getLogger(__name__)


class PromptStore(StoreWrapper):
    """`store`, whose answers come within `patience` seconds, or else TransientStoreError.

    That holds for questions, and for the beginning of a walk and of a stream; a call that is late
    goes on in a thread of its own, and what it brings is thrown away. Halfway the service is asked
    something small beside it. If it answers that, a listing, which may be long, is waited for
    further; if not, or when a call raises UnreachableError, the store counts as away: calls of
    every kind, writes too, raise StoreAwayError at once. Every `pause` seconds a call has it asked
    again whether anyone is there, and waits GLANCE for the answer. Changes and transfers have no
    deadline. `clock` gives seconds. `tell` is called with the reason when the store is found to be
    away, and with None when it answers again.
    """

    def __init__(
        self,
        store: Store,
        patience: float = 4.0,
        pause: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        super().__init__(store)
        self._patience = patience
        self._pause = pause
        self._clock = clock
        self._tell = tell
        self._pool = BackgroundPool(THREADS, "prompt")
        self._lock = threading.Lock()
        self._away: str | None = None
        self._until = 0.0

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._require_presence()
        with self._noticing():
            return method(*args, **kwargs)

    def get_metadata(self, path: str) -> Metadata:
        return self._ask(self._store.get_metadata, paths.check_path(path))

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        return self._ask_much(self._store.get_directory_metadata, paths.check_path(directory))

    def get_directory_listing(self, directory: str) -> list[str]:
        return self._ask_much(self._store.get_directory_listing, paths.check_path(directory))

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        paths.check_path(directory)
        walk = self._ask_much(lambda: _BegunWalk(self._store.walk_metadata(directory)))
        with self._noticing():
            yield from walk

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        paths.check_path(path)

        def begin() -> ReadableStream:
            stream = self._store.open_read(path, offset, length, etag)
            return _BegunStream(stream, self._noticing)

        return self._ask(begin)

    def get_file(self, path: str) -> bytes:
        return Store.get_file(self, path)

    def duplicate(self, path_to_src: str, path_to_dest: str) -> None:
        """As the contract says; also one that is given up may still be carried out."""
        paths.check_path(path_to_dest)
        self._ask_much(self._store.duplicate, paths.check_path(path_to_src), path_to_dest)

    def move(self, path_to_src: str, path_to_dest: str) -> None:
        """As duplicate."""
        paths.check_path(path_to_dest)
        self._ask_much(self._store.move, paths.check_path(path_to_src), path_to_dest)

    def get_free_space(self) -> int | None:
        return self._ask(self._store.get_free_space)

    def get_used_space(self) -> int | None:
        return self._ask(self._store.get_used_space)

    def get_overall_space(self) -> int | None:
        return self._ask(self._store.get_overall_space)

    def _ask(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._require_presence()
        answer = self._pool.submit(method, *args, **kwargs)
        if not _comes(answer, self._patience / 2) and not self._comes_late(answer):
            raise self._given_up(answer)
        return self._result(answer)

    def _ask_much(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As _ask, but waits on while the service answers other questions."""
        self._require_presence()
        answer = self._pool.submit(method, *args, **kwargs)
        if not _comes(answer, self._patience / 2):
            while not self._comes_late(answer):
                if self._away is not None:
                    raise self._given_up(answer)
        return self._result(answer)

    def _comes_late(self, answer: Future[Any]) -> bool:
        """Whether `answer` comes within half of `patience`; if not, the store may be away."""
        probe = self._probe()
        if _comes(answer, self._patience / 2):
            return True
        if not _is_answered(probe):
            self._leave(f"{self.get_name()} has not answered for {self._patience:g} s")
        return False

    def _given_up(self, answer: Future[Any]) -> TransientStoreError:
        if not answer.cancel():
            answer.add_done_callback(_throw_away)
        if self._away is not None:
            return UnreachableError(self._away, retry_after=RETRY_AFTER)
        text = f"{self.get_name()} has not answered this for {self._patience:g} s"
        return TransientStoreError(text, retry_after=RETRY_AFTER)

    def _result(self, answer: Future[R]) -> R:
        with self._noticing():
            return answer.result()

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        """The store counts as away when it turns out not to be reached."""
        try:
            yield
        except UnreachableError as error:
            self._leave(str(error))
            raise

    def _require_presence(self) -> None:
        """Raise StoreAwayError while the store is away; one call a pause has it asked again."""
        with self._lock:
            if self._away is None:
                return
            away = StoreAwayError(self._away, retry_after=RETRY_AFTER)
            now = self._clock()
            if now < self._until:
                raise away
            self._until = now + self._pause
        probe = self._probe()
        probe.add_done_callback(self._return)
        if not (_comes(probe, min(GLANCE, self._patience / 2)) and _is_answered(probe)):
            raise away
        self._return(probe)  # callbacks come after those who wait

    def _return(self, probe: "Future[object]") -> None:
        """Have the store asked again for what clients want, if it has answered the probe."""
        if not _is_answered(probe):
            return
        with self._lock:
            was_away, self._away = self._away, None
        if was_away is not None:
            _log.warning("%s answers again", self.get_name())
            self._tell(None)

    def _leave(self, reason: str) -> None:
        with self._lock:
            was_there = self._away is None
            self._away = reason
            self._until = self._clock() + self._pause
        if was_there:
            _log.warning("%s is away: %s", self.get_name(), reason)
            self._tell(reason)

    def _probe(self) -> Future[object]:
        return self._pool.submit(self._store.get_directory_metadata, PROBED)


class _BegunWalk:
    """A walk whose first member has come."""

    def __init__(self, walk: Iterator[tuple[str, Metadata]]) -> None:
        self._walk = walk
        self._first = list(islice(walk, 1))

    def __iter__(self) -> Iterator[tuple[str, Metadata]]:
        yield from self._first
        yield from self._walk


class _BegunStream:
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


def _comes(answer: Future[Any], seconds: float) -> bool:
    """Whether `answer`, be it an error, is there within `seconds`."""
    try:
        answer.exception(seconds)
    except TimeoutError:
        return False
    return True


def _is_answered(probe: Future[Any]) -> bool:
    """Whether the service has said anything, if only that it has no time."""
    return probe.done() and not isinstance(probe.exception(), UnreachableError)


def _throw_away(late: Future[Any]) -> None:
    if late.exception() is None and isinstance(late.result(), _BegunStream):
        late.result().close()
