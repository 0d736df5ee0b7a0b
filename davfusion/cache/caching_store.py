"""CachingStore: reads come from blocks on the local disk, writes are received there first."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import BinaryIO, Unpack

from davfusion.cache import spool
from davfusion.cache.asides import NotedAsides
from davfusion.cache.block_caching_store import MEGABYTE, BlockCachingStore, over_blocks
from davfusion.cache.folder import CacheFolder, cache_id_for
from davfusion.cache.pending import FILE, Row
from davfusion.cache.room import Meter, Room
from davfusion.cache.too_large import TooLargeError
from davfusion.stores import paths
from davfusion.stores.source import small
from davfusion.stores.store import (
    Features,
    InterruptEvent,
    Metadata,
    SourceStream,
    Store,
    WriteOptions,
)
from davfusion.stores.streams import size_of
from davfusion.stores.wrapper import StoreWrapper


class CachingStore(StoreWrapper):
    """A Store that writes through: a call returns when the wrapped store has the new content.

    What is written is first received, in memory if it is small, else in the spool of
    `cache_dir/cache_id`, so that a source that breaks off never touches the store, and a retry can
    rewind; what finds no room there, on the disk or within the limit, goes straight to `store`
    while it comes, as does all to a folder, which does the same by itself. What is read or written
    stays there in blocks, unless reading the store costs as little; what a range needs is fetched,
    no more.

    `cache_expiration_time` is the seconds until an entry is expired; `cache_size_in_mb` the limit
    of blocks and of writes under way together (0: no content); `cache_id` names a persistent cache
    (None: after the store), `cache_dir` the folder of all caches (None: among the user's caches).
    Where `store` is no MetadataCachingStore, one is put around it, unless nothing is to be kept
    (`cache_expiration_time` 0).
    """

    _store: BlockCachingStore

    def __init__(
        self,
        store: Store,
        cache_expiration_time: float = 60,
        cache_size_in_mb: int = 2000,
        cache_id: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._folder = CacheFolder(cache_dir, cache_id or cache_id_for(store.get_name()))
        self._folder.prepare()
        self._room = Room(cache_size_in_mb * MEGABYTE, None, self._folder.spool)
        clean = over_blocks(
            store, cache_expiration_time, cache_size_in_mb, self._folder, self._room.spooled
        )
        super().__init__(clean)
        self._room.blocks = clean.blocks
        self._is_received_there = clean.blocks is None and clean.features.receives_first
        self._age = cache_expiration_time
        is_needed = not self._store.features.exclusive_transfer
        self._claims = self._folder.claims() if is_needed else None

    @property
    def features(self) -> Features:
        return replace(super().features, receives_first=True, exclusive_transfer=True)

    @property
    def asides(self) -> NotedAsides:
        return self._folder.asides

    def get_cache_expiration_time(self) -> float:
        """Seconds until an entry is expired."""
        return self._age

    def is_cached_version_invalid(self, path: str) -> bool:
        """Whether the store's version is newer than the cached entry, or does not exist."""
        return self._store.is_cached_version_invalid(path)

    def close(self) -> None:
        """End reading ahead, and close the blocks' files."""
        self._store.close()
        self._folder.asides.close()
        if self._claims:
            self._claims.close()

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        **options: Unpack[WriteOptions],
    ) -> Metadata:
        self.require_storable(path)
        is_judged_here = not self._store.features.conditional_write
        alone = is_judged_here and options.get("if_etag") is not None
        if self._is_received_there:
            with self._put(path, alone):
                return super().store_fileobject(fileobject, path, interrupt_event, **options)
        try:
            with self._received(fileobject, path, interrupt_event) as whole, self._put(path, alone):
                stored = super().store_fileobject(whole, path, interrupt_event, **options)
                self._store.keep(path, stored, whole)
                return stored
        except TooLargeError as error:
            with error.begun(fileobject) as source, self._put(path, alone):
                return super().store_fileobject(source, path, interrupt_event, **options)

    @contextmanager
    def _received(
        self, source: SourceStream, path: str, interrupt_event: InterruptEvent | None
    ) -> Iterator[BinaryIO]:
        """All of it, in memory or in the spool; TooLargeError."""
        if (held := small(source, interrupt_event)) is not None:
            yield held
            return
        files, new = self._folder.spool, Row(path, FILE)
        make_room = spool.limited(self.get_max_filesize(), Meter(self._room, size_of(source)))
        name, note = spool.receive(files, source, new, make_room, interrupt_event, durable=False)
        try:
            with spool.open_content(files, name, note.bytes) as content:
                yield content
        finally:
            spool.remove_content(files, name)

    def create_directory(self, directory: str) -> None:
        with self._put(directory, alone=True):
            super().create_directory(directory)

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        with self._put(path_to_dest, alone=not replace):
            super().duplicate(path_to_src, path_to_dest, replace=replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        with self._put(path_to_dest, alone=not replace):
            super().move(path_to_src, path_to_dest, replace=replace)

    def _put(self, path: str, alone: bool) -> AbstractContextManager[None]:
        """Around what puts something there, `alone` where it may be refused for what is there."""
        paths.check_path(path)
        return self._claims.claimed(path, alone=alone) if self._claims else nullcontext()
