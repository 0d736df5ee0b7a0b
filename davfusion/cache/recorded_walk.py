"""RecordedWalk: a walk of a store, passed on while it fills the listing table."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from davfusion.cache.answers import best_known
from davfusion.cache.entry import Entry, Moment
from davfusion.cache.listings import ListingTable
from davfusion.stores import paths
from davfusion.stores.store import Metadata

Found = Iterator[tuple[str, Metadata]]


@dataclass(frozen=True)
class _Directory:
    """A directory whose members the walk is naming."""

    path: str
    known: Mapping[str, Entry] = field(default_factory=dict)
    listed: dict[str, Metadata] = field(default_factory=dict)
    is_shown: bool = True
    """False: it is known not to be there any more, so what the walk names of it is not shown."""


class RecordedWalk:
    """Records the directories of a walk begun at `fetch`, each when all below it was named.

    Held are the directories that are not complete yet. What is known better of our own changes
    is shown instead of what the walk says; `below` walks what the walk does not know to be there.
    """

    def __init__(
        self, listings: ListingTable, fetch: Moment, below: Callable[[str], Found]
    ) -> None:
        self._listings = listings
        self._fetch = fetch
        self._below = below
        self._open: list[_Directory] = []

    def through(self, directory: str, walk: Iterable[tuple[str, Metadata]]) -> Found:
        """What to answer for `walk`, which is that of `directory`."""
        self._enter(directory)
        for path, metadata in walk:
            parent = paths.parent(path)
            if any(step.path == parent for step in reversed(self._open)):
                yield from self._complete(parent)
                yield from self._member(self._open[-1], path, metadata)
            else:
                yield from self._late(path, metadata)
        yield from self._complete(None)

    def _enter(self, directory: str, *, is_shown: bool = True) -> None:
        known = self._listings.recall_children(directory) if is_shown else {}
        self._open.append(_Directory(directory, known, is_shown=is_shown))

    def _member(self, parent: _Directory, path: str, listed: Metadata) -> Found:
        name = paths.name(path)
        parent.listed[name] = listed
        shown = best_known(parent.known.get(name), listed, self._fetch) if parent.is_shown else None
        if shown is not None:
            yield path, shown
        is_dir = shown is not None and shown["is_dir"]
        if listed["is_dir"]:
            self._enter(path, is_shown=is_dir)
        elif is_dir:
            yield from self._below(path)

    def _late(self, path: str, listed: Metadata) -> Found:
        """A walk that began again names what has come to a directory that was complete before."""
        known = self._listings.recall(path)
        self._listings.expire(path, self._fetch.at)
        shown = best_known(known, listed, self._fetch)
        if shown is not None:
            yield path, shown

    def _complete(self, directory: str | None) -> Found:
        """All that is open below `directory`, None: all, has been named."""
        while self._open and self._open[-1].path != directory:
            done = self._open.pop()
            if done.is_shown:
                yield from self._record(done)

    def _record(self, done: _Directory) -> Found:
        shown = self._listings.record_listing(done.path, done.listed, self._fetch)
        for name in shown.keys() - done.listed.keys():
            path = paths.join(done.path, name)
            yield path, shown[name]
            if shown[name]["is_dir"]:
                yield from self._below(path)
