"""CachingStore: reads come from blocks on the local disk, writes are received there first."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Unpack

from davfusion.cache import spool
from davfusion.cache.block_caching_store import BlockCachingStore, over_blocks
from davfusion.cache.folder import CacheFolder, cache_id_for
from davfusion.cache.pending import FILE, Row
from davfusion.stores import paths
from davfusion.stores.store import (
    Features,
    InterruptEvent,
    Metadata,
    SourceStream,
    Store,
    WriteOptions,
)
from davfusion.stores.wrapper import StoreWrapper


class CachingStore(StoreWrapper):
    """A Store that writes through: a call returns when the wrapped store has the new content.

    What is written is first received in the spool of `cache_dir/cache_id`, so that a source that
    breaks off never touches the store, and a retry can rewind. What is read or written stays there
    in blocks, unless reading the store costs as little; what a range needs is fetched, no more.

    `cache_expiration_time` is the seconds until an entry is expired; `cache_size_in_mb` the limit
    of what is kept there (0: no content), which does not count a write under way; `cache_id`
    names a persistent cache (None: after the store), `cache_dir` the folder of all caches (None:
    among the user's caches). Where `store` is no MetadataCachingStore, one is put around it, unless
    nothing is to be kept (`cache_expiration_time` 0).
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
        super().__init__(over_blocks(store, cache_expiration_time, cache_size_in_mb, self._folder))
        self._age = cache_expiration_time
        is_needed = not self._store.features.exclusive_transfer
        self._claims = self._folder.claims() if is_needed else None

    @property
    def features(self) -> Features:
        return replace(super().features, receives_first=True, exclusive_transfer=True)

    def get_cache_expiration_time(self) -> float:
        """Seconds until an entry is expired."""
        return self._age

    def is_cached_version_invalid(self, path: str) -> bool:
        """Whether the store's version is newer than the cached entry, or does not exist."""
        return self._store.is_cached_version_invalid(path)

    def close(self) -> None:
        """End reading ahead, and close the blocks' files."""
        self._store.close()
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
        new = Row(path, FILE)
        files = self._folder.spool
        limit = self._limit()
        name, note = spool.receive(files, fileobject, new, limit, interrupt_event, durable=False)
        try:
            is_judged_here = not self._store.features.conditional_write
            alone = is_judged_here and options.get("if_etag") is not None
            with spool.open_content(files, name, note.bytes) as content, self._put(path, alone):
                stored = super().store_fileobject(content, path, interrupt_event, **options)
                self._store.keep(path, stored, content)
        finally:
            spool.remove_content(files, name)
        return stored

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

    def _limit(self) -> spool.MakeRoom:
        return spool.limited(self.get_max_filesize())
