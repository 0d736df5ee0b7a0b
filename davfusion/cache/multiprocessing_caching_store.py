"""MultiprocessingCachingStore: a write is done when this disk has it; a mover sends it later."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO, Unpack

from davfusion.cache import spool
from davfusion.cache.asides import NotedAsides
from davfusion.cache.block_caching_store import over_blocks
from davfusion.cache.folder import CacheFolder, cache_id_for
from davfusion.cache.holds import Holds
from davfusion.cache.journal_change import Change
from davfusion.cache.mover import Mover, MoverThread
from davfusion.cache.notes import Note
from davfusion.cache.outbox import Outbox
from davfusion.cache.overlay import Overlay, kind_of, version_of
from davfusion.cache.packs import SIZE as PACK
from davfusion.cache.packs import Packer, is_packed
from davfusion.cache.pending import DIRECTORY, FILE, NOTHING, Held, Row, View
from davfusion.cache.relocation import Relocation
from davfusion.cache.room import Meter, Room
from davfusion.cache.too_large import Parts, TooLargeError
from davfusion.memo import Validity
from davfusion.stores import paths
from davfusion.stores.spelling import canonical
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    Features,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
    Upload,
    WriteOptions,
)
from davfusion.stores.streams import size_of
from davfusion.stores.walking import depth_first
from davfusion.stores.wrapper import StoreWrapper

_MEGABYTE = 1 << 20
_PACKS = 32
"""So many packs of a process fit into the cache at least."""
_POLL_SECONDS = 0.05


class MultiprocessingCachingStore(StoreWrapper):
    """A Store whose writes do not wait for `store`, and are lost by no crash.

    A write returns when its bytes and its row of the journal are on the disk of
    `cache_dir/cache_id`; from then on every process that shares the folder sees it. The mover
    sends it `write_back_delay` seconds (None: `cache_expiration_time`) after the last change of
    its path. Content that is in `store` is read through blocks.

    `cache_expiration_time` is the seconds until an entry is expired; `cache_size_in_mb` the limit
    of blocks and unsent writes together: where unsent writes fill it, a write waits, and then
    raises StoreSpaceLimitError; a file larger than all of it goes straight to `store`.
    `cache_id` names a persistent cache (None: after the store), `cache_dir` the folder of all
    caches (None: among the user's caches). `store` may be used by several threads at once.

    With `owns_cache`, this object claims the folder and sends by a thread of its own; without,
    the folder has been claimed, and a mover runs, elsewhere. `wait` is called with the seconds to
    pass while others have to send something first.
    """

    def __init__(  # noqa: PLR0913 - the documented five, and four for those who share a folder
        self,
        store: Store,
        cache_expiration_time: float = 60,
        cache_size_in_mb: int = 2000,
        cache_id: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        write_back_delay: float | None = None,
        owns_cache: bool = True,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = CacheFolder(cache_dir, cache_id or cache_id_for(store.get_name()))
        self._folder.prepare()
        delay = cache_expiration_time if write_back_delay is None else write_back_delay
        self._age = cache_expiration_time
        self._clock = clock
        self._wait = wait
        self._files = self._folder.spool
        self._journal = self._folder.journal(delay, clock)
        self._outbox = Outbox(self._journal, self._files)
        self._holds = Holds(self._journal, self._folder.path / "owners", wait)
        limit = cache_size_in_mb * _MEGABYTE
        self._room = Room(limit, self._journal, self._files, wait=wait)
        self._packer = Packer(self._files, self._room.reserve_now, min(PACK, limit // _PACKS))
        clean = over_blocks(
            store, cache_expiration_time, cache_size_in_mb, self._folder, self._room.spooled
        )
        super().__init__(clean)
        self._clean = clean
        self._room.blocks = clean.blocks
        self._overlay = Overlay(self._journal, clean)
        self._relocation = Relocation(clean, self._journal, self._files, self._holds, self._room)
        self._mover: MoverThread | None = None
        if owns_cache:
            self._folder.claim()
            self._folder.recover()
            self._mover = MoverThread(Mover(clean, self._folder, self._journal))

    @property
    def features(self) -> Features:
        """As the store's; a directory has the date of its making until it is sent."""
        return replace(
            super().features,
            exclusive_transfer=True,
            writes_offline=True,
            receives_first=True,
            cheap_metadata=False,
            undated_directories=False,
        )

    @property
    def asides(self) -> NotedAsides:
        return self._folder.asides

    @property
    def validity(self) -> Validity | None:
        below = super().validity
        return below if below and below.folder == self._folder.path else None

    def get_cache_expiration_time(self) -> float:
        """Seconds until an entry is expired."""
        return self._age

    def is_cached_version_invalid(self, path: str) -> bool:
        """Whether the store's version is newer than the cached entry, or does not exist.

        For a path with changes that have not been sent: than the version they were based on.
        """
        row = self._journal.view(paths.check_path(path)).row
        if row is None:
            return self._clean.is_cached_version_invalid(path)
        self.forget(path)
        try:
            return self._store.get_metadata(path).get("etag") != row.base
        except NoSuchFilesytemObjectError:
            return row.base != ""

    def canonical_path(self, path: str) -> str:
        """As the contract says; what waits to be deleted still has its spelling."""
        if not self.features.case_insensitive_names:
            return super().canonical_path(path)
        return canonical(paths.check_path(path), self._overlay.is_there, self._overlay.names_like)

    def get_metadata(self, path: str) -> Metadata:
        return self._overlay.metadata(paths.check_path(path))

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        return self._overlay.children(paths.check_path(directory))

    def get_directory_listing(self, directory: str) -> list[str]:
        return Store.get_directory_listing(self, directory)

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """As the contract says; the store is walked before, for its listings."""
        paths.check_path(directory)
        if not self._overlay.is_hidden(directory):
            with suppress(NoSuchFilesytemObjectError):  # then all of it is pending
                for _ in super().walk_metadata(directory):
                    pass
        yield from depth_first(directory, self._overlay.children)

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        row = self._journal.seen(paths.check_path(path)).row
        if row is not None and row.kind == FILE:
            try:
                return spool.open_range(self._files, row, offset, length, etag)
            except FileNotFoundError:
                now = self._journal.view(path).row
                if now is not None and (now.generation, now.spool) == (row.generation, row.spool):
                    raise StoreAccessError(f"the content of {path} is missing") from None
                return self.open_read(path, offset, length, etag)  # the store has it by now
        metadata = self.get_metadata(path)
        if metadata["is_dir"]:
            raise NoSuchFilesytemObjectError(f"{path} is a directory")
        stored = self._journal.stored_as(path, etag) if etag else None
        return super().open_read(path, offset, length, stored)

    def get_file(self, path: str) -> bytes:
        with self.open_read(path) as stream:
            return stream.read()

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,
    ) -> Metadata:
        _require_no_root(path)
        self.require_storable(path)
        given = modified if self.features.modified_times else None
        when = self._clock() if given is None else given
        new = Row(path, FILE, modified=when, content_type=content_type)
        try:
            new = self._received(fileobject, new, interrupt_event)
        except TooLargeError as error:
            with error.begun(fileobject) as source:
                return self._store_through(source, new, interrupt_event, if_etag)
        is_needed = True
        try:
            placed = self._overlay.change(path, partial(_write, new, if_etag))
        except BaseException:
            is_needed = self._journal.needs(new.spool or "")
            raise
        finally:
            self._settle(new.spool or "", is_needed=is_needed)
        return placed.metadata

    def _received(
        self, source: SourceStream, new: Row, interrupt_event: InterruptEvent | None
    ) -> Row:
        """The row with the content that is on the disk now."""
        limit, size = self.get_max_filesize(), size_of(source)
        is_any_size_allowed = limit is None or limit >= self._packer.largest
        if is_any_size_allowed and self._packer.has_room(size or 0):
            packed = spool.receive_small(self._packer, source, new, interrupt_event)
            if not isinstance(packed, Parts):
                return _with_content(new, *packed)
            source = packed
        make_room = spool.limited(limit, Meter(self._room, size))
        try:
            received = spool.receive(self._files, source, new, make_room, interrupt_event)
        except TooLargeError as error:
            if error.rest is None and isinstance(source, Parts):
                error.rest = source
            raise
        return _with_content(new, *received)

    def _settle(self, name: str, *, is_needed: bool) -> None:
        """After a transaction that was to name the content."""
        if is_packed(name):
            self._packer.settle(name, is_needed=is_needed)
        else:
            spool.settle(self._files, name, is_needed=is_needed)

    def _store_through(
        self,
        source: SourceStream,
        new: Row,
        interrupt_event: InterruptEvent | None,
        if_etag: str | None,
    ) -> Metadata:
        """What the cache cannot hold goes to the store, once it has all that is pending there."""
        self._relocation.settle(new.path)
        self.forget(new.path)  # so that a store that is away is found out before the body is read
        with self._holds.held(new.path):
            view = self._journal.view(new.path)
            if view.row is not None:
                raise TransientStoreError(f"{new.path} has just been changed")
            held = self._overlay.held(view)
            _require_file(new.path, view, held, if_etag)
            stored = super().store_fileobject(
                source,
                new.path,
                interrupt_event,
                if_etag=None if if_etag is None else held.base,
                modified=new.modified,
                content_type=new.content_type,
            )
            with self._journal.change(even_if_low=True) as change:
                change.note_done()
            return stored

    def store_resumable(
        self, fileobject: BinaryIO, path: str, upload: Upload, **options: Unpack[WriteOptions]
    ) -> Metadata:
        return Store.store_resumable(self, fileobject, path, upload, **options)

    def abandon(self, path: str, token: str | None, since: float) -> None:
        Store.abandon(self, path, token, since)

    def delete(self, path: str, is_dir: bool = False) -> None:
        _require_no_root(path)

        def decide(change: Change, view: View, held: Held) -> None:
            if kind_of(view, held) == (DIRECTORY if is_dir else FILE):
                change.vacate(path, held)

        self._overlay.change(path, decide, strict=True, with_parents=False)

    def delete_many(self, files: Iterable[str]) -> None:
        Store.delete_many(self, [paths.check_path(path) for path in files])

    def create_directory(self, directory: str) -> None:
        if paths.check_path(directory) == paths.ROOT:
            raise AlreadyExistsError("the root exists")
        self.require_storable(directory)

        def decide(change: Change, view: View, held: Held) -> None:
            if kind_of(view, held) != NOTHING:
                raise AlreadyExistsError(f"{directory} exists")
            change.place(held, Row(directory, DIRECTORY, modified=self._clock()))

        self._overlay.change(directory, decide)

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        self.require_storable(path_to_dest)
        self._relocation.carry_out(path_to_src, path_to_dest, keep=True, replace=replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        self.require_storable(path_to_dest)
        self._relocation.carry_out(path_to_src, path_to_dest, keep=False, replace=replace)

    def flush(self) -> None:
        """As the contract says; StoreAccessError for what the store refuses."""
        self._outbox.hurry()
        while self._journal.has_below(paths.ROOT):
            if (failed := self._outbox.first_failed()) is not None:
                raise StoreAccessError(f"{failed.path} cannot be stored: {failed.error}")
            self._wait(_POLL_SECONDS)
        super().flush()

    def close(self) -> None:
        """Stop sending, what is left goes on with the next start; close the folder's files."""
        if self._mover is not None:
            self._mover.stop()
        self._holds.close()
        self._packer.close()
        self._journal.close()
        self._clean.close()
        self._folder.release()


def _with_content(new: Row, name: str, note: Note) -> Row:
    return new._replace(spool=name, bytes=note.bytes, etag=note.digest)


def _write(new: Row, if_etag: str | None, change: Change, view: View, held: Held) -> Row:
    _require_file(new.path, view, held, if_etag)
    return change.place(held, new)


def _require_file(path: str, view: View, held: Held, if_etag: str | None) -> None:
    """Raises AlreadyExistsError for a directory, ConflictError for another version."""
    if kind_of(view, held) == DIRECTORY:
        raise AlreadyExistsError(f"{path} is a directory")
    if if_etag is not None and version_of(view, held) != if_etag:
        raise ConflictError(f"{path} is not version {if_etag or 'absent'}")


def _require_no_root(path: str) -> None:
    if paths.check_path(path) == paths.ROOT:
        raise StoreAutorizationError("the root cannot be replaced or removed")
