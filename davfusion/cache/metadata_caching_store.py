"""MetadataCachingStore: answers stats and listings from the share's listing table."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import BinaryIO, Final, Unpack

from davfusion.cache.entry import ABSENT, DIRECTORY, Entry, Moment
from davfusion.cache.listings import ListingTable
from davfusion.cache.prefetching import Prefetcher
from davfusion.cache.recorded_walk import RecordedWalk
from davfusion.cache.revalidation import Revalidator, Submit
from davfusion.cache.watched_clock import WatchedClock
from davfusion.memo import Validity
from davfusion.stores import paths
from davfusion.stores.errors import StoreAwayError
from davfusion.stores.spelling import canonical, fold
from davfusion.stores.store import (
    UNDATED_DIRECTORY,
    ConflictError,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    TransientStoreError,
    Upload,
    WriteOptions,
)
from davfusion.stores.walking import depth_first
from davfusion.stores.wrapper import StoreWrapper

REPEATED: Final = 2.0
"""Seconds that an answer made of metadata may be given again at most."""
FIGURES: Final = 60.0
"""Seconds that figures of the space hold at most: no feed tells of their changes."""
WALKED_AHEAD: Final = 20_000
"""Entries that are asked for at a time because a client seems to walk."""
WALK_PAUSE: Final = 60.0
"""Seconds until the same directory is walked ahead again."""


class MetadataCachingStore(StoreWrapper):
    """A Store whose metadata costs the wrapped store one call per cache_expiration_time.

    An answer, also that nothing is there, holds for `cache_expiration_time` seconds from the
    moment it was asked for, however often it is read. A change made through this layer shows at
    once to all that share `listings` (None: this object alone); after a change that failed, what
    it may have touched is asked for again. `clock` gives seconds, the same for all sharers.

    Where the store cannot be asked (TransientStoreError), what it said last is answered, however
    old; not what a change of ours has left open since, and not after forget().

    `started` is when the server began, for all its workers: a listing that had expired by then,
    and a directory's stat, answer once more while they are asked for in the background (`submit`
    None: by threads of its own, until close()).
    """

    def __init__(
        self,
        store: Store,
        cache_expiration_time: float = 60,
        *,
        listings: ListingTable | None = None,
        clock: Callable[[], float] = time.time,
        started: float | None = None,
        submit: Submit | None = None,
    ) -> None:
        super().__init__(store)
        self._started = 0.0 if started is None else started
        self._revalidator = Revalidator(submit)
        self._prefetcher = Prefetcher(self._prefetch, self._walk_ahead)
        self._age = cache_expiration_time
        self._listings = listings or ListingTable()
        self._clock = WatchedClock(clock, partial(self._listings.end_fresher, age=self._age))
        self._figures: dict[str, tuple[int | None, float]] = {}

    @property
    def uncached(self) -> Store:
        """The wrapped store, for what must be known as it is now."""
        return self._store

    @property
    def validity(self) -> Validity | None:
        """A twentieth of the age: another program's change shows so much later at most."""
        folder = self._listings.folder
        seconds = min(REPEATED, self._age / 20)
        return Validity(folder, seconds, self._clock, self._age) if folder and seconds else None

    def get_cache_expiration_time(self) -> float:
        """Seconds until an answer is asked for again."""
        return self._age

    def is_cached_version_invalid(self, path: str) -> bool:
        """Whether the store's version is newer than the one known here, or does not exist.

        Asks the store. A path that nothing is known of has no valid version.
        """
        known = self._listings.recall(paths.check_path(path))
        try:
            current = super().get_metadata(path)
        except NoSuchFilesytemObjectError:
            return True
        if known is None or known.kind == ABSENT:
            return True
        if known.etag is not None and "etag" in current:
            return known.etag != current["etag"]
        return (known.modified, known.bytes) != (current["modified"], current["bytes"])

    def get_metadata(self, path: str) -> Metadata:
        known = self._listings.find(paths.check_path(path), self._clock())
        known = known or self._directory_of_earlier_run(path)
        if known is not None:
            return _present(path, known)
        try:
            return self._stat(path)
        except TransientStoreError:
            known = self._listings.last_answer(path)
            if known is None or known.expires < 0:
                raise
        return _present(path, known)

    def last_known(self, path: str) -> Metadata | None:
        """What the store said last of `path`, however old, also after forget(); makes no call.

        None where it never did, or a change of ours has left it open since. Raises
        NoSuchFilesytemObjectError where nothing was there.
        """
        known = self._listings.last_answer(paths.check_path(path))
        return None if known is None else _present(path, known)

    def may_be_directory(self, path: str) -> bool:
        """False where it is known, as reads know it, that none is there; makes no call."""
        known = self._listings.find(paths.check_path(path), self._clock())
        return known is None or known.kind == DIRECTORY

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        return self._children(paths.check_path(directory), self._clock())

    def _children(self, directory: str, now: float) -> dict[str, Metadata]:
        """As known at `now` or in an earlier run, or else listed."""
        children = self._listings.children(directory, now)
        if children is not None:
            return children
        self._prefetcher.listing_missed(directory, now)
        children = self._children_of_earlier_run(directory)
        if children is not None:
            return children
        self._require_directory(directory, now)
        try:
            return self._list(directory)
        except TransientStoreError:
            known = self._listings.last_listing(directory)
            if known is None:
                raise
        return _metadata(known)

    def _prefetch(self, directory: str) -> None:
        self._revalidator.ask(("list", directory), lambda: self._list(directory))

    def _walk_ahead(self, directory: str) -> None:
        """Have all below `directory` listed, if few calls do and nobody did so a moment ago."""

        def walk() -> None:
            now = self._clock()
            if self._listings.claim_walk(directory, now, now + WALK_PAUSE):
                with closing(self._walk_recording(directory, now)) as found:
                    for _ in islice(found, WALKED_AHEAD):
                        pass

        if self.features.flat_listing:
            self._revalidator.ask(("walk", directory), walk)

    def _list(self, directory: str) -> dict[str, Metadata]:
        fetch = self._begin()
        listed = super().get_directory_metadata(directory)
        if self.features.undated_directories and not self._listings.find(directory, fetch.at):
            self._listings.record_entry(directory, UNDATED_DIRECTORY, fetch)
        return self._listings.record_listing(directory, listed, fetch)

    def _directory_of_earlier_run(self, path: str) -> Entry | None:
        if not self._started:
            return None
        known = self._listings.last_answer(path)
        if known is None or known.kind != DIRECTORY or not 0 < known.expires <= self._started:
            return None
        self._revalidator.ask(("stat", path), lambda: self._stat(path))
        return known

    def _children_of_earlier_run(self, directory: str) -> dict[str, Metadata] | None:
        if not self._started:
            return None
        known = self._listings.last_listing(directory, self._started)
        if known is None or any(entry.expires == 0 for entry in known.values()):
            return None
        self._revalidator.ask(("list", directory), lambda: self._list(directory))
        return _metadata(known)

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """As the contract says; without a call if all is known, else by one walk of the store."""
        now = self._clock()
        if self._listings.knows_tree(paths.check_path(directory), now):
            return self._walk_known(directory, now)
        return self._walk_recording(directory, now)

    def _walk_known(self, directory: str, now: float) -> Iterator[tuple[str, Metadata]]:
        # Known at `now`, be it old when its turn comes: nothing is asked for again meanwhile.
        return depth_first(directory, lambda below: self._children(below, now))

    def _walk_recording(
        self, directory: str, now: float
    ) -> Generator[tuple[str, Metadata], None, None]:
        self._require_directory(directory, now)
        walk = RecordedWalk(
            self._listings, self._begin(), lambda below: self._walk_below(below, now)
        )
        yield from walk.through(directory, super().walk_metadata(directory))

    def _walk_below(self, directory: str, now: float) -> Iterator[tuple[str, Metadata]]:
        with suppress(NoSuchFilesytemObjectError):
            yield from self._walk_known(directory, now)

    def _require_directory(self, path: str, now: float) -> None:
        known = self._listings.find(path, now)
        if known is not None and known.kind != DIRECTORY:
            raise NoSuchFilesytemObjectError(path)

    def get_directory_listing(self, directory: str) -> list[str]:
        return Store.get_directory_listing(self, directory)

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        with self._reading(path):
            return super().open_read(path, offset, length, etag)

    def get_file(self, path: str) -> bytes:
        with self._reading(path):
            return super().get_file(path)

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        **options: Unpack[WriteOptions],
    ) -> Metadata:
        store = partial(super().store_fileobject, fileobject, path, interrupt_event)
        return self._recorded(path, partial(store, **options))

    def store_resumable(
        self, fileobject: BinaryIO, path: str, upload: Upload, **options: Unpack[WriteOptions]
    ) -> Metadata:
        store = partial(super().store_resumable, fileobject, path, upload)
        return self._recorded(path, partial(store, **options))

    def _recorded(self, path: str, store: Callable[[], Metadata]) -> Metadata:
        with self._changing(path) as made:
            metadata = store()
            self._listings.stored(path, metadata, made())
        return metadata

    def delete(self, path: str, is_dir: bool = False) -> None:
        with self._changing(path) as made:
            super().delete(path, is_dir)
            self._listings.removed([path], made(), is_dir=is_dir)

    def delete_many(self, files: Iterable[str]) -> None:
        gone = [paths.check_path(path) for path in files]
        with self._changing(*gone) as made:
            super().delete_many(gone)
            self._listings.removed(gone, made())

    def create_directory(self, directory: str) -> None:
        with self._changing(directory) as made:
            super().create_directory(directory)
            self._listings.created_directory(directory, made())

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        with self._changing(path_to_dest) as made:
            super().duplicate(path_to_src, path_to_dest, replace=replace)
            self._listings.copied(path_to_src, path_to_dest, made())

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        with self._changing(path_to_src, path_to_dest) as made:
            super().move(path_to_src, path_to_dest, replace=replace)
            self._listings.moved(path_to_src, path_to_dest, made())

    def get_free_space(self) -> int | None:
        return self._figure("free", super().get_free_space)

    def get_used_space(self) -> int | None:
        return self._figure("used", super().get_used_space)

    def get_overall_space(self) -> int | None:
        return self._figure("overall", super().get_overall_space)

    def forget(self, path: str) -> None:
        """As the contract says; that nothing is there is asked again too."""
        super().forget(path)
        self._listings.expire(path, self._clock())

    def canonical_path(self, path: str) -> str:
        """As the contract says; asks the store as little as the question whether it is there."""
        if not self.features.case_insensitive_names:
            return super().canonical_path(path)
        return canonical(paths.check_path(path), self.exists, self.names_like)

    def names_like(self, directory: str, name: str) -> Iterable[str]:
        """At least the names in a directory that fold as `name` does; none where it is not there.

        Lists it where its listing is not known.
        """
        known = self._listings.names_like(directory, fold(name), self._clock())
        with suppress(NoSuchFilesytemObjectError):
            return self.get_directory_metadata(directory) if known is None else known
        return ()

    def close(self) -> None:
        """Revalidate nothing more."""
        self._revalidator.close()

    def _begin(self) -> Moment:
        return self._listings.begin(self._clock(), self._age)

    def _stat(self, path: str) -> Metadata:
        fetch = self._begin()
        self._prefetcher.stat_missed(path, fetch.at)
        try:
            metadata = super().get_metadata(path)
        except NoSuchFilesytemObjectError:
            self._listings.record_entry(path, None, fetch)
            raise
        self._listings.record_entry(path, metadata, fetch)
        return metadata

    @contextmanager
    def _changing(self, *touched: str) -> Iterator[Callable[[], Moment]]:
        """Gives the moment of the change once it is made; forgets the paths if it fails."""
        for path in touched:
            paths.check_path(path)
        since = self._begin()
        try:
            yield lambda: replace(since, at=self._clock())
        except StoreAwayError:
            raise
        except BaseException:
            # Whether the service has done it, or a part of it, nobody knows.
            self._listings.forget(touched, self._clock())
            raise

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """Forgets a file that turns out to be gone or another version."""
        try:
            yield
        except (NoSuchFilesytemObjectError, ConflictError):
            known = self._listings.find(path, self._clock())
            if known is not None and known.kind != ABSENT:
                self._listings.forget([path], self._clock())
            raise

    def _figure(self, name: str, ask: Callable[[], int | None]) -> int | None:
        now = self._clock()
        value, expires = self._figures.get(name, (None, now))
        if now >= expires:
            try:
                value = ask()
            except TransientStoreError:
                return value
            self._figures[name] = (value, now + min(self._age, FIGURES))
        return value


def _present(path: str, known: Entry) -> Metadata:
    if known.kind == ABSENT:
        raise NoSuchFilesytemObjectError(path)
    return known.metadata


def _metadata(children: dict[str, Entry]) -> dict[str, Metadata]:
    return {name: entry.metadata for name, entry in children.items()}
