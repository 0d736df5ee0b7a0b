"""PUT: what is checked before the old content goes (invariant 7)."""

import base64
import hashlib
import io
import time
import zlib
from pathlib import Path

import pytest

from davfusion.provider.state import State
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.memory import MemoryStore
from tests.cache.writeback import share
from tests.flat_filesystem import FlatFileSystem
from tests.provider.client import CutBody, DavClient

BODY = b"The new content."


@pytest.fixture
def client() -> DavClient:
    client = DavClient()
    client.put("/f", b"old")
    return client


def digest(name: str, data: bytes = BODY) -> str:
    return base64.b64encode(hashlib.new(name, data).digest()).decode()


def checksum(name: str) -> str:
    return hashlib.new(name, BODY).hexdigest()


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-MD5": digest("md5")},
        {"Digest": "sha-256=" + digest("sha256")},
        {"Digest": f"unixsum=30637, SHA={digest('sha1')}"},
        {"Content-Digest": f"sha-512=:{digest('sha512')}:"},
        {"OC-Checksum": "SHA1:" + checksum("sha1")},
        {"OC-Checksum": "md5:" + checksum("md5").upper()},
        {"OC-Checksum": f"ADLER32:{zlib.adler32(BODY):08x}"},
        {"OC-Checksum": "CRC32:00000000"},
    ],
)
def test_a_digest_that_matches(client: DavClient, headers: dict[str, str]) -> None:
    assert client("PUT", "/f", BODY, headers).status == 204
    assert client.get("/f").body == BODY


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-MD5": digest("md5", b"other")},
        {"Content-MD5": "not base64!"},
        {"Digest": "sha-256=" + digest("sha256", b"other")},
        {"OC-Checksum": "SHA1:" + "0" * 40},
        {"OC-Checksum": "SHA1:abc"},
        {"OC-Checksum": "ADLER32:00000001"},
        {"X-OC-Mtime": "yesterday"},
        {"X-OC-Mtime": "nan"},
        {"Content-Range": "bytes 0-3/10"},
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_digest_that_does_not(client: DavClient, headers: dict[str, str], chunked: bool) -> None:
    before = client.get("/f")
    assert client("PUT", "/f", BODY, headers, chunked=chunked).status == 400
    assert client.get("/f") == before


def test_a_body_that_ends_early(client: DavClient) -> None:
    before = client.get("/f")
    short = client("PUT", "/f", io.BytesIO(BODY), {"Content-Length": "100"})
    assert short.status == 400
    assert client.get("/f") == before
    assert client("PUT", "/new", io.BytesIO(b""), {"Content-Length": "1"}).status == 400
    assert client.get("/new").status == 404


@pytest.mark.parametrize("headers", [{"Content-Length": "100"}, {"Transfer-Encoding": "chunked"}])
def test_a_connection_that_breaks(client: DavClient, headers: dict[str, str]) -> None:
    before = client.get("/f")
    reply = client("PUT", "/f", CutBody(BODY), headers)
    assert reply.status == 400
    assert client.get("/f") == before


def test_a_time_that_cannot_be_kept_is_not_said_to_be_accepted() -> None:
    client = DavClient(FsspecStore(f"{FlatFileSystem.protocol}://bucket", objects={}))
    reply = client.put("/f", BODY, X_OC_Mtime="1600000000")
    assert reply.status == 201
    assert "x-oc-mtime" not in reply.headers
    date = "<D:getlastmodified>Sun, 06 Nov 1994 08:49:37 GMT</D:getlastmodified>"
    reply = client.proppatch("/f", date)
    assert b"403 Forbidden" in reply.body


def test_a_time_that_cannot_be_kept_does_not_show_until_it_is_sent(tmp_path: Path) -> None:
    store = share(FsspecStore(f"{FlatFileSystem.protocol}://bucket", objects={}), tmp_path)
    DavClient(store).put("/f", BODY, X_OC_Mtime="1600000000")
    assert store.get_modified("/f") == pytest.approx(time.time(), abs=60)


def test_the_answer_names_the_version(client: DavClient) -> None:
    reply = client.put("/f", BODY, X_OC_Mtime="1600000000")
    assert (reply.status, reply.headers["x-oc-mtime"]) == (204, "accepted")
    got = client.get("/f").headers
    assert (reply.headers["etag"], reply.headers["last-modified"]) == (
        got["etag"],
        got["last-modified"],
    )
    assert got["last-modified"] == "Sun, 13 Sep 2020 12:26:40 GMT"


def test_where_a_file_cannot_be(client: DavClient) -> None:
    client.mkcol("/d")
    assert client.put("/d", b"x").status == 405
    assert client.put("/", b"x").status == 405
    assert client.put("/none/f", b"x").status == 409
    assert client.put("/f/g", b"x").status == 409


def test_media_types(client: DavClient) -> None:
    client("PUT", "/a.txt", b"x", {"Content-Type": "application/octet-stream"})
    client("PUT", "/b", b"x", {"Content-Type": "text/x-own; charset=utf-8"})
    assert client.get("/a.txt").headers["content-type"] == "text/plain"
    assert client.get("/b").headers["content-type"] == "text/x-own; charset=utf-8"
    client("PUT", "/c", b"x")
    assert client.get("/c").headers["content-type"] == "application/octet-stream"
    for refused_by_stores in ("text/\x7f", "a/b\tc", "plain", "a/" + "b" * 9000):
        client("PUT", "/d.txt", b"x", {"Content-Type": refused_by_stores})
        assert client.get("/d.txt").headers["content-type"] == "text/plain"


def test_a_lock_taken_while_the_body_comes_in_is_honoured(client: DavClient) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() == 0:
                assert client.lock("/f").status == 200
            return super().read(size)

    assert client("PUT", "/f", Slow(BODY), {"Content-Length": str(len(BODY))}).status == 423
    assert client.get("/f").body == b"old"


SUM = "SHA1:040f06fd774092478d450774f5ba30c5da78acc8"  # of `content`
SUMS = f"{SUM} MD5:9a0364b9e99bb480dd25e1f0284c8555"
"""With what rclone compares by."""


def test_a_checksum_is_given_back_with_the_version_it_came_with(tmp_path: Path) -> None:
    client = DavClient(MemoryStore(), State(tmp_path / "state.sqlite"))
    name = "{http://owncloud.org/ns}checksums"
    inner = b'<prop><checksums xmlns="http://owncloud.org/ns"/></prop>'
    query = b'<propfind xmlns="DAV:">%s</propfind>' % inner

    def known(path: str, depth: str) -> str | None:
        folder = path if depth == "0" else "/"
        found = client("PROPFIND", folder, query, {"Depth": depth}).properties()[path]
        return "".join(found[name][1].itertext()) if found[name][0] == 200 else None

    client.put("/a", b"content", OC_Checksum=SUM)
    assert client.get("/a").headers["oc-checksum"] == SUM
    assert (known("/a", "0"), known("/a", "1")) == (SUMS, SUMS)
    client("COPY", "/a", headers={"Destination": "/c"})
    client("MOVE", "/a", headers={"Destination": "/b"})
    assert (known("/b", "0"), known("/c", "1")) == (SUMS, SUMS)
    client.put("/d", b"content", OC_Checksum=SUMS.split()[1])
    assert known("/d", "0") == SUMS.split()[1]
    client.state.close()
    client = DavClient(client.store, State(tmp_path / "state.sqlite"))
    assert client("HEAD", "/b").headers["oc-checksum"] == SUM
    client.put("/b", b"other")
    assert "oc-checksum" not in client.get("/b").headers
    assert (known("/b", "0"), known("/b", "1")) == (None, None)
    assert client.put("/b", b"broken", OC_Checksum=SUM).status == 400
    assert name not in client.propfind("/c").properties()["/c"]
    client.state.close()


@pytest.mark.parametrize("seconds", ["253402300800", "-30610224001", "1e300", "nan", "inf"])
def test_a_date_that_cannot_be_told_is_refused(client: DavClient, seconds: str) -> None:
    assert client.put("/new", b"x", X_OC_Mtime=seconds).status == 400
    assert client.get("/new").status == 404


@pytest.mark.parametrize("seconds", [1e15, 253402300800, -1e12])
def test_a_date_that_cannot_be_told_does_not_spoil_the_listing(
    client: DavClient, seconds: float
) -> None:
    client.store.store_fileobject(io.BytesIO(b"x"), "/odd", modified=seconds)
    date = client.get("/odd").headers["last-modified"]
    assert date.split()[3] == ("1000" if seconds < 0 else "9999")
    assert client.propfind("/", depth="1").status == 207


@pytest.mark.parametrize(
    "headers", [{"OC-Checksum": "SHA1:zz"}, {"Digest": "sha-256=***"}, {"Content-MD5": "===="}]
)
def test_a_digest_that_cannot_be_read_is_no_match(headers: dict[str, str]) -> None:
    client = DavClient()
    assert client("PUT", "/f", b"x", headers).status == 400
    assert not client.store.exists("/f")


@pytest.mark.parametrize(
    ("body", "chunked"),
    # Without chunks: what a proxy leaves of those that it cannot pass on.
    [(b"", True), (b"hell", True), (b"hello!", True), (b"", False), (b"hell", False)],
)
def test_a_body_of_another_length_than_finder_says(
    client: DavClient, body: bytes, chunked: bool
) -> None:
    client.put("/f", b"old")
    headers = {"X-Expected-Entity-Length": "5"}
    assert client("PUT", "/f", body, headers, chunked=chunked).status == 400
    assert client.get("/f").body == b"old"
    assert client("PUT", "/f", b"hello", headers, chunked=chunked).status == 204


def test_an_empty_body_where_finder_has_announced_more(client: DavClient) -> None:
    client.put("/f", b"old")
    headers = {"X-Expected-Entity-Length": "5", "Content-Length": "0"}
    assert client("PUT", "/f", b"", headers).status == 400
    assert client.get("/f").body == b"old"
