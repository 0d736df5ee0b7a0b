"""BlockCachingStore: reads of file content come from blocks on the local disk."""

from collections.abc import Callable, Iterable
from typing import BinaryIO, Final

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.block_reader import BlockReader, Version
from davfusion.cache.folder import CacheFolder
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.piece_stream import PieceStream
from davfusion.stores import paths
from davfusion.stores.store import (
    ConflictError,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    Store,
)
from davfusion.stores.wrapper import StoreWrapper

MEGABYTE: Final = 1 << 20


class BlockCachingStore(StoreWrapper):
    """`store`, whose content is kept in `blocks`; what a range needs is fetched, no more.

    `store` answers get_metadata from a cache. `blocks` None: nothing is kept.
    """

    def __init__(self, store: Store, blocks: BlockCache | None) -> None:
        super().__init__(store)
        self.blocks = blocks
        self._reader = BlockReader(blocks) if blocks else None

    @property
    def service(self) -> Store:
        """The store without caches, for what must be known as it is now."""
        store = self._store
        return store.uncached if isinstance(store, MetadataCachingStore) else store

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

    def last_known(self, path: str) -> Metadata | None:
        """As MetadataCachingStore.last_known; None without one."""
        store = self._store
        return store.last_known(path) if isinstance(store, MetadataCachingStore) else None

    def names_like(self, directory: str, name: str) -> Iterable[str]:
        """As MetadataCachingStore.names_like; all without one."""
        store = self._store
        if isinstance(store, MetadataCachingStore):
            return store.names_like(directory, name)
        try:
            return store.get_directory_metadata(directory)
        except NoSuchFilesytemObjectError:
            return ()

    def may_be_directory(self, path: str) -> bool:
        """As MetadataCachingStore.may_be_directory; True without one."""
        store = self._store
        return not isinstance(store, MetadataCachingStore) or store.may_be_directory(path)

    def is_cached_version_invalid(self, path: str) -> bool:
        """Whether the store's version is newer than the cached entry, or does not exist."""
        paths.check_path(path)
        store = self._store
        return not isinstance(store, MetadataCachingStore) or store.is_cached_version_invalid(path)

    def get_file(self, path: str) -> bytes:
        try:
            with self.open_read(path) as stream:
                return stream.read()
        except ConflictError:
            return super().get_file(path)  # rewritten in between: the one that stands now

    def keep(self, path: str, stored: Metadata, content: BinaryIO) -> None:
        """Keep what was just stored, read from its copy on the local disk."""
        if self._reader and self.blocks and "etag" in stored:
            size = stored["bytes"]
            if self.blocks.has_room_for(size):
                content.seek(0)
                self._reader.keep(self._version(path, stored["etag"], size), content)

    def close(self) -> None:
        """End what goes on in the background, and close the blocks' files."""
        if isinstance(self._store, MetadataCachingStore):
            self._store.close()
        if self._reader and self.blocks:
            self._reader.close()
            self.blocks.close()

    def _version(self, path: str, etag: str, size: int) -> Version:
        read = super().open_read
        return Version(path, etag, size, lambda start, length: read(path, start, length, etag))


def over_blocks(
    store: Store,
    age: float,
    megabytes: int,
    folder: CacheFolder,
    spooled: Callable[[], int] = lambda: 0,
) -> BlockCachingStore:
    """`store` with its metadata and content cached in `folder`, as far as that is worth it.

    Where `store` is no MetadataCachingStore, one is put around it, unless nothing is to be kept
    (`age` 0). `megabytes` is the limit of the blocks and of the bytes `spooled` together; 0: no
    content is kept, nor where reading the store costs as little.
    """
    if age and not isinstance(store, MetadataCachingStore):
        store = MetadataCachingStore(store, age, listings=folder.listings)
    blocks = None
    if megabytes and not store.features.cheap_metadata:
        blocks = BlockCache(folder.path / "blocks", megabytes * MEGABYTE, spooled=spooled)
    return BlockCachingStore(store, blocks)
