"""S3Store on servers that differ from AWS, each made from SeaweedFS by a proxy."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest

from davfusion.stores.s3 import S3Store
from davfusion.stores.s3.upload import MIB
from davfusion.stores.store import (
    ABSENT,
    ConflictError,
    StoreAccessError,
    TransientStoreError,
)
from tests.conformance import TREE, contents, names, put, put_all, put_tree
from tests.quirkproxy import QuirkProxy, running_quirks
from tests.servers import S3Server

pytestmark = pytest.mark.live

Quirky = Callable[..., tuple[S3Store, QuirkProxy]]
TWELVE = b"0123456789ab" * MIB


@pytest.fixture
def quirky(s3_server: S3Server, shared_bucket: str) -> Iterator[Quirky]:
    """A store on a server with the given quirks, and that server."""
    with ExitStack() as stack:

        def make(*quirks: str, **settings: Any) -> tuple[S3Store, QuirkProxy]:
            server = stack.enter_context(
                running_quirks(s3_server.endpoint, s3_server.key, s3_server.secret, *quirks)
            )
            store = S3Store(
                shared_bucket,
                f"quirks/{uuid4().hex}",
                endpoint_url=server.endpoint,
                multipart_threshold=10 * MIB,
                part_size=5 * MIB,
                **settings,
            )
            stack.callback(store.reconnect)
            return store, server

        yield make


def require_conditional_writes(store: S3Store) -> None:
    first = put(store, "/file", b"1", if_etag=ABSENT)["etag"]
    second = put(store, "/file", b"2", if_etag=first)["etag"]
    for stale in (first, ABSENT, "0" * 32):
        with pytest.raises(ConflictError):
            put(store, "/file", b"3", if_etag=stale)
    large = put(store, "/file", TWELVE, if_etag=second)["etag"]
    with pytest.raises(ConflictError):
        put(store, "/file", TWELVE[1:], if_etag=second)
    assert store.get_metadata("/file")["etag"] == large
    with pytest.raises(ConflictError):
        put(store, "/missing", if_etag=first)
    assert names(store, "/") == {"file"}


@pytest.mark.parametrize("quirk", ["ignores conditions", "refuses conditions"])
def test_versions_are_compared_here_where_the_server_does_not(quirky: Quirky, quirk: str) -> None:
    store, _ = quirky(quirk)
    require_conditional_writes(store)
    assert not store.features.conditional_write


@pytest.mark.parametrize("quirks", [(), ("bare etags",)])
def test_conditions_in_the_spelling_of_the_server(quirky: Quirky, quirks: tuple[str, ...]) -> None:
    store, server = quirky(*quirks)
    require_conditional_writes(store)
    assert store.features.conditional_write
    server.log.clear()
    put(store, "/file", b"4", if_etag=store.get_metadata("/file")["etag"])
    assert sum(line.startswith("PUT") for line in server.log) == 1


def test_the_server_is_asked_once_for_each_kind_of_condition(quirky: Quirky) -> None:
    store, server = quirky()
    etag = put(store, "/file", if_etag=ABSENT)["etag"]
    etag = put(store, "/file", if_etag=etag)["etag"]
    put(store, "/other", if_etag=ABSENT)
    put(store, "/file", if_etag=etag)
    assert len({line for line in server.log if ".davfusion-probe-" in line}) == 3


@pytest.mark.parametrize("content", [b"", b"small", TWELVE], ids=len)
def test_no_checksums_of_the_sdk_are_sent(quirky: Quirky, content: bytes) -> None:
    store, _ = quirky("refuses checksums", "wants Content-MD5")
    put(store, "/dir/file", content)
    store.duplicate("/dir", "/copy")
    store.delete_many(["/copy/file", "/dir/file"])
    assert contents(store, "/") == {"dir": None, "copy": None}


def test_the_checksums_of_the_sdk_are_an_option(quirky: Quirky) -> None:
    store, _ = quirky("refuses checksums", checksums="sdk")
    with pytest.raises(StoreAccessError, match="InvalidArgument"):
        put(store, "/file")


def test_keys_are_deleted_singly_where_they_must(quirky: Quirky) -> None:
    store, server = quirky("no DeleteObjects")
    files = [f"/dir/{n}" for n in range(40)]
    put_all(store, files)
    store.delete_many(files[:20])
    store.delete("/dir", is_dir=True)
    assert names(store, "/") == set()
    assert sum(line.endswith("?delete") for line in server.log) == 1


@pytest.mark.parametrize("method", ["duplicate", "move"])
def test_copies_go_through_this_machine_where_they_must(quirky: Quirky, method: str) -> None:
    store, _ = quirky("no CopyObject")
    put_tree(store, "/src")
    stored = store.store_fileobject(
        io.BytesIO(TWELVE), "/src/large", modified=12.5, content_type="image/png"
    )
    getattr(store, method)("/src", "/dst")
    assert contents(store, "/dst") == {**TREE, "large": TWELVE}
    assert store.get_metadata("/dst/large") == stored
    assert store.exists("/src") == (method == "duplicate")
    assert not store.features.server_side_copy


def test_an_empty_etag_is_looked_up(quirky: Quirky) -> None:
    store, _ = quirky("empty ETag")
    stored = put(store, "/file", TWELVE)
    assert stored["etag"]
    assert stored["etag"] == store.get_metadata("/file")["etag"]


def test_an_error_inside_a_200_is_an_error(quirky: Quirky) -> None:
    store, _ = quirky("error in 200")
    with pytest.raises(TransientStoreError):
        put(store, "/file", TWELVE)


def test_the_order_of_listings_does_not_matter(quirky: Quirky) -> None:
    store, _ = quirky("reversed listings")
    put_tree(store, "/tree")
    store.duplicate("/tree", "/copy")
    assert contents(store, "/copy") == TREE
    walked = [path for path, _ in store.walk_metadata("/")]
    assert walked.index("/tree") < walked.index("/tree/sub") < walked.index("/tree/sub/file")
    store.move("/tree", "/copy")
    store.delete("/copy", is_dir=True)
    assert names(store, "/") == set()


@pytest.mark.parametrize("content", [b"small", TWELVE], ids=len)
def test_bytes_that_change_on_the_way_are_not_stored(quirky: Quirky, content: bytes) -> None:
    store, server = quirky()
    before = put(store, "/file", b"old")
    server.quirks.add("corrupts uploads")
    with pytest.raises(TransientStoreError, match="BadDigest"):
        put(store, "/file", content)
    assert store.get_metadata("/file")["etag"] == before["etag"]
