"""S3Store: how it takes what goes wrong, through a proxy that puts faults between."""

import io
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from davfusion.cache.asides import NotedAsides
from davfusion.stores.errors import UnreachableError
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.s3 import S3Store
from davfusion.stores.s3.copy import Copier
from davfusion.stores.s3.look import Found
from davfusion.stores.s3.tree import TreeCopy
from davfusion.stores.s3.upload import MIB
from davfusion.stores.store import (
    InterruptedException,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
    TransientStoreError,
)
from tests.conformance import Source, SourceError, contents, fail, names, put, put_all, put_tree
from tests.samples import SizedSource, drain
from tests.servers import S3Server

pytestmark = pytest.mark.live

TWELVE = b"0123456789ab" * MIB


@pytest.fixture
def store(s3_proxy: Any, bucket: str) -> Iterator[S3Store]:
    """A store behind the fault proxy, sending in parts from 10 MiB on."""
    store = S3Store(
        bucket,
        endpoint_url=f"http://127.0.0.1:{s3_proxy.port}",
        multipart_threshold=10 * MIB,
        part_size=5 * MIB,
        retry=RetryPolicy(first=0),
    )
    yield store
    store.reconnect()


def unfinished(client: Any, bucket: str) -> list[Any]:
    uploads: list[Any] = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return uploads


def test_a_source_that_breaks_off_leaves_no_parts(
    store: S3Store, s3_client: Any, bucket: str
) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 7 * MIB:
                raise SourceError
            return super().read(size)

    with pytest.raises(SourceError):
        store.store_fileobject(Breaking(TWELVE), "/file")
    with pytest.raises(SourceError):
        store.store_fileobject(Source(TWELVE, fail), "/file")
    assert unfinished(s3_client, bucket) == []
    assert not store.exists("/file")


@pytest.mark.parametrize("kind", [SizedSource, Source])
@pytest.mark.usefixtures("no_temporary_files")
def test_a_large_source_is_sent_while_it_comes(
    store: S3Store, s3_proxy: Any, s3_client: Any, bucket: str, kind: type[Source]
) -> None:
    """A part that fails is sent again, for the source cannot be rewound."""
    s3_proxy.rules = [
        {"match": "partNumber=2", "times": 1, "action": "status", "status": 503},
        {"match": "partNumber=3", "times": 1, "action": "cut_request", "bytes": MIB},
    ]
    stored = store.store_fileobject(kind(TWELVE), "/file")
    assert stored == store.get_metadata("/file")
    assert store.get_file("/file") == TWELVE
    broken = [SizedSource(TWELVE, size) for size in (len(TWELVE) - 1, len(TWELVE) + 1)]
    for source in (*broken, kind(TWELVE, at_end=fail)):
        with pytest.raises((StoreAccessError, SourceError)):
            store.store_fileobject(source, "/file")
    s3_proxy.rules = [{"match": "partNumber=2", "action": "status", "status": 503}]
    with pytest.raises(TransientStoreError):
        store.store_fileobject(kind(TWELVE), "/file")
    assert unfinished(s3_client, bucket) == []
    assert store.get_file("/file") == TWELVE


def test_interrupting_an_upload_leaves_no_parts(
    store: S3Store, s3_client: Any, bucket: str
) -> None:
    event = threading.Event()

    class Interrupting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 7 * MIB:
                event.set()
            return super().read(size)

    with pytest.raises(InterruptedException):
        store.store_fileobject(Interrupting(TWELVE), "/file", event)
    assert unfinished(s3_client, bucket) == []
    assert not store.exists("/file")


@pytest.mark.parametrize(
    "rule",
    [
        {"match": "partNumber=2", "action": "status", "status": 503},
        {"match": "partNumber=2", "action": "drop"},
        {"match": "partNumber=3", "action": "cut_request", "bytes": MIB},
        {"match": "POST .*uploadId", "action": "status", "status": 500},
    ],
)
def test_a_failed_upload_leaves_no_parts(
    store: S3Store, s3_proxy: Any, s3_client: Any, bucket: str, rule: dict[str, Any]
) -> None:
    put(store, "/file", b"old")
    s3_proxy.rules = [rule]
    with pytest.raises(TransientStoreError):
        put(store, "/file", TWELVE)
    assert unfinished(s3_client, bucket) == []
    assert store.get_file("/file") == b"old"


def test_parts_that_cannot_be_removed_are_once_the_service_answers(
    store: S3Store, s3_proxy: Any, s3_client: Any, bucket: str, tmp_path: Path
) -> None:
    """In the process that failed, too."""
    with closing(NotedAsides(tmp_path / "asides", lambda _paths: None)) as asides:
        store.note_asides(asides)
        s3_proxy.rules = [{"match": "uploadId", "action": "status", "status": 503}]
        with pytest.raises(TransientStoreError):
            put(store, "/file", TWELVE)
        assert not asides.settle(store, store)
        assert len(unfinished(s3_client, bucket)) == 1
        s3_proxy.rules = []
        assert asides.settle(store, store)
        assert unfinished(s3_client, bucket) == []


@pytest.mark.parametrize("size", [-1, 100_000])
def test_a_body_that_breaks_off_is_no_end(store: S3Store, s3_proxy: Any, size: int) -> None:
    put(store, "/file", TWELVE[:MIB])
    s3_proxy.rules = [{"match": "GET .*/file", "action": "cut_response", "bytes": 300_000}]
    with store.open_read("/file") as stream, pytest.raises(TransientStoreError):
        drain(stream, size)


def test_closing_early_does_not_read_the_rest(store: S3Store, s3_proxy: Any) -> None:
    put(store, "/file", TWELVE * 4)
    s3_proxy.log.clear()
    with store.open_read("/file") as stream:
        assert stream.read(10) == TWELVE[:10]
    store.get_metadata("/file")
    assert all(entry["sent"] < 24 * MIB for entry in s3_proxy.log)


@pytest.mark.parametrize(
    ("rule", "error", "status"),
    [
        ({"status": 503, "headers": {"Retry-After": "7"}}, TransientStoreError, 503),
        ({"status": 500}, TransientStoreError, 503),
        ({"status": 400, "body": "RequestTimeout"}, TransientStoreError, 503),
        ({"status": 409, "body": "ConditionalRequestConflict"}, TransientStoreError, 503),
        ({"status": 403, "body": "AccessDenied"}, StoreAutorizationError, 403),
        ({"status": 400, "body": "ExpiredToken"}, StoreAutorizationError, 403),
        ({"status": 400, "body": "EntityTooLarge"}, StoreSpaceLimitError, 413),
        ({"status": 403, "body": "QuotaExceeded"}, StoreSpaceLimitError, 507),
        ({"status": 507, "body": "XMinioStorageFull"}, StoreSpaceLimitError, 507),
        ({"status": 400, "body": "InvalidArgument"}, StoreAccessError, 400),
        ({"action": "drop"}, UnreachableError, 503),
    ],
)
def test_errors(
    store: S3Store,
    s3_proxy: Any,
    bucket: str,
    rule: dict[str, Any],
    error: type[StoreAccessError],
    status: int,
) -> None:
    code = rule.get("body")
    body = f"<Error><Code>{code}</Code></Error>" if code else ""
    s3_proxy.rules = [{"match": "PUT ", "action": "status", **rule, "body": body}]
    with pytest.raises(StoreAccessError, match=f"s3://{bucket}/file") as caught:
        put(store, "/file")
    assert (type(caught.value), caught.value.status) == (error, status)
    assert (code or "") in str(caught.value)
    if "headers" in rule:
        assert getattr(caught.value, "retry_after", None) == 7
    assert s3_proxy.rules[0]["used"] == 1, "a retry of its own"


def test_a_tree_goes_on_past_failures(store: S3Store, s3_proxy: Any) -> None:
    put_all(store, [f"/src/{n}" for n in range(20)])
    s3_proxy.rules = [{"match": "PUT .*/dst/7$", "action": "status", "status": 503}]
    with pytest.raises(PartialFailureError) as caught:
        store.move("/src", "/dst")
    assert list(caught.value.failures) == ["/src/7"]
    assert len(names(store, "/src")) == 20
    assert len(names(store, "/dst")) == 19
    s3_proxy.rules = []
    store.move("/src", "/dst")
    assert len(names(store, "/dst")) == 20


def test_what_changes_while_its_folder_is_moved_stays(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tree(store, "/src", {"edited": b"old", "file": b"1"})
    copy_all = TreeCopy.run

    def copy_and_edit(tree: TreeCopy, replaced: Found) -> None:
        copy_all(tree, replaced)
        put(store, "/src/edited", b"edited")

    with monkeypatch.context() as patch:
        patch.setattr(TreeCopy, "run", copy_and_edit)
        with pytest.raises(PartialFailureError) as caught:
            store.move("/src", "/dst")
    assert list(caught.value.failures) == ["/src/edited"]
    assert contents(store, "/src") == {"edited": b"edited", "file": b"1"}
    store.move("/src", "/dst")
    assert contents(store, "/") == {"dst": None, "dst/edited": b"edited", "dst/file": b"1"}


def test_a_file_that_changes_while_it_is_moved_stays(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "/file", b"old")
    copy_one = Copier.copy

    def copy_and_edit(copier: Copier, src: str, dst: str, size: int) -> None:
        copy_one(copier, src, dst, size)
        put(store, "/file", b"edited")

    with monkeypatch.context() as patch:
        patch.setattr(Copier, "copy", copy_and_edit)
        with pytest.raises(PartialFailureError) as caught:
            store.move("/file", "/moved")
    assert {path: error.status for path, error in caught.value.failures.items()} == {"/file": 412}
    assert contents(store, "/") == {"file": b"edited", "moved": b"old"}
    store.move("/file", "/moved")
    assert contents(store, "/") == {"moved": b"edited"}


def test_deleting_goes_on_past_failures(store: S3Store, s3_proxy: Any) -> None:
    put_all(store, ["/a", "/b", "/c"])
    failed = "<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    s3_proxy.rules = [{"match": "delete", "action": "status", "status": 200, "body": failed}]
    with pytest.raises(PartialFailureError) as caught:
        store.delete_many(["/a", "/b", "/c"])
    assert isinstance(caught.value.failures["/b"], StoreAutorizationError)


def test_check_access_says_what_is_wrong(
    s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(name: str = bucket, endpoint: str = s3_server.endpoint) -> StoreAccessError:
        with pytest.raises(StoreAccessError) as caught:
            S3Store(name, endpoint_url=endpoint).check_access()
        assert "\n" not in str(caught.value)
        assert s3_server.secret not in str(caught.value)
        return caught.value

    S3Store(bucket, endpoint_url=s3_server.endpoint).check_access()
    assert "s3://no-such-bucket/: S3 answered NoSuchBucket" in str(error("no-such-bucket"))
    assert isinstance(error(endpoint="http://127.0.0.1:9"), TransientStoreError)
    assert "Invalid bucket name" in str(error("no/bucket"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert isinstance(error(), StoreAutorizationError)
    assert "SignatureDoesNotMatch" in str(error())
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    assert "credentials" in str(error())
    monkeypatch.setenv("AWS_PROFILE", "missing")
    assert "missing" in str(error())


def test_the_endpoint_of_the_environment(
    s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    store = S3Store(bucket)
    put(store, "/file")
    assert names(store, "/") == {"file"}
    assert store.get_name() == f"s3://{bucket} at {s3_server.endpoint.partition('//')[2]}"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_makes_its_own_connections(store: S3Store) -> None:
    put(store, "/file")
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os._exit(0 if store.get_metadata("/file") and store.get_file("/file") else 1)
        os._exit(2)
    assert store.get_file("/file") == b"content"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_many_threads_share_a_store(store: S3Store) -> None:
    put_tree(store, "/tree")
    with ThreadPoolExecutor(16) as pool:
        seen = list(pool.map(lambda _: store.get_metadata("/tree/top")["etag"], range(200)))
    assert len(set(seen)) == 1


def test_a_file_larger_than_s3_takes_is_not_sent(store: S3Store, s3_proxy: Any) -> None:
    class Huge(io.BytesIO):
        def seek(self, offset: int, whence: int = 0, /) -> int:
            return 1 << 50 if whence else super().seek(offset)

    with pytest.raises(StoreSpaceLimitError) as caught:
        store.store_fileobject(Huge(), "/file")
    assert caught.value.status == 413
    assert s3_proxy.log == []


class Many:
    """A source of 300 MiB that nobody holds, and that does not say so."""

    _left = 300 * MIB

    def read(self, size: int = -1, /) -> bytes:
        data = bytes(min(size, self._left))
        self._left -= len(data)
        return data


@pytest.mark.slow
@pytest.mark.large
def test_memory_does_not_grow_with_the_file(store: S3Store, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        for n in range(300):
            file.write(bytes([n % 256]) * MIB)
    store.exists("/large")
    tracemalloc.start()
    try:
        store.store_file(str(large))
        with store.open_read("/large") as stream:
            drain(stream, 256 * 1024)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
        store.store_fileobject(Many(), "/large")
        assert tracemalloc.get_traced_memory()[1] < 48 * MIB
    finally:
        tracemalloc.stop()
    assert store.get_bytes("/large") == 300 * MIB


def test_missing_is_missing(store: S3Store) -> None:
    with pytest.raises(NoSuchFilesytemObjectError):
        list(store.walk_metadata("/missing"))
    store.delete("/missing/file")
    store.delete_many(["/missing/file", "/missing/other"])
    assert contents(store, "/") == {}


LAST_ONE_LEAVES: dict[str, Callable[[S3Store], None]] = {
    "/top/dir/a file": lambda store: store.delete("/top/dir/a file"),
    "/top/dir/another": lambda store: store.delete_many(["/top/dir/another", "/top/dir/missing"]),
    "/top/dir/sub/file": lambda store: store.delete("/top/dir/sub", is_dir=True),
    "/top/dir/moved": lambda store: store.move("/top/dir/moved", "/moved"),
    "/top/dir/moved too/file": lambda store: store.move("/top/dir/moved too", "/moved"),
}


@pytest.mark.parametrize("last", LAST_ONE_LEAVES)
def test_a_directory_is_marked_before_its_last_member_goes(
    store: S3Store, s3_proxy: Any, s3_client: Any, bucket: str, last: str
) -> None:
    """Who is killed after the deletion can do it no more."""
    put(store, last)
    s3_proxy.rules = [{"match": r"^DELETE |\?delete", "action": "drop"}]
    with suppress(StoreAccessError):
        LAST_ONE_LEAVES[last](store)
    assert "top/dir/" in keys_of(s3_client, bucket)


def test_a_directory_that_keeps_a_member_is_not_marked(
    store: S3Store, s3_client: Any, bucket: str
) -> None:
    put_all(store, [*LAST_ONE_LEAVES, "/top/dir/stays"])
    for leave in LAST_ONE_LEAVES.values():
        leave(store)
    assert keys_of(s3_client, bucket) == {"top/dir/stays", "moved/file"}


def keys_of(client: Any, bucket: str) -> set[str]:
    return {entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]}
