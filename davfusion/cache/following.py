"""Following a store's feed: what others change is forgotten, so that it is asked for again."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from davfusion.cache.entry import ABSENT, DIRECTORY, FILE, Entry
from davfusion.cache.listings import ListingTable
from davfusion.stores import paths
from davfusion.stores.feed import Feed
from davfusion.stores.spelling import canonical, fold
from davfusion.stores.store import (
    InterruptEvent,
    Metadata,
    Store,
    StoreAccessError,
    TransientStoreError,
)

GATHER: Final = 0.5
"""Seconds in which further changes come to be read with the first, and our own are noted."""
_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds after a failure: the first, and one of many."""

_log = logging.getLogger(__name__)


class Follower:
    """Keeps `listings` in step with the feed of `store`; one for all processes of a share.

    `note` is the file in which the feed's position is kept, so that what changes while no server
    runs is seen by the next. `sleep` and `clock` are about seconds.
    """

    def __init__(
        self,
        store: Store,
        listings: ListingTable,
        note: Path,
        sleep: Callable[[float], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._listings = listings
        self._note = note
        self._sleep = sleep
        self._clock = clock

    def run(self, stop: InterruptEvent) -> None:
        """Return when `stop` is set and the request under way is answered, or without a feed."""
        feed = self._store.feed(self._position())
        pause = _PAUSE
        while feed is not None and not stop.is_set():
            try:
                self.step(feed)
                pause = _PAUSE
            except (StoreAccessError, OSError) as error:
                level = logging.INFO if isinstance(error, TransientStoreError) else logging.WARNING
                _log.log(level, "changes of others show later: %s", error)
                self._sleep(max(pause, getattr(error, "retry_after", None) or 0))
                pause = min(2 * pause, _LONGEST_PAUSE)

    def step(self, feed: Feed) -> None:
        """Wait for changes, and forget what is not known as it is now."""
        if not feed.wait():
            return
        self._sleep(GATHER)
        self.learn(feed.read())
        self._note.write_text(feed.position, "utf-8")

    def learn(self, changes: Mapping[str, Metadata | None] | None) -> None:
        """Forget what is told otherwise than it is known, for all processes; all of it for None."""
        changed = [paths.ROOT] if changes is None else list(self._changed(changes))
        if changed:
            self._listings.forget(changed, self._clock())

    def _changed(self, changes: Mapping[str, Metadata | None]) -> Iterator[str]:
        for path, now in changes.items():
            known_as = canonical(path, lambda _: False, self._known_names)
            if path != known_as or not self._is_known(known_as, now):
                yield known_as

    def _is_known(self, path: str, now: Metadata | None) -> bool:
        """Whether what is known of `path` is what there is now."""
        known = self._listings.recall(path)
        if known is None:
            # Unless a listing says that nothing is there, one on its way may say that it is.
            return now is None and self._listings.find(path, self._clock()) is not None
        return known.expires > 0 and _says(known, now)

    def _known_names(self, directory: str, name: str) -> Iterable[str]:
        return self._listings.names_like(directory, fold(name), -math.inf) or ()

    def _position(self) -> str | None:
        try:
            return self._note.read_text("utf-8")
        except FileNotFoundError:
            return None


def _says(known: Entry, now: Metadata | None) -> bool:
    """Whether an entry says what there is now."""
    if now is None:
        return known.kind == ABSENT
    if now["is_dir"]:
        return known.kind == DIRECTORY
    return known.kind == FILE and known.etag == now.get("etag")
