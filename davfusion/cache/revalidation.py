"""Revalidator: questions to the store that nobody waits for."""

import logging
import threading
from collections.abc import Callable, Hashable
from typing import Final, Protocol

from davfusion.stores.background import BackgroundPool
from davfusion.stores.errors import StoreAccessError

THREADS: Final = 4

_log = logging.getLogger(__name__)


class Submit(Protocol):
    """Has a function called some time, as an Executor's `submit` does."""

    def __call__(self, function: Callable[[], None], /) -> object: ...


class Revalidator:
    """Asks again in the background what has been answered from old knowledge.

    `submit` None: threads of its own, which close() ends.
    """

    def __init__(self, submit: Submit | None = None) -> None:
        self._pool = BackgroundPool(THREADS, "revalidate")
        self._submit = submit or self._pool.submit
        self._lock = threading.Lock()
        self._under_way: set[Hashable] = set()
        self._closed = False

    def ask(self, key: Hashable, question: Callable[[], object]) -> None:
        """Have `question` asked, unless one of that key is under way; its errors mean nothing."""
        with self._lock:
            if self._closed or key in self._under_way:
                return
            self._under_way.add(key)

        def run() -> None:
            try:
                if not self._closed:
                    question()
            except StoreAccessError as error:
                _log.debug("not revalidated: %s", error)
            finally:
                with self._lock:
                    self._under_way.discard(key)

        self._submit(run)

    def close(self) -> None:
        """Ask nothing more."""
        self._closed = True
        self._pool.close()
