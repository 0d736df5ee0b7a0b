"""Hostile and broken requests to a running server: each is refused soon, and all goes on after."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from davfusion.provider.request import MAX_LEVELS
from tests.http_serving import Client
from tests.live import drive
from tests.live.serving import Serving, serving

pytestmark = pytest.mark.live
SECRET = b"not served"
MEBIBYTE = 1 << 20
SOON = 2.0
"""Seconds within which the answer to a whole request that is wrong begins, whatever is wrong."""
NS = b'xmlns="DAV:"'


@pytest.fixture(scope="module", params=["memory", "folder"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """Two workers, which must end without a traceback; beside the folder lies a secret."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "files").mkdir()
    (folder / "secret").write_bytes(SECRET)
    target = "memory:" if request.param == "memory" else str(folder / "files")
    with serving(target, folder) as running:
        assert ask(running, b"PUT", b"/file", b"0123456789") == 201
        yield running
        assert (folder / "secret").read_bytes() == SECRET
        assert set(folder.iterdir()) == {folder / n for n in ("files", "secret", "log", "cache")}


@pytest.fixture(autouse=True)
def healthy_after(server: Serving) -> Iterator[None]:
    """All workers live on, and serve."""
    processes = server.pids()
    yield
    assert server.pids() == processes
    assert ask(server, b"GET", b"/file") == 200


def answer(
    server: Serving, method: bytes, target: bytes, body: bytes = b"", *fields: bytes
) -> tuple[int, dict[str, str], bytes]:
    head = [b"%b %b HTTP/1.1" % (method, target), b"Host: 127.0.0.1:%d" % server.port, *fields]
    if body:
        head.append(b"Content-Length: %d" % len(body))
    with closing(Client(server.port)) as client:
        with suppress(ConnectionError):  # refused before all of the body was sent
            client.send(b"\r\n".join(head) + b"\r\n\r\n" + body)
        client.socket.settimeout(SOON)
        return client.answer(bodiless=method == b"HEAD")


def ask(server: Serving, method: bytes, target: bytes, body: bytes = b"", *fields: bytes) -> int:
    return answer(server, method, target, body, *fields)[0]


TRAVERSALS = [
    b"/../secret", b"/a/../../secret", b"/%2e%2e/secret", b"/%2E./secret", b"/..%2fsecret",
    b"/%2e%2e%2fsecret", b"/.%2e/secret", b"/%252e%252e/secret", b"/%252e%252e%252fsecret",
    b"/..%5csecret", b"/..\\secret", b"/%c0%ae%c0%ae/secret", b"/%e0%80%ae%e0%80%ae/secret",
    b"/%u002e%u002e/secret", b"/..;/secret", b"/..%00/secret", b"/\xef\xbc\x8e\xef\xbc\x8e/secret",
    b"//../secret", b"http://127.0.0.1/../secret", b"/..", b"/%2e", b"/./../secret",
    b"/..%0d/secret",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_spelling_of_a_path_leads_out(server: Serving, path: bytes) -> None:
    status, _, content = answer(server, b"GET", path)
    assert status in (400, 404)
    assert SECRET not in content
    assert ask(server, b"PROPFIND", path, b"", b"Depth: 1") in (400, 404)
    there = b"Destination: " + (path if path.startswith(b"/") else b"/" + path)
    # What is escaped twice, and a backslash, are letters of a name like others.
    assert ask(server, b"COPY", b"/file", b"", there) in (201, 400, 409, 502)
    assert ask(server, b"PUT", path, b"mine") in (201, 204, 400, 409)
    assert ask(server, b"DELETE", path) in (204, 400, 403, 404)


ENTITIES = b"".join(b'<!ENTITY a%d "%b">' % (n + 1, b"&a%d;" % n * 10) for n in range(9))
DOCUMENTS = {
    "laughs": b'<!DOCTYPE x [<!ENTITY a0 "ha">%b]><propfind %b>&a9;</propfind>' % (ENTITIES, NS),
    "file": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><owner %b>&e;</owner>' % NS,
    "parameter": b'<!DOCTYPE x [<!ENTITY % e SYSTEM "http://127.0.0.1:1/"> %e;]><x/>',
    "outer dtd": b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>',
    "quadratic": b'<!DOCTYPE x [<!ENTITY a "%b">]><x>%b</x>' % (b"a" * 50_000, b"&a;" * 10_000),
    "deep": b"<a>" * 100_000 + b"</a>" * 100_000,
    "unclosed": b"<a>" * 200_000,
    "attributes": b"<a " + b" ".join(b'a%d=""' % n for n in range(50_000)) + b"></a",
    "twice": b'<a b="1" b="2"/>',
    "prefix": b"<x:a/>",
    "nul": b"<a>\0</a>",
    "bytes": b"<a>\xff\xfe</a>",
    "encoding": b'<?xml version="1.0" encoding="utf-7"?><a/>',
    "text": b"no XML at all",
    "large": b'<propfind %b><prop>%b</prop></propfind>' % (NS, b" " * 10 * MEBIBYTE),
}  # fmt: skip
XML_METHODS = (b"PROPFIND", b"PROPPATCH", b"LOCK", b"MKCOL", b"REPORT")


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("method", XML_METHODS)
def test_hostile_xml_is_refused(server: Serving, method: bytes, document: str) -> None:
    target = b"/made" if method == b"MKCOL" else b"/"
    kind = (b"Depth: 0", b"Content-Type: application/xml")
    status, _, content = answer(server, method, target, DOCUMENTS[document], *kind)
    assert status in (400, 403, 413, 415), content
    assert b"root:" not in content
    assert server.peak_memory() < 150 * MEBIBYTE


def test_deep_xml_within_a_value_is_refused(server: Serving) -> None:
    deep = b"<a>" * 50_000 + b"</a>" * 50_000
    update = b"<propertyupdate %b><set><prop>%b</prop></set></propertyupdate>" % (NS, deep)
    assert ask(server, b"PROPPATCH", b"/file", update) == 400
    scope = b"<lockscope><exclusive/></lockscope><locktype><write/></locktype>"
    info = b"<lockinfo %b>%b<owner>%b</owner></lockinfo>" % (NS, scope, deep)
    assert ask(server, b"LOCK", b"/file", info) == 400
    props = b"<mkcol %b><set><prop>%b</prop></set></mkcol>" % (NS, deep)
    assert ask(server, b"MKCOL", b"/deep", props, b"Content-Type: application/xml") == 400


def test_many_properties_at_once_take_bounded_time(server: Serving) -> None:
    names = b"".join(b"<x%d xmlns='urn:%d'/>" % (n, n) for n in range(20_000))
    asked = b"<propfind %b><prop>%b</prop></propfind>" % (NS, names)
    assert ask(server, b"PROPFIND", b"/file", asked, b"Depth: 0") in (207, 400, 413)


@pytest.mark.parametrize(
    "field",
    [
        b"X: a\rInjected: 1",
        b"X: a\nInjected: 1",
        b"X: a\0b",
        b"X: a\r\n\tfolded",
        b"X\r: a",
        b": no name",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"X: " + b"a" * 70_000,
        b"\r\n".join(b"X-%d: 1" % n for n in range(1_000)),
        b"Host: other",
        b"If: " + b"(" * 30_000,
        b"If: (Not" + b" Not" * 10_000 + b")",
        b"If: <" + b"a" * 30_000,
        b"If: " + b'(["a"] ' * 5_000,
        b"If-Match: " + b'"a' * 20_000,
        b"X-OC-Mtime: nan",
        b"X-OC-Mtime: 1e999",
        b"OC-Checksum: SHA1:zz0",
        b"Content-MD5: ====",
        b"Content-Range: bytes 0-1/2",
    ],
)
def test_bad_headers_of_a_write_are_refused(server: Serving, field: bytes) -> None:
    with closing(Client(server.port)) as client:
        client.send(b"PUT /new HTTP/1.1\r\nHost: 127.0.0.1\r\n" + field + b"\r\n\r\n")
        client.socket.settimeout(SOON)
        status, headers, _ = client.answer()
    assert 400 <= status < 500 or status == 501
    assert "injected" not in headers
    assert ask(server, b"GET", b"/new") == 404


@pytest.mark.parametrize(
    "value",
    [
        b"bytes=-0", b"bytes=5-2", b"bytes=99-", b"bytes=-", b"bytes=--5", b"bytes=a-b",
        b"lines=1-2", b"bytes=0-99999999999999999999999", b"bytes=99999999999999999999999-",
        b"bytes=" + b"9" * 5_000,
        b"bytes=-99999999999999999999999", b"bytes=" + b"0-," * 10_000, b"bytes=+1-2",
        b"bytes=1_0-", b"bytes=\xb2-", b"bytes=" + b"," * 30_000,
    ],
)  # fmt: skip
def test_ranges_never_give_more_than_the_file(server: Serving, value: bytes) -> None:
    status, headers, content = answer(server, b"GET", b"/file", b"", b"Range: " + value)
    assert status in (200, 206, 400, 416)
    assert status >= 400 or len(content) <= 10
    assert status != 416 or headers["content-range"] == "bytes */10"


@pytest.mark.parametrize(
    "value", [b"-1", b"2", b"99999999999999999999", b"1e9", b"infinity" * 1_000]
)
def test_absurd_depths_are_refused(server: Serving, value: bytes) -> None:
    for method in (b"PROPFIND", b"COPY", b"MOVE", b"DELETE", b"REPORT"):
        fields = (b"Depth: " + value, b"Destination: /copy")
        assert ask(server, method, b"/file", b"", *fields) == 400


@pytest.mark.parametrize("path", [b"/a" * 20_000, b"/" + b"a" * 50_000, b"/" * 50_000 + b"a"])
def test_absurd_paths_are_answered(server: Serving, path: bytes) -> None:
    there = b"Destination: " + path
    statuses = [ask(server, method, path) for method in (b"GET", b"PUT", b"MKCOL", b"PROPFIND")]
    statuses += [ask(server, b"COPY", b"/file", b"", there), ask(server, b"DELETE", path)]
    assert all(status < 500 for status in statuses), statuses


def test_folders_in_folders_without_end(server: Serving) -> None:
    path = b""
    for _ in range(MAX_LEVELS):
        path += b"/d"
        assert ask(server, b"MKCOL", path) == 201
    assert ask(server, b"MKCOL", path + b"/d") == 400
    assert ask(server, b"PROPFIND", b"/d", b"", b"Depth: infinity") in (207, 403)
    for method, there in (("COPY", "/e"), ("MOVE", "/f")):  # no wrong requests, and much to do
        assert drive.ask(server, method, "/d", Destination=there).status == 201
        assert drive.ask(server, "DELETE", there).status == 204


def test_a_name_longer_than_disks_take_changes_nothing(server: Serving) -> None:
    name = b"/" + b"%C3%BC" * 200
    statuses = [ask(server, method, name) for method in (b"PUT", b"MKCOL", b"DELETE")]
    assert all(status < 500 for status in statuses), statuses


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_body_that_ends_early_is_no_file(server: Serving, framing: bytes) -> None:
    with closing(Client(server.port)) as client:
        client.send(b"PUT /cut HTTP/1.1\r\nHost: 127.0.0.1\r\n" + framing + b"\r\n\r\n5\r\nab")
        client.socket.shutdown(socket.SHUT_WR)
        client.socket.settimeout(SOON)
        assert client.answer()[0] == 400
    assert ask(server, b"GET", b"/cut") == 404


def test_the_log_holds_one_line_a_request(server: Serving) -> None:
    ask(server, b"GET", b"/forged%0d%0a2026-01-01%20INFO%20all%20well")
    for line in server.log.read_text().splitlines():
        assert not re.match(r"2026-01-01", line)
