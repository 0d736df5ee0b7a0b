"""CachingStore: reads come from blocks on the local disk, writes are received there first."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.block_reader import BlockReader, PieceStream, Version
from davfusion.cache.filestore import SPACES
from davfusion.cache.folder import CacheFolder, cache_id_for
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.platform import fsync_directory
from davfusion.stores import paths
from davfusion.stores.store import (
    ConflictError,
    InterruptEvent,
    Metadata,
    ReadableStream,
    SourceStream,
    Store,
    StoreSpaceLimitError,
)
from davfusion.stores.transfer import blocks
from davfusion.stores.wrapper import StoreWrapper

_MEGABYTE = 1 << 20
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


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
        keeps_content = bool(cache_size_in_mb) and not store.features.cheap_metadata
        blocks_limit = cache_size_in_mb * _MEGABYTE if keeps_content else 0
        self._blocks = BlockCache(self._folder.path / "blocks", blocks_limit)
        self._reader = BlockReader(self._blocks) if keeps_content else None
        self._age = cache_expiration_time

    def get_cache_expiration_time(self) -> float:
        """Seconds until an entry is expired."""
        return self._age

    def is_cached_version_invalid(self, path: str) -> bool:
        """Whether the store's version is newer than the cached entry, or does not exist."""
        paths.check_path(path)
        store = self._store
        return not isinstance(store, MetadataCachingStore) or store.is_cached_version_invalid(path)

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        known = self.get_metadata(path) if self._reader else None
        if self._reader is None or known is None or known["is_dir"] or "etag" not in known:
            return super().open_read(path, offset, length, etag)
        if etag is not None and etag != known["etag"]:
            raise ConflictError(f"{path} is another version")
        size = known["bytes"]
        end = size if length is None else min(size, offset + length)
        version = self._version(path, known["etag"], size)
        try:
            return PieceStream(self._reader.read(version, min(offset, end), end))
        except ConflictError:
            if etag is not None:
                raise
            return super().open_read(path, offset, length)  # any version will do

    def get_file(self, path: str) -> bytes:
        try:
            with self.open_read(path) as stream:
                return stream.read()
        except ConflictError:
            return super().get_file(path)  # rewritten in between: the one that stands now

    def _version(self, path: str, etag: str, size: int) -> Version:
        read = super().open_read
        return Version(path, etag, size, lambda start, length: read(path, start, length, etag))

    def close(self) -> None:
        """End reading ahead, and close the blocks' files."""
        if self._reader:
            self._reader.close()
        self._blocks.close()

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
            stored = super().store_fileobject(
                content,
                path,
                interrupt_event,
                if_etag=if_etag,
                modified=modified,
                content_type=content_type,
            )
            if self._reader and "etag" in stored and self._blocks.has_room_for(stored["bytes"]):
                content.seek(0)
                self._reader.keep(self._version(path, stored["etag"], stored["bytes"]), content)
        return stored

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
