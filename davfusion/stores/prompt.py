"""PromptStore: a question to a service that does not answer ends soon, and the next one at once."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Unpack

from davfusion.stores import paths
from davfusion.stores.background import BackgroundPool
from davfusion.stores.errors import (
    StoreAccessError,
    StoreAwayError,
    TransientStoreError,
    UnreachableError,
)
from davfusion.stores.prompt_streams import BegunStream, BegunWalk, LentSource
from davfusion.stores.store import (
    InterruptEvent,
    Metadata,
    ReadableStream,
    SourceStream,
    Store,
    WriteOptions,
)
from davfusion.stores.streams import transfer_options
from davfusion.stores.unsettled import Unsettled
from davfusion.stores.wrapper import P, R, StoreWrapper

RETRY_AFTER: Final = 5.0
"""Seconds that a client is asked to wait."""

THREADS: Final = 64
"""Calls under way; those left behind end by the SDK's own timeouts."""

PROBED: Final = "/.davfusion-probe"
"""What is listed to learn whether the service answers: any answer will do."""

_log = logging.getLogger(__name__)


class PromptStore(StoreWrapper):
    """`store`, whose answers come within `patience` seconds, or else TransientStoreError.

    That holds for questions, changes, and the beginning of a walk and of a stream; a call that is
    late goes on in a thread of its own, and what it brings is thrown away. Halfway the service is
    asked something small beside it. If it answers that, a change, which may be long, is waited for
    further, as is an upload whose source is being read, and a listing unless all that the service
    says is that it cannot; if not, or when a call raises UnreachableError, the store counts as
    away: calls of every kind raise StoreAwayError at once, while every `pause` seconds the service
    is asked whether it is back. `tell` is called with the reason when the store is found to be
    away, and with None when it answers again. `probed` is the store that is asked for that, without
    retries.

    After a TransientStoreError the service is in doubt until a call has another answer: questions
    go to `probed`, each once, and a change is made only once the service has been asked something
    small; if all it says is that it cannot, that change raises StoreAwayError. So what takes many
    calls fails soon.

    A change that was given up may still be carried out: until that is known, `unsettled` says so,
    and further changes of the same paths raise TransientStoreError. Where it cannot say so, the
    disk being full, the change is waited for.
    """

    def __init__(
        self,
        store: Store,
        unsettled: Unsettled,
        probed: Store,
        patience: float = 4.0,
        pause: float = 2.0,
        tell: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        super().__init__(store)
        self._unsettled = unsettled
        self._probed = probed
        self._patience = patience
        self._pause = pause
        self._tell = tell
        self._pool = BackgroundPool(THREADS, "prompt")
        self._probes = BackgroundPool(THREADS, "probe")  # so that no probe waits for long changes
        self._lock = threading.Lock()
        self._away: str | None = None
        self._is_watched = False
        self._is_in_doubt = False

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._require_presence()
        with self._noticing():
            return method(*args, **kwargs)

    def get_metadata(self, path: str) -> Metadata:
        return self._ask(self._asked.get_metadata, paths.check_path(path))

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        return self._ask_much(self._asked.get_directory_metadata, paths.check_path(directory))

    def get_directory_listing(self, directory: str) -> list[str]:
        return self._ask_much(self._asked.get_directory_listing, paths.check_path(directory))

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        paths.check_path(directory)
        walk = self._ask_much(lambda: BegunWalk(self._asked.walk_metadata(directory)))
        with self._noticing():
            yield from walk

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        paths.check_path(path)

        def begin() -> ReadableStream:
            stream = self._asked.open_read(path, offset, length, etag)
            return BegunStream(stream, self._noticing)

        return self._ask(begin)

    def get_file(self, path: str) -> bytes:
        return Store.get_file(self, path)

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        **options: Unpack[WriteOptions],
    ) -> Metadata:
        """As the contract says; the source is not read any more when this returns."""
        source = LentSource(fileobject)

        def store() -> Metadata:
            return self._store.store_fileobject(source, path, interrupt_event, **options)

        with source:
            return self._change([paths.check_path(path)], store, source.count)

    def delete(self, path: str, is_dir: bool = False) -> None:
        self._change([paths.check_path(path)], lambda: self._store.delete(path, is_dir))

    def delete_many(self, files: Iterable[str]) -> None:
        touched = [paths.check_path(path) for path in files]
        self._change(touched, lambda: self._store.delete_many(touched))

    def create_directory(self, directory: str) -> None:
        touched = [paths.check_path(directory)]
        self._change(touched, lambda: self._store.create_directory(directory))

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        touched = [paths.check_path(path_to_src), paths.check_path(path_to_dest)]
        self._change(
            touched, partial(self._store.duplicate, *touched, **transfer_options(replace=replace))
        )

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        touched = [paths.check_path(path_to_src), paths.check_path(path_to_dest)]
        self._change(
            touched, partial(self._store.move, *touched, **transfer_options(replace=replace))
        )

    def get_free_space(self) -> int | None:
        return self._ask(self._asked.get_free_space)

    def get_used_space(self) -> int | None:
        return self._ask(self._asked.get_used_space)

    def get_overall_space(self) -> int | None:
        return self._ask(self._asked.get_overall_space)

    @property
    def _asked(self) -> Store:
        """What answers questions: the service itself, once each, while it is in doubt."""
        return self._probed if self._is_in_doubt else self._store

    def _ask(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._require_presence()
        answer = self._pool.submit(method, *args, **kwargs)
        if not self._comes(answer, lambda _: False):
            raise self._given_up(answer)
        return self._result(answer)

    def _ask_much(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As _ask, but waits on while the service answers other questions."""
        self._require_presence()
        answer = self._pool.submit(method, *args, **kwargs)
        if not self._comes(answer, _is_served):
            raise self._given_up(answer)
        return self._result(answer)

    def _change(
        self, touched: list[str], method: Callable[[], R], progress: Callable[[], int] = int
    ) -> R:
        """As _ask_much, but waits on while there is `progress` too."""
        self._require_answers()
        self._unsettled.require_none(touched)
        answer = self._pool.submit(method)
        if not self._comes(answer, _is_answered, progress) and self._unsettled.note(
            answer, touched
        ):
            raise self._given_up(answer)
        return self._result(answer)

    def _comes(
        self,
        answer: Future[Any],
        is_waited_for: Callable[[Future[Any]], bool],
        progress: Callable[[], int] = int,
    ) -> bool:
        """Whether `answer` comes before it must be given up; the probe says if it must not be."""
        if _comes(answer, self._patience / 2):
            return True
        while True:
            probe, before = self._probe(), progress()
            if _comes(answer, self._patience / 2):
                return True
            if _is_answered(probe):
                if is_waited_for(probe):
                    continue
                return False
            if probe.done() or progress() == before:
                self._leave(f"{self.get_name()} has not answered for {self._patience:g} s")
                return False

    def _given_up(self, answer: Future[Any]) -> TransientStoreError:
        self._is_in_doubt = True
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
        is_in_doubt = False
        try:
            yield
        except TransientStoreError as error:
            is_in_doubt = True
            if isinstance(error, UnreachableError):
                self._leave(str(error))
            raise
        finally:
            self._is_in_doubt = is_in_doubt

    def _require_presence(self) -> None:
        if (reason := self._away) is not None:
            raise StoreAwayError(reason, retry_after=RETRY_AFTER)

    def _require_answers(self) -> None:
        self._require_presence()
        if not self._is_in_doubt:
            return
        try:
            self._ask(self._probed.get_directory_metadata, PROBED)
        except TransientStoreError as error:
            raise StoreAwayError(str(error), retry_after=RETRY_AFTER) from error
        except StoreAccessError:
            return  # an answer, too

    def _leave(self, reason: str) -> None:
        with self._lock:
            was_there, was_watched = self._away is None, self._is_watched
            self._away, self._is_watched = reason, True
        if was_there:
            _log.warning("%s is away: %s", self.get_name(), reason)
            self._tell(reason)
        if not was_watched:
            threading.Thread(target=self._await_return, name="away", daemon=True).start()

    def _await_return(self) -> None:
        """Have the store asked again for what clients want, once it answers a probe."""
        while True:
            time.sleep(self._pause)
            probe = self._probe()
            probe.add_done_callback(self._return)
            _comes(probe, self._pause)
            with self._lock:
                if self._away is None:
                    self._is_watched = False
                    return

    def _return(self, probe: "Future[object]") -> None:
        """The service has answered, also a probe of long ago."""
        if not _is_answered(probe):
            return
        with self._lock:
            was_away, self._away = self._away, None
        if was_away is not None:
            _log.warning("%s answers again", self.get_name())
            self._tell(None)

    def _probe(self) -> Future[object]:
        return self._probes.submit(self._probed.get_directory_metadata, PROBED)


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


def _is_served(probe: Future[Any]) -> bool:
    """Whether it has said more than that it cannot just now."""
    return probe.done() and not isinstance(probe.exception(), TransientStoreError)


def _throw_away(late: Future[Any]) -> None:
    if late.exception() is None and isinstance(late.result(), BegunStream):
        late.result().close()
