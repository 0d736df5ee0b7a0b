"""GET and HEAD: ranges (row D6), a folder's page, and what happens when the store breaks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfusion.provider.download import AT_ONCE, MAX_RANGES, parse_ranges
from davfusion.stores.errors import NoSuchFilesytemObjectError, TransientStoreError
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import ReadableStream
from tests.provider.client import DavClient

DATA = bytes(range(256)) * 4


@pytest.fixture
def client() -> DavClient:
    client = DavClient()
    client.put("/f", DATA)
    return client


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1000-", 1000, 1024),
        ("bytes=1000-99999", 1000, 1024),
        ("bytes=-24", 1000, 1024),
        ("bytes=-99999", 0, 1024),
        ("Bytes = 5-9", 5, 10),
    ],
)
def test_one_range(client: DavClient, header: str, start: int, end: int) -> None:
    reply = client.get("/f", Range=header)
    assert (reply.status, reply.body) == (206, DATA[start:end])
    assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/1024"
    assert reply.headers["content-length"] == str(end - start)


@pytest.mark.parametrize(
    "header", ["bytes=", "bytes=x", "bytes=-", "bytes=9-5", "lines=1-2", "0-5", "bytes=--5"]
)
def test_a_range_that_cannot_be_read_is_ignored(client: DavClient, header: str) -> None:
    assert (client.get("/f", Range=header).status, client.get("/f").body) == (200, DATA)


@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=5000-6000", "bytes=-0", "bytes=2000-,-0"])
def test_a_range_outside_is_416(client: DavClient, header: str) -> None:
    reply = client.get("/f", Range=header)
    assert (reply.status, reply.headers["content-range"]) == (416, "bytes */1024")


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "image/svg+xml", "Application/XML"])
def test_a_page_that_lies_here_has_an_origin_of_its_own(client: DavClient, kind: str) -> None:
    client.put("/page", DATA, Content_Type=kind)
    for method in ("GET", "HEAD"):
        assert client(method, "/page").headers["content-security-policy"][:7] == "sandbox"
    assert "content-security-policy" not in client.get("/f").headers


def test_several_ranges(client: DavClient) -> None:
    reply = client.get("/f", Range="bytes=0-4, 100-109,-3")
    assert reply.status == 206
    assert len(reply.body) == int(reply.headers["content-length"])
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", reply.headers["content-type"])
    assert boundary
    parts = reply.body.split(b"--" + boundary[1].encode())[1:-1]
    bodies = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in parts]
    assert bodies == [DATA[:5], DATA[100:110], DATA[-3:]]
    assert b"Content-Range: bytes 100-109/1024" in parts[1]


def test_too_many_ranges_get_the_whole(client: DavClient) -> None:
    header = "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1))
    assert client.get("/f", Range=header).status == 200


def test_if_range(client: DavClient) -> None:
    head = client("HEAD", "/f").headers
    assert client.get("/f", Range="bytes=0-1", If_Range=head["etag"]).status == 206
    for bad in ('"x"', "W/" + head["etag"], head["last-modified"], "junk"):
        assert client.get("/f", Range="bytes=0-1", If_Range=bad).status == 200


@given(st.text(alphabet="bytes=-, 0123456789x", max_size=40), st.integers(0, 1 << 40))
def test_any_range_header_gives_ranges_within_the_file(header: str, size: int) -> None:
    for part in parse_ranges("bytes=" + header, size) or []:
        assert 0 <= part.start < size
        assert 0 < part.length <= size - part.start


def test_an_empty_file(client: DavClient) -> None:
    client.put("/e", b"")
    reply = client.get("/e")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")
    assert client.get("/e", Range="bytes=0-").status == 416


def test_head_says_what_get_says(client: DavClient) -> None:
    for path, headers in (("/f", {}), ("/none", {}), ("/", {}), ("/f", {"If-None-Match": "*"})):
        head, get = client("HEAD", path, headers=headers), client("GET", path, headers=headers)
        assert (head.status, head.body, head.headers) == (get.status, b"", get.headers)


def test_a_folder_is_a_page(client: DavClient) -> None:
    client.mkcol("/a <b>")
    client.put("/a <b>/x&y", b"1")
    page = client.get("/a <b>")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b"x&amp;y" in page.body
    assert b"<b>" not in page.body
    assert client("HEAD", "/a <b>").status == 200


class Stale(MemoryStore):
    """A store whose first read finds that the version has changed."""

    reads = 0

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        self.reads += 1
        if self.reads == 1:
            super().delete(path)
            raise NoSuchFilesytemObjectError(path)
        return super().open_read(path, offset, length, etag)


def test_what_has_changed_meanwhile_is_looked_up_again() -> None:
    client = DavClient(Stale())
    client.put("/f", b"x")
    assert client.get("/f").status == 404


class Short(MemoryStore):
    """A store whose answers end early."""

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        return super().open_read(path, offset, (length or self.get_bytes(path)) - 2, etag)


def test_an_answer_that_ends_early_is_never_taken_for_whole() -> None:
    client = DavClient(Short())
    client.put("/small", b"12345")
    assert client.get("/small").status == 503
    client.put("/large", bytes(AT_ONCE + 1))
    with pytest.raises(TransientStoreError):
        client.get("/large")
