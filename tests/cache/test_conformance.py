"""The cache layers keep the Store contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.junk_store import JunkStore
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.store import Store
from tests.conformance import StoreConformance
from tests.remote import RemoteStore


class TestMetadataCachingStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MetadataCachingStore(MemoryStore())


class TestExpiredMetadataCachingStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MetadataCachingStore(MemoryStore(), 0)


class TestCachingStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        tree = MemoryTree(largest_object=4_000_000)
        return CachingStore(MemoryStore(tree), cache_dir=tmp_path)


class TestCachingStoreWithBlocks(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        tree = MemoryTree(largest_object=4_000_000)
        return CachingStore(RemoteStore(tree), cache_dir=tmp_path)


class TestCachingStoreWithoutRoom(StoreConformance):
    """Nothing is received first: all goes straight to the store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        tree = MemoryTree(largest_object=4_000_000)
        return CachingStore(RemoteStore(tree), cache_size_in_mb=0, cache_dir=tmp_path)


class TestMultiprocessingCachingStore(StoreConformance):
    """All that is to be seen is in the journal: nothing is sent."""

    delay = 3600.0

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        tree = MemoryTree(largest_object=4_000_000)
        store = MultiprocessingCachingStore(
            RemoteStore(tree), cache_dir=tmp_path, write_back_delay=self.delay
        )
        yield store
        store.close()


class TestMultiprocessingCachingStoreThatSends(TestMultiprocessingCachingStore):
    """All is sent at once, beside what the tests do."""

    delay = 0.0


class TestJunkStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return JunkStore(MemoryStore(MemoryTree(largest_object=4_000_000)), tmp_path, ["._*"])


class TestJunkStoreOfAllFiles(StoreConformance):
    """Directories alone reach the store."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return JunkStore(MemoryStore(), tmp_path, ["*"])
