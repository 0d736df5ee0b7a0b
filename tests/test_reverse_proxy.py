"""Behind a reverse proxy, and below a path: what clients see is what they asked for."""

import logging

import pytest

from davfusion.access_log import AccessLog
from davfusion.app import mounted
from davfusion.config import LOOPBACK, ConfigError, Network, parse_network, parse_prefix
from davfusion.reverse_proxy import ReverseProxy
from tests.provider.client import D, DavClient

HOST = "files.example"


def behind(trusted: tuple[Network, ...] = LOOPBACK, prefix: str = "") -> DavClient:
    client = DavClient()
    app = mounted(client.app, prefix, None) if prefix else client.app
    client.app = ReverseProxy(app, trusted)  # type: ignore[assignment]
    return client


@pytest.mark.parametrize("host", ["Host", "X-Forwarded-Host"])
@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("proto", [{}, {"X-Forwarded-Proto": "https"}])
def test_a_destination_outside_is_one_inside(host: str, scheme: str, proto: dict[str, str]) -> None:
    client = behind(prefix="/dav")
    client.put("/dav/a", b"1")
    told = {host: HOST, "Destination": f"{scheme}://{HOST}/dav/b%20c"} | proto
    assert client("MOVE", "/dav/a", headers=told).status == 201
    assert client.get("/dav/b c").body == b"1"
    told["Destination"] = "/dav/d"
    assert client("COPY", "/dav/b c", headers=told).status == 201
    told["Destination"] = f"{scheme}://{HOST}/elsewhere/d"
    assert client("COPY", "/dav/b c", headers=told).status == 502


def test_the_part_of_the_path_that_the_proxy_took_is_in_the_urls() -> None:
    client = behind()
    told = {"X-Forwarded-Prefix": "/outer/", "Depth": "1", "Host": HOST}
    client.put("/a", b"1")
    assert set(client("PROPFIND", "/", headers=told).properties()) == {"/outer/", "/outer/a"}
    told["Destination"] = f"https://{HOST}/outer/b"
    assert client("MOVE", "/a", headers=told).status == 201
    assert client.get("/b").body == b"1"


@pytest.mark.parametrize("prefix", ["outer", "//evil.example", "/a//b", "/a b", "/\u00e4", ""])
def test_a_prefix_that_is_no_path_is_none(prefix: str) -> None:
    told = {"X-Forwarded-Prefix": prefix, "Depth": "0"}
    assert set(behind()("PROPFIND", "/", headers=told).properties()) == {"/"}


def test_nobody_else_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    client = behind(trusted=(parse_network("10.0.0.0/8"),))
    client.app = AccessLog(client.app)  # type: ignore[assignment]
    client.put("/a", b"1")
    told = {
        "X-Forwarded-Prefix": "/outer",
        "X-Forwarded-Host": HOST,
        "X-Forwarded-For": "192.0.2.1",
        "Destination": f"http://{HOST}/outer/b",
    }
    with caplog.at_level(logging.INFO, "davfusion.access"):
        assert client("MOVE", "/a", headers=told).status == 502
    assert caplog.messages[-1].startswith("127.0.0.1 ")


@pytest.mark.parametrize(
    ("told", "logged"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("198.51.100.7, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 127.0.0.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("unknown", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_log_tells_the_client(told: str, logged: str, caplog: pytest.LogCaptureFixture) -> None:
    client = behind()
    client.app = AccessLog(client.app)  # type: ignore[assignment]
    with caplog.at_level(logging.INFO, "davfusion.access"):
        client.get("/", X_Forwarded_For=told)
    assert caplog.messages[-1].startswith(f"{logged} ")


def test_a_share_below_a_path_and_the_folders_on_the_way() -> None:
    client = behind(prefix="/a/dav")
    client.put("/a/dav/f", b"1")
    for folder in ("/a/dav", "/a/dav/"):
        found = client.propfind(folder, "resourcetype", depth="1").properties()
        assert set(found) == {"/a/dav/", "/a/dav/f"}
    assert set(client.propfind("/", "resourcetype", depth="1").properties()) == {"/", "/a/"}
    assert set(client.propfind("/a", "resourcetype", depth="1").properties()) == {"/a/", "/a/dav/"}
    for path in ("/", "/a", "/a/dav", "/a/dav/f"):
        assert "2" in client("OPTIONS", path).headers["dav"]
    for path in ("/f", "/a/f", "/a/davf"):
        assert client.get(path).status == 404
        assert client.put(path).status == 403
    token = client.lock("/a/dav/f")
    assert token.body.count(b"<D:lockroot><D:href>/a/dav/f</D:href></D:lockroot>") == 1
    assert (
        D + "quota-used-bytes"
        in client.propfind("/a/dav", "quota-used-bytes").properties()["/a/dav/"]
    )


def test_prefixes_and_networks() -> None:
    assert [parse_prefix(text) for text in ("", "/", "dav", "/a/dav/")] == [
        "",
        "",
        "/dav",
        "/a/dav",
    ]
    for text in ("/../x", "/a//b", "/a b", "/ä", "/a?b"):
        with pytest.raises(ConfigError, match="no path"):
            parse_prefix(text)
    with pytest.raises(ConfigError, match="no address"):
        parse_network("example.org")
