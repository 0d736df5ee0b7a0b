"""FsspecStore by the contract, on real servers, alone and below the caches."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import Store
from tests.conformance import NAMES, StoreConformance, names, put

pytestmark = [pytest.mark.live, pytest.mark.slow]

FTP_NAMES = [name for name in NAMES if "\n" not in name]
"""A command of FTP is a line."""


class ServerConformance(StoreConformance):
    many = 250
    """sshd gives 100 at once, the others have no pages."""


class TestSftp(ServerConformance):
    @pytest.fixture
    def store(self, sftp_store: FsspecStore) -> Store:
        return sftp_store


class TestFtp(ServerConformance):
    @pytest.fixture
    def store(self, ftp_store: FsspecStore) -> Store:
        return ftp_store

    @pytest.mark.parametrize("name", FTP_NAMES, ids=ascii)
    def test_names(self, store: Store, name: str) -> None:
        super().test_names(store, name)


class TestWebDav(ServerConformance):
    @pytest.fixture
    def store(self, dav_store: FsspecStore) -> Store:
        return dav_store


class TestRcloneWebDav(ServerConformance):
    """Has half of a file when a PUT breaks off, and refuses moves at the same time with 423."""

    @pytest.fixture
    def store(self, rclone_store: FsspecStore) -> Store:
        return RetryingStore(rclone_store)

    def test_similar_names_are_different_files(self, store: Store) -> None:
        """Composed and decomposed letters are one name to it."""
        put(store, "/cafe\u0301", b"first")
        put(store, "/caf\u00e9", b"second")
        assert store.get_file("/cafe\u0301") == b"second"
        assert len(names(store, "/")) == 1


class TestCachedSftp(ServerConformance):
    @pytest.fixture
    def store(self, sftp_store: FsspecStore, tmp_path: Path) -> Store:
        return CachingStore(RetryingStore(sftp_store), cache_dir=tmp_path / "cache")


class TestWrittenBackFtp(TestFtp):
    @pytest.fixture
    def store(self, ftp_store: FsspecStore, tmp_path: Path) -> Iterator[Store]:
        store = MultiprocessingCachingStore(
            RetryingStore(ftp_store), cache_dir=tmp_path / "cache", write_back_delay=0
        )
        yield store
        store.close()


class TestWrittenBackWebDav(ServerConformance):
    @pytest.fixture
    def store(self, dav_store: FsspecStore, tmp_path: Path) -> Iterator[Store]:
        store = MultiprocessingCachingStore(
            RetryingStore(dav_store), cache_dir=tmp_path / "cache", write_back_delay=0
        )
        yield store
        store.close()
