"""S3Store by the contract, on SeaweedFS: a whole bucket, and below a prefix."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from davfusion.stores.s3 import S3Store
from davfusion.stores.s3.upload import MIB
from davfusion.stores.store import Store
from tests.conformance import NAMES, StoreConformance
from tests.quirkproxy import QUIRKS, QuirkProxy, running_quirks
from tests.servers import S3Server

pytestmark = pytest.mark.live

SEAWEEDFS_NAMES = [name for name in NAMES if "\\" not in name]
"""It takes a backslash for a slash, like a file system of Windows."""


class S3Conformance(StoreConformance):
    @pytest.mark.parametrize("name", SEAWEEDFS_NAMES, ids=ascii)
    def test_names(self, store: Store, name: str) -> None:
        super().test_names(store, name)


class TestBucket(S3Conformance):
    @pytest.fixture
    def store(self, s3_server: S3Server, bucket: str) -> Iterator[Store]:
        store = S3Store(bucket, endpoint_url=s3_server.endpoint)
        store.probe_conditions()
        assert store.features.conditional_write
        yield store
        store.reconnect()


class TestPrefixInParts(S3Conformance):
    """Below a prefix, with the SDK's checksums; whatever can go in parts does."""

    @pytest.fixture
    def store(self, s3_server: S3Server, shared_bucket: str) -> Iterator[Store]:
        store = S3Store(
            shared_bucket,
            f"a prefix/{uuid4().hex}/",
            endpoint_url=s3_server.endpoint,
            checksums="sdk",
            multipart_threshold=MIB,
            copy_limit=MIB,
        )
        yield store
        store.reconnect()


@pytest.fixture(scope="module")
def worst_server(s3_server: S3Server) -> Iterator[QuirkProxy]:
    """A server with every quirk that does not exclude another or make a write fail."""
    left_out = {"refuses conditions", "bare etags", "corrupts uploads", "error in 200"}
    quirks = QUIRKS.keys() - left_out
    with running_quirks(s3_server.endpoint, s3_server.key, s3_server.secret, *quirks) as proxy:
        yield proxy


@pytest.mark.slow
class TestWorstServer(S3Conformance):
    @pytest.fixture
    def store(self, worst_server: QuirkProxy, shared_bucket: str) -> Iterator[Store]:
        store = S3Store(
            shared_bucket,
            f"worst/{uuid4().hex}",
            endpoint_url=worst_server.endpoint,
            multipart_threshold=MIB,
        )
        yield store
        store.reconnect()
        assert not store.features.conditional_write
