"""Prefetcher: has that asked for which clients are about to ask for, one by one."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from davfusion.stores import paths

MISSES: Final = 3
"""Questions about what lies in one place that reach the store before all of it is asked for."""
STATS_WITHIN: Final = 10.0
"""Seconds."""
LISTINGS_WITHIN: Final = 3.0
"""The same; a program opens folders faster one after another than a person does."""
_REMEMBERED: Final = 256


class Prefetcher:
    """Calls `prefetch` with a directory whose listing would have spared several stats.

    A client that copies files into a folder asks for each before it writes it: a listing costs
    about as much as one such question. One file of a large folder is not worth it.

    Calls `walk` with the nearest directory with several at or below it that had to be listed:
    that of a client that walks. It is called again as long as such listings come.
    """

    def __init__(self, prefetch: Callable[[str], None], walk: Callable[[str], None]) -> None:
        self._prefetch = prefetch
        self._walk = walk
        self._stats = _Misses(STATS_WITHIN)
        self._listed = _Misses(LISTINGS_WITHIN)
        self._listings = _Misses(LISTINGS_WITHIN)

    def stat_missed(self, path: str, now: float) -> None:
        """`path` has to be looked up at the store, at `now` in seconds."""
        if path != paths.ROOT and self._stats.add(paths.parent(path), now) == MISSES:
            self._prefetch(paths.parent(path))

    def listing_missed(self, directory: str, now: float) -> None:
        """`directory` has to be listed by the store."""
        if self._listed.add(directory, now) > 1:
            return  # as at a start, when the server asks too, or for a client that polls
        places = [directory, *paths.ancestors(directory)]
        counts = [self._listings.add(place, now) for place in places]
        for place, count in zip(places, counts, strict=True):
            if count >= MISSES:
                self._walk(place)
                return


class _Misses:
    """How many there were for each directory, `within` seconds from the first."""

    def __init__(self, within: float) -> None:
        self._within = within
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, directory: str, now: float) -> int:
        with self._lock:
            since, count = self._counts.pop(directory, (now, 0))
            since, count = (now, 1) if now > since + self._within else (since, count + 1)
            self._counts[directory] = since, count
            if len(self._counts) > _REMEMBERED:
                self._counts.popitem(last=False)
            return count
