"""Prefetcher: asks for a directory's listing once its members are asked for one by one."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from davfusion.stores import paths

MISSES: Final = 3
"""Members of one directory that are looked up at the store before all are listed."""
WITHIN: Final = 10.0
"""Seconds."""
_REMEMBERED: Final = 256


class Prefetcher:
    """Calls `prefetch` with a directory whose listing would have spared several calls.

    A client that copies files into a folder asks for each before it writes it: a listing costs
    about as much as one such question. One file of a large folder is not worth it.
    """

    def __init__(self, prefetch: Callable[[str], None]) -> None:
        self._prefetch = prefetch
        self._lock = threading.Lock()
        self._missed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def missed(self, path: str, now: float) -> None:
        """`path` has to be looked up at the store, at `now` in seconds."""
        if path == paths.ROOT:
            return
        directory = paths.parent(path)
        with self._lock:
            since, count = self._missed.pop(directory, (now, 0))
            since, count = (now, 1) if now > since + WITHIN else (since, count + 1)
            self._missed[directory] = since, count
            if len(self._missed) > _REMEMBERED:
                self._missed.popitem(last=False)
        if count == MISSES:
            self._prefetch(directory)
