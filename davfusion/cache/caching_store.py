"""CachingStore: every write is received whole on the local disk before the store sees it."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from davfusion.cache.filestore import SPACES
from davfusion.cache.folder import CacheFolder, cache_id_for
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.platform import fsync_directory
from davfusion.stores import paths
from davfusion.stores.store import (
    InterruptEvent,
    Metadata,
    SourceStream,
    Store,
    StoreSpaceLimitError,
)
from davfusion.stores.transfer import blocks
from davfusion.stores.wrapper import StoreWrapper

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class CachingStore(StoreWrapper):
    """A Store that writes through: a call returns when the wrapped store has the new content.

    What is written is first received in the spool of `cache_dir/cache_id`, so that a source that
    breaks off never touches the store, and a retry can rewind. Reads stream from the store.

    `cache_expiration_time` is the seconds until an entry is expired; `cache_size_in_mb` an
    approximate limit of what is kept there, which does not count a write under way; `cache_id`
    names a persistent cache (None: after the store), `cache_dir` the folder of all caches (None:
    among the user's caches). Where `store` is no MetadataCachingStore, one is put around it, unless
    nothing is to be kept (`cache_expiration_time` 0).
    """

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
        if cache_expiration_time and not isinstance(store, MetadataCachingStore):
            listings = self._folder.listings
            store = MetadataCachingStore(store, cache_expiration_time, listings=listings)
        super().__init__(store)
        self._age = cache_expiration_time
        self.cache_size_in_mb = cache_size_in_mb

    def get_cache_expiration_time(self) -> float:
        """Seconds until an entry is expired."""
        return self._age

    def is_cached_version_invalid(self, path: str) -> bool:
        """Whether the store's version is newer than the cached entry, or does not exist."""
        paths.check_path(path)
        store = self._store
        return not isinstance(store, MetadataCachingStore) or store.is_cached_version_invalid(path)

    def recover(self) -> None:
        """As CacheFolder.recover: only for the owner of the folder, before its workers start."""
        self._folder.recover()

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
        paths.check_path(path)
        with self._received(fileobject, interrupt_event) as content:
            return super().store_fileobject(
                content,
                path,
                interrupt_event,
                if_etag=if_etag,
                modified=modified,
                content_type=content_type,
            )

    @contextmanager
    def _received(
        self, source: SourceStream, interrupt_event: InterruptEvent | None
    ) -> Iterator[BinaryIO]:
        """All of `source` as a claimed spool file, which is gone afterwards."""
        spool, name = self._folder.spool, uuid.uuid4().hex
        try:
            self._receive(name, source, interrupt_event)
            spool.move(name, "tmp", "new")
            fsync_directory(spool.path(name, "new").parent)
            spool.move(name, "new", "cur")
            with spool.path(name, "cur").open("rb") as content:
                yield content
        finally:
            for space in SPACES:
                with suppress(FileNotFoundError):
                    spool.remove(name, space)

    def _receive(
        self, name: str, source: SourceStream, interrupt_event: InterruptEvent | None
    ) -> None:
        limit, size = self.get_max_filesize(), 0
        with _disk_space(), self._folder.spool.create(name, "xb") as file:
            for block in blocks(source, interrupt_event):
                size += len(block)
                if limit is not None and size > limit:
                    raise StoreSpaceLimitError(f"larger than {limit} bytes", 413)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _disk_space() -> Iterator[None]:
    """Also around close(), which writes again what a full disk has refused."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise StoreSpaceLimitError(f"the cache's disk is full: {error}") from error
        raise
