"""S3Store: how many requests it makes, and which."""

from collections.abc import Iterator

import pytest

from davfusion.stores.s3 import S3Store
from davfusion.stores.s3.upload import MIB
from davfusion.stores.store import ABSENT, ConflictError
from tests.conformance import Source, put, put_all
from tests.conformance_uploads import KeptUpload, resume
from tests.quirkproxy import QuirkProxy, running_quirks
from tests.servers import S3Server

pytestmark = pytest.mark.live


@pytest.fixture
def server(s3_server: S3Server) -> Iterator[QuirkProxy]:
    with running_quirks(s3_server.endpoint, s3_server.key, s3_server.secret) as server:
        yield server


@pytest.fixture
def store(server: QuirkProxy, bucket: str) -> Iterator[S3Store]:
    store = S3Store(bucket, endpoint_url=server.endpoint)
    yield store
    store.reconnect()


def requests(server: QuirkProxy) -> list[str]:
    """Each request since the last call: LIST, or its method and key."""
    seen = [
        "LIST" if "list-type=2" in line else line.replace(line.split("/")[1].partition("?")[0], "")
        for line in server.log
    ]
    server.log.clear()
    return [line.replace(" //", " /") for line in seen]


def test_one_request_lists_a_thousand_entries(store: S3Store, server: QuirkProxy) -> None:
    put_all(store, [f"/dir/{n}" for n in range(999)])
    store.create_directory("/dir/sub")
    requests(server)
    assert len(store.get_directory_metadata("/dir")) == 1000
    assert requests(server) == ["LIST"]
    assert len(list(store.walk_metadata("/"))) == 1001
    assert requests(server) == ["LIST"]
    put(store, "/dir/one more")
    requests(server)
    assert len(store.get_directory_listing("/dir")) == 1001
    assert requests(server) == ["LIST"] * 2


@pytest.mark.usefixtures("no_temporary_files")
def test_a_small_source_that_does_not_say_its_size_is_one_request(
    store: S3Store, server: QuirkProxy
) -> None:
    store.probe_conditions()
    requests(server)
    store.store_fileobject(Source(b"small"), "/small", if_etag=ABSENT)
    assert requests(server) == ["LIST", "PUT /small"]
    with pytest.raises(ConflictError):
        store.store_fileobject(Source(b"again"), "/small", if_etag=ABSENT)
    assert store.get_file("/small") == b"small"


def test_one_request_deletes_a_thousand_files(store: S3Store, server: QuirkProxy) -> None:
    files = [f"/dir/{n}" for n in range(1000)]
    put_all(store, files)
    requests(server)
    store.delete_many(files)
    assert requests(server) == ["LIST", "LIST", "PUT /dir/", "POST /?delete", "LIST"]
    assert store.get_directory_metadata("/dir") == {}


def test_deleting_a_directory(store: S3Store, server: QuirkProxy) -> None:
    put_all(store, [f"/top/dir/{n}" for n in range(100)])
    put(store, "/top/file")
    requests(server)
    store.delete("/top/dir", is_dir=True)
    seen = requests(server)
    assert seen.count("POST /?delete") == 1
    assert len(seen) <= 8
    store.delete("/top/file")
    assert requests(server) == ["LIST", "PUT /top/", "DELETE /top/file", "LIST"]


def test_a_small_upload(store: S3Store, server: QuirkProxy) -> None:
    upload = KeptUpload()
    resume(store, "/dir/a", b"content", upload)
    assert requests(server) == ["LIST", "PUT /dir/a"]
    upload.may_be_directory = False
    resume(store, "/dir/a", b"other", upload)
    assert requests(server) == ["PUT /dir/a"]
    assert server.asked == []


def test_an_upload_in_parts(bucket: str, server: QuirkProxy) -> None:
    store = S3Store(bucket, endpoint_url=server.endpoint, multipart_threshold=5 * MIB, part_size=1)
    upload = KeptUpload()
    upload.may_be_directory = False
    resume(store, "/a", bytes(11 * MIB), upload)
    seen = requests(server)
    assert len([line for line in seen if line.startswith("PUT")]) == 3
    assert len(seen) == 5
    assert server.asked == []
    store.reconnect()


def test_single_operations(store: S3Store, server: QuirkProxy) -> None:
    put(store, "/dir/a")
    assert requests(server) == ["LIST", "PUT /dir/a"]
    store.get_metadata("/dir/a")
    assert sorted(requests(server)) == ["HEAD /dir/a", "LIST"]
    store.get_file("/dir/a")
    assert requests(server) == ["GET /dir/a"]
    assert not store.exists("/dir/none")
    assert len(requests(server)) == 3
    store.duplicate("/dir/a", "/dir/b")
    assert requests(server)[4:] == ["PUT /dir/b"]
    store.move("/dir/a", "/dir/c")
    looked = "HEAD /dir/a"  # whether it has changed meanwhile
    assert requests(server)[4:] == ["PUT /dir/c", looked, "DELETE /dir/a"]
    store.move("/dir/c", "/c")
    assert requests(server)[5:] == ["PUT /c", "HEAD /dir/c", "DELETE /dir/c", "LIST"]


def test_a_start_connects_and_looks_whether_the_root_is_small(
    server: QuirkProxy, bucket: str
) -> None:
    store = S3Store(bucket, "share", endpoint_url=server.endpoint, batch=2)
    put_all(store, ["/a/1", "/a/2", "/b"])
    requests(server)
    assert store.warm_up(3)
    assert requests(server) == ["LIST"] * 3
    put(store, "/c")
    requests(server)
    assert not store.warm_up(1)
    assert requests(server) == ["LIST"]
    store.reconnect()


def test_a_walk_that_ends_early_asks_for_no_more_than_the_page_that_follows(
    server: QuirkProxy, bucket: str
) -> None:
    store = S3Store(bucket, endpoint_url=server.endpoint, batch=2)
    put_all(store, [f"/{n}" for n in range(12)])
    requests(server)
    walk = store.walk_metadata("/")
    next(walk)
    del walk
    assert requests(server) in (["LIST"], ["LIST"] * 2)
    store.reconnect()
