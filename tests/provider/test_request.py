"""What a request says: paths, Destination, Depth, Overwrite."""

from email.utils import formatdate
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsgidav.dav_error import DAVError

from davfusion.provider.live_properties import http_date
from davfusion.provider.provider import WRITING
from davfusion.provider.request import UNQUOTED, DavRequest, decode_path
from davfusion.stores.paths import check_path
from tests.provider.client import DavClient


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/a/b/", "/a/b"),
        ("//a///b", "/a/b"),
        ("/a%20b%3f%23%25%3b", "/a b?#%;"),
        ("/%e3%81%8d", "/き"),
        ("/u%CC%88", "/u\u0308"),
        ("/a%2fb%252F", "/a/b%2F"),
    ],
)
def test_paths_are_decoded(raw: str, path: str) -> None:
    assert decode_path(raw) == path


@pytest.mark.parametrize(
    "raw", ["/%zz", "/%", "/%4", "/..", "/a/../b", "/%2e%2e/x", "/.", "/a%00b", "/%ff", "/%c3%28"]
)
def test_bad_paths_are_refused(raw: str) -> None:
    with pytest.raises(DAVError) as error:
        decode_path(raw)
    assert error.value.value == 400


@given(st.text(alphabet="/.%20efzZ\0a;?#", max_size=30))
def test_any_path_is_decoded_to_a_path_of_the_contract_or_refused(raw: str) -> None:
    try:
        path = decode_path(raw)
    except DAVError as error:
        assert error.value == 400
    else:
        check_path(path)


@pytest.mark.parametrize("path", ["/a/../b", "/..", "/a\0b", "/./a"])
def test_a_bad_request_path_is_400(path: str) -> None:
    reply = DavClient()("GET", path)
    assert (reply.status, len(reply.body)) == (400, int(reply.headers["content-length"]))


@pytest.mark.parametrize(
    ("destination", "status"),
    [
        ("http://localhost/b", 201),
        ("https://localhost/b", 201),
        ("http://localhost:80/b", 201),
        ("http://user@localhost/b", 201),
        ("http://localhost/b%20%3f%23%25%3b%C3%BC", 201),
        ("http://elsewhere/b", 502),
        ("b", 400),
        ("http://localhost", 400),
        ("http://localhost/%zz", 400),
        ("http://localhost/x/%2e%2e/b", 400),
        ("http://[::1", 400),
        ("ftp://localhost/b", 400),
        ("http://localhost/dir/#1.txt", 400),
        ("http://localhost/dir?1.txt", 400),
        ("/\u00c3\u00a9", 201),
        ("http://localhost/voil\u00c3\u00a0", 201),
        ("http://localhost/a\tb", 400),
        ("", 400),
    ],
)
def test_destination(destination: str, status: int) -> None:
    client = DavClient()
    client.put("/a", b"1")
    assert client("MOVE", "/a", headers={"Destination": destination}).status == status
    assert client.get("/a").status == (404 if status == 201 else 200)


def test_destination_behind_a_proxy() -> None:
    client = DavClient()
    client.put("/a", b"1")
    headers = {"Destination": "https://files.example.com/b"}
    assert client("COPY", "/a", headers=headers).status == 502
    headers["X-Forwarded-Host"] = "files.example.com"
    assert client("COPY", "/a", headers=headers).status == 201
    headers["X-Forwarded-Host"] = "files.example.com, inner.example.com"
    assert client("COPY", "/a", headers=headers).status == 204


def test_a_prefix_before_the_share() -> None:
    client = DavClient(prefix="/dav")
    client.mkcol("/f")
    assert set(client.propfind("/", depth="1").properties()) == {"/dav/", "/dav/f/"}
    assert client("MOVE", "/f", headers={"Destination": "/g"}).status == 201
    outside = {"Destination": "http://localhost/davout/x"}
    assert client("MOVE", "/g", headers=outside).status == 502


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("PROPFIND", {"Depth": "2"}),
        ("PROPFIND", {"Depth": "-1"}),
        ("COPY", {"Depth": "1", "Destination": "/b"}),
        ("MOVE", {"Depth": "0", "Destination": "/b"}),
        ("DELETE", {"Depth": "0"}),
        ("LOCK", {"Depth": "1"}),
        ("COPY", {"Overwrite": "x", "Destination": "/f/f"}),
    ],
)
def test_bad_headers_are_400(method: str, headers: dict[str, str]) -> None:
    client = DavClient()
    client.mkcol("/a", "/f", "/f/f")
    body = b"<D:lockinfo xmlns:D='DAV:'/>" if method == "LOCK" else b""
    assert client(method, "/a", body, headers).status == 400
    assert client.store.exists("/a")


def test_the_rest() -> None:
    client = DavClient()
    assert client("BREW", "/").status == 501
    for reply in (client("POST", "/"), client("MKCOL", "/"), client.put("/", b"x")):
        assert (reply.status, "PROPFIND" in reply.headers["allow"]) == (405, True)
    reply = client("OPTIONS", "/no/such")
    assert (reply.status, reply.headers["dav"][:8]) == (200, "1, 2, 3,")
    assert reply.headers["ms-author-via"] == "DAV"
    assert "LOCK" in reply.headers["allow"]
    assert client("OPTIONS", "*").status == 200


def test_read_only() -> None:
    client = DavClient(read_only=True)
    client.store.create_directory("/d")
    for method in sorted(WRITING):
        assert client(method, "/d", headers={"Destination": "/e"}).status == 403
    assert client.propfind("/", depth="1").status == 207
    assert "2" not in client("OPTIONS", "/").headers["dav"]
    assert list(client.store.get_directory_metadata("/")) == ["d"]


@pytest.mark.parametrize(
    "body",
    [
        b"<",
        b"<a><b></a>",
        b"\xff\xfe\x00",
        b'<!DOCTYPE x [<!ENTITY a "b">]><propfind xmlns="DAV:"><prop>&a;</prop></propfind>',
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        b"<D:prop/>",
        b"<propfind/>",
        b'<propfind xmlns="DAV:"><prop/><allprop/></propfind>',
    ],
)
@pytest.mark.parametrize("method", ["PROPFIND", "PROPPATCH", "LOCK"])
def test_bad_xml_is_400(method: str, body: bytes) -> None:
    assert DavClient()(method, "/", body, {"Depth": "0"}).status == 400


def test_a_huge_xml_body_is_refused() -> None:
    assert DavClient()("PROPFIND", "/", b" " * (2 << 20)).status == 413


def test_utf_16_xml_is_read() -> None:
    text = '<?xml version="1.0" encoding="utf-16"?><propfind xmlns="DAV:"><propname/></propfind>'
    assert DavClient()("PROPFIND", "/", text.encode("utf-16"), {"Depth": "0"}).status == 207


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_an_href_is_read_back_as_its_path(name: str) -> None:
    request = DavRequest({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SCRIPT_NAME": "/p q"})
    href = request.href("/" + name, is_dir=True)
    assert href == quote("/p q/" + name + ("/" if name else ""), safe=UNQUOTED)


@given(st.integers(-(10**9), 10**11))
def test_dates_are_those_of_the_library(seconds: int) -> None:
    assert http_date(seconds) == formatdate(seconds, usegmt=True)
