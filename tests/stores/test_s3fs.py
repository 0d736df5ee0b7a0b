"""S3 by FsspecStore and s3fs, to compare it with S3Store: by the contract, alone and cached."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import (
    ABSENT,
    ConflictError,
    InterruptedException,
    Store,
    StoreAccessError,
)
from tests.conformance import BINARY, LARGE, StoreConformance, contents
from tests.samples import SizedSource, Source, SourceError, fail
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


@pytest.mark.parametrize("kind", [SizedSource, Source])
@pytest.mark.usefixtures("no_temporary_files")
def test_a_source_is_stored_while_it_comes(
    s3fs_store: FsspecStore, s3_client: Any, shared_bucket: str, kind: type[Source]
) -> None:
    large = LARGE * 15 + b"more"
    stored = s3fs_store.store_fileobject(kind(large), "/file")
    assert stored == s3fs_store.get_metadata("/file")
    assert s3fs_store.get_file("/file") == large
    s3fs_store.store_fileobject(kind(b""), "/empty")
    with pytest.raises(ConflictError):
        s3fs_store.store_fileobject(kind(BINARY), "/empty", if_etag=ABSENT)

    def overtake() -> None:
        s3fs_store.store_fileobject(Source(b"foreign"), "/file")

    overtaken = kind(large, at_end=overtake)
    with pytest.raises(ConflictError):
        s3fs_store.store_fileobject(overtaken, "/file", if_etag=stored["etag"])
    broken = [SizedSource(large, size) for size in (len(large) - 1, len(large) + 1)]
    for source in (*broken, kind(large, at_end=fail)):
        with pytest.raises((StoreAccessError, SourceError)):
            s3fs_store.store_fileobject(source, "/file")
    event = threading.Event()
    with pytest.raises(InterruptedException):
        s3fs_store.store_fileobject(kind(large, at_end=event.set), "/file", event)
    gc.collect()
    assert contents(s3fs_store, "/") == {"file": b"foreign", "empty": b""}
    assert not s3_client.list_multipart_uploads(Bucket=shared_bucket).get("Uploads")
