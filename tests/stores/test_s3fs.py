"""S3 by FsspecStore and s3fs, to compare it with S3Store: by the contract, alone and cached."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import Store
from tests.conformance import StoreConformance
from tests.servers import S3Server
from tests.stores.test_s3 import SEAWEEDFS_NAMES

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
def s3fs_store(s3_server: S3Server, shared_bucket: str) -> FsspecStore:
    """A new prefix; by one client for all, as to make one takes longer than most tests."""
    url = f"s3://{shared_bucket}/s3fs {uuid4().hex}"
    return FsspecStore(url, endpoint_url=s3_server.endpoint, skip_instance_cache=False)


class S3fsConformance(StoreConformance):
    @pytest.mark.parametrize("name", SEAWEEDFS_NAMES, ids=ascii)
    def test_names(self, store: Store, name: str) -> None:
        super().test_names(store, name)


class TestS3fs(S3fsConformance):
    @pytest.fixture
    def store(self, s3fs_store: FsspecStore) -> Store:
        return s3fs_store


class TestWrittenBackS3fs(S3fsConformance):
    many = 250
    """Above, there are pages of 1,000."""

    @pytest.fixture
    def store(self, s3fs_store: FsspecStore, tmp_path: Path) -> Iterator[Store]:
        store = MultiprocessingCachingStore(
            RetryingStore(s3fs_store), cache_dir=tmp_path / "cache", write_back_delay=0
        )
        yield store
        store.close()
