"""PATCH of a part of a file, as sabre/dav clients send it."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsgidav.dav_error import DAVError

from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.provider.patch import PARTIAL_UPDATE, parse_update_range
from davfusion.stores.memory import MemoryStore
from davfusion.stores.observed import ObservedStore
from davfusion.stores.store import NoSuchFilesytemObjectError, ReadableStream
from davfusion.stores.wrapper import StoreWrapper
from tests.provider.client import CutBody, DavClient, Reply
from tests.remote import RemoteStore

OLD = b"0123456789"


@pytest.fixture
def client() -> DavClient:
    client = DavClient()
    client.put("/f", OLD, Content_Type="text/x-kept")
    client.mkcol("/d")
    return client


def patch(
    client: DavClient,
    where: str,
    body: bytes,
    path: str = "/f",
    *,
    chunked: bool = False,
    **more: str,
) -> Reply:
    headers = {"Content-Type": PARTIAL_UPDATE, "X-Update-Range": where}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    return client("PATCH", path, body, headers, chunked=chunked)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("where", "new"),
    [
        ("append", OLD + b"abc"),
        ("bytes=0-2", b"abc3456789"),
        ("bytes=4-6", b"0123abc789"),
        ("bytes=4-", b"0123abc789"),
        ("bytes=9-11", b"012345678abc"),
        ("bytes=10-", OLD + b"abc"),
        ("bytes=-3", b"0123456abc"),
        ("bytes=-1", b"012345678abc"),
        ("bytes=-99", b"abc3456789"),
    ],
)
def test_a_part_is_replaced(client: DavClient, where: str, new: bytes, chunked: bool) -> None:
    before = client.etag("/f")
    reply = patch(client, where, b"abc", chunked=chunked)
    assert reply.status == 204, reply.body
    got = client.get("/f")
    assert (got.body, got.headers["content-type"]) == (new, "text/x-kept")
    assert reply.headers["etag"] == got.headers["etag"] != before


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ("", 400),
        ("bytes=-", 400),
        ("bytes=x-2", 400),
        ("lines=1-2", 400),
        ("bytes=1-2,4-5", 400),
        ("bytes=11-13", 416),
        ("bytes=4-3", 416),
        ("bytes=4-5", 416),
        ("bytes=4-99999999999999", 416),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_range_that_does_not_fit_changes_nothing(
    client: DavClient, where: str, status: int, chunked: bool
) -> None:
    assert patch(client, where, b"abc", chunked=chunked).status == status
    assert client.get("/f").body == OLD


def test_conditions_and_locks_hold(client: DavClient) -> None:
    etag = client.etag("/f")
    assert patch(client, "append", b"x", If_Match='"other"').status == 412
    assert patch(client, "append", b"x", If_Match=etag).status == 204
    assert patch(client, "append", b"x", If_Match=etag).status == 412
    token = client.token("/f")
    assert patch(client, "append", b"x").status == 423
    assert patch(client, "append", b"y", If=f"({token})").status == 204
    assert client.get("/f").body == OLD + b"xy"


def test_what_cannot_be_patched(client: DavClient) -> None:
    assert patch(client, "append", b"x", "/none").status == 404
    assert patch(client, "append", b"x", "/d").status == 405
    other = patch(client, "append", b"x", Content_Type="text/plain")
    assert (other.status, other.headers["accept-patch"]) == (415, PARTIAL_UPDATE)
    assert client.put("/f", b"x", Content_Range="bytes 0-0/10").status == 400
    assert client.get("/f").body == OLD


@pytest.mark.parametrize("where", ["append", "bytes=2-", "bytes=2-9"])
def test_a_body_that_breaks_off_changes_nothing(client: DavClient, where: str) -> None:
    headers = {
        "Content-Type": PARTIAL_UPDATE, "X-Update-Range": where, "Content-Length": "8"
    }  # fmt: skip
    assert client("PATCH", "/f", CutBody(b"abc"), headers).status == 400
    assert client.get("/f").body == OLD
    assert patch(client, where, b"abcdefgh", Content_MD5="AAAAAAAAAAAAAAAAAAAAAA==").status == 400
    assert client.get("/f").body == OLD


def test_what_waits_to_be_sent_and_what_was_sent_are_patched(tmp_path: Path) -> None:
    service = RemoteStore()
    store = MultiprocessingCachingStore(service, cache_dir=tmp_path, write_back_delay=0)
    client = DavClient(store)
    client.put("/f", OLD)
    assert patch(client, "bytes=2-3", b"ab").status == 204
    store.flush()
    assert service.get_file("/f") == b"01ab456789"
    assert patch(client, "bytes=8-", b"cd").status == 204
    assert patch(client, "append", b"", Content_Length="0").status == 204
    store.flush()
    assert service.get_file("/f") == client.get("/f").body == b"01ab4567cd"
    store.close()


def test_a_patch_is_announced_and_costs_two_reads_and_a_write() -> None:
    store = ObservedStore(MemoryStore())
    client = DavClient(store)
    options = client("OPTIONS", "/").headers
    assert "sabredav-partialupdate" in options["dav"]
    assert ("PATCH" in options["allow"], options["accept-patch"]) == (True, PARTIAL_UPDATE)
    client.put("/f", bytes(3_000_000))
    store.reset()
    assert patch(client, "bytes=2000000-2000002", b"abc").status == 204
    assert store.calls == {"get_metadata": 1, "open_read": 2, "store_fileobject": 1}
    assert client.get("/f").body == bytes(2_000_000) + b"abc" + bytes(999_997)


class VanishingStore(StoreWrapper):
    """Another program removes each file before it is read."""

    def open_read(self, path: str, *_: object, **__: object) -> ReadableStream:
        raise NoSuchFilesytemObjectError(path)


def test_a_file_that_goes_meanwhile_is_missing(client: DavClient) -> None:
    assert patch(DavClient(VanishingStore(client.store)), "append", b"x").status == 404


@given(
    st.from_regex(r"(append|bytes ?= ?[0-9]{0,25}-[0-9]{0,25})", fullmatch=True)
    | st.text("bytes=append-0123456789 ,", max_size=40),
    st.integers(0, 1 << 50),
)
def test_any_range_is_read_or_refused(header: str, size: int) -> None:
    try:
        start, length = parse_update_range(header, size)
    except DAVError as error:
        assert error.value in (400, 416)
    else:
        assert 0 <= start <= size
        assert length is None or length > 0


class Cut(StoreWrapper):
    """What is read of it ends early, and nothing says so."""

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        with super().open_read(path, offset, length, etag) as stream:
            return io.BytesIO(stream.read()[:-1])


def test_no_new_version_or_checksum_is_made_of_a_part() -> None:
    inner = MemoryStore()
    client = DavClient(Cut(inner))
    client.put("/f", OLD)
    date = "<D:getlastmodified>Fri, 14 Jul 2017 02:40:00 GMT</D:getlastmodified>"
    assert client.proppatch("/f", date).status == 503
    assert inner.get_file("/f") == OLD
    assert client("PATCH", "/f", headers={"X-Recalculate-Hash": "md5"}).status == 503
    assert "oc-checksum" not in client("HEAD", "/f").headers


def test_a_checksum_is_told_again_as_rclone_asks_nextcloud_for_it() -> None:
    store = ObservedStore(MemoryStore())
    client = DavClient(store)

    def asked(kind: str) -> Reply:
        return client("PATCH", "/f", headers={"X-Recalculate-Hash": kind})

    client.put("/f", b"content", OC_Checksum="SHA1:040f06fd774092478d450774f5ba30c5da78acc8")
    for kind, checksum in (
        ("sha1", "SHA1:040f06fd774092478d450774f5ba30c5da78acc8"),
        ("MD5", "MD5:9a0364b9e99bb480dd25e1f0284c8555"),
    ):
        assert (asked(kind).status, asked(kind).headers["oc-checksum"]) == (204, checksum)
    assert store.calls["open_read"] == 0
    assert asked("sha256").headers["oc-checksum"].startswith("SHA256:ed7002b439e9ac845f22357d822b")
    assert asked("sha256").status == 204
    assert store.calls["open_read"] == 1
    assert asked("crc").status == 400
