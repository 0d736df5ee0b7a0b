"""What clients may send, and what they must get: raw bytes on a socket, a small application."""

import re
import socket
from collections.abc import Iterator

import pytest

from davfusion.config import HttpServerName
from davfusion.http_exchange import MAX_DRAINED_BYTES
from tests.http_names import SENT_OF_A_SHORT_ANSWER
from tests.http_serving import Client, Recorder, Served, chunked, sized


@pytest.fixture(scope="module")
def server(http_name: HttpServerName) -> Iterator[Served]:
    served = Served(name=http_name)
    yield served
    served.stop()


@pytest.fixture
def application(server: Served) -> Recorder:
    server.application.__init__()  # type: ignore[misc]
    return server.application


@pytest.fixture
def client(server: Served, application: Recorder) -> Client:
    return server.client()


def test_bodies_arrive_whole_and_the_connection_is_kept(
    client: Client, application: Recorder
) -> None:
    assert client.ask(sized(b"hello", "5")) == 200
    assert client.ask(chunked(b"3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n")) == 200
    assert client.ask(sized(b"again", "5", "5")) == 200
    assert application.bodies == [b"hello", b"abc0123456789", b"again"]


def test_large_bodies_arrive_whole(client: Client, application: Recorder) -> None:
    body = bytes(range(256)) * 4096 * 5
    assert client.ask(sized(body, str(len(body)))) == 200
    assert client.ask(chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))) == 200
    assert application.bodies == [body, body]


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"1_0\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n" + b"T: 1\r\n" * 4000 + b"\r\n",
    ],
)
def test_malformed_chunks_are_errors(client: Client, application: Recorder, body: bytes) -> None:
    assert client.ask(chunked(body)) == 400
    assert client.is_closed()
    assert application.bodies == []
    assert len(application.errors) == 1


@pytest.mark.parametrize(
    "request_",
    [
        sized(b"four", "10"),
        chunked(b""),
        chunked(b"FFFFFFFFFFFFFFFF\r\nabc"),
        chunked(b"A\r\nabc"),
        chunked(b"3\r\nabc"),
        chunked(b"3\r\nabc\r\n"),
        chunked(b"3\r\nabc\r\n0\r\n"),
    ],
)
def test_bodies_cut_off_are_errors(client: Client, application: Recorder, request_: bytes) -> None:
    client.send(request_)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.answer()[0] == 400
    assert application.bodies == []
    assert len(application.errors) == 1


@pytest.mark.parametrize(
    "lengths",
    [["abc"], ["-5"], ["+5"], ["1_0"], [str(2**70)], [""], ["5", "6"], ["5, 6"], ["\u0665"]],
)
def test_lengths_that_two_servers_could_read_differently(
    client: Client, application: Recorder, lengths: list[str]
) -> None:
    assert client.ask(sized(b"hello", *lengths)) == 400
    assert client.is_closed()
    assert application.environs == []


@pytest.mark.parametrize("lengths", [["5", "5"], ["5, 5"]])
def test_lengths_that_agree_are_one(
    client: Client, application: Recorder, lengths: list[str]
) -> None:
    assert client.ask(sized(b"hello", *lengths)) == 200
    assert application.environs[0]["CONTENT_LENGTH"] == "5"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding: identity\r\n", 501),
        (b"Host : x\r\n", 400),
        (b" folded: x\r\n", 400),
        (b"no colon\r\n", 400),
        (b"Name: bare\nOther: x\r\n", 400),
        (b"Host: h\r\n", 400),
        (b"Authorization: Basic YTpi\r\nAuthorization: Basic YTpj\r\n", 400),
        (b"".join(b"X-%d: 1\r\n" % n for n in range(300)), 431),
        (b"X: " + b"a" * 70_000 + b"\r\n", 431),
    ],
)
def test_headers_that_are_refused(
    client: Client, application: Recorder, fields: bytes, status: int
) -> None:
    assert client.ask(b"GET /x HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n") == status
    assert application.environs == []


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /%zz HTTP/1.1", 400),
        (b"GET /a% HTTP/1.1", 400),
        (b"GET /%ff HTTP/1.1", 400),
        (b"GET /a%00b HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET /a\x1bb HTTP/1.1", 400),
        (b"GET ftp://h/x HTTP/1.1", 400),
        (b"GET x HTTP/1.1", 400),
        (b"GET /", 400),
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1", 414),
    ],
)
def test_request_lines_that_are_refused(
    client: Client, application: Recorder, line: bytes, status: int
) -> None:
    assert client.ask(line + b"\r\nHost: h\r\n\r\n") == status
    assert application.environs == []


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a%20b%25?q=%41", "/a b%", "q=%41"),
        (b"http://user:secret@host:80/a%2Fb;c?d", "/a/b;c", "d"),
        (b"http://host", "/", ""),
        (b"//host/x", "//host/x", ""),
        ("/き".encode(), "/き", ""),
        (b"*", "*", ""),
    ],
)
def test_request_targets(
    client: Client, application: Recorder, target: bytes, path: str, query: str
) -> None:
    assert client.ask(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n") == 200
    environ = application.environs[0]
    assert environ["PATH_INFO"].encode("latin-1").decode() == path
    assert environ["QUERY_STRING"] == query
    assert environ["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize(
    ("line", "hosts", "host"),
    [
        (b"/", [b"h:80"], "h:80"),
        (b"/", [b"[::1]:80"], "[::1]:80"),
        (b"http://user:secret@target:80/", [b"other"], "target:80"),
        (b"/", [b""], ""),
        (b"/", [], None),
        (b"http://target/", [], None),
        (b"/", [b"h", b"h"], None),
        (b"/", [b"a/b"], None),
        (b"/", [b"a@b"], None),
        (b"/", [b"a b"], None),
    ],
)
def test_every_request_has_one_host(
    client: Client, application: Recorder, line: bytes, hosts: list[bytes], host: str | None
) -> None:
    fields = b"".join(b"Host: %b\r\n" % each for each in hosts)
    status = client.ask(b"GET %b HTTP/1.1\r\n%b\r\n" % (line, fields))
    assert [environ["HTTP_HOST"] for environ in application.environs] == [host] * (host is not None)
    assert status == (400 if host is None else 200)


def test_names_with_underscores_do_not_pass_for_others(
    client: Client, application: Recorder
) -> None:
    client.ask(b"GET /x HTTP/1.1\r\nHost: h\r\nIf-Match: real\r\nIf_Match: forged\r\n\r\n")
    assert application.environs[0]["HTTP_IF_MATCH"] == "real"


def expecting(path: bytes, length: int) -> bytes:
    return b"PUT %b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (
        path,
        length,
    )


def test_continue_is_sent_when_the_body_is_read(client: Client, application: Recorder) -> None:
    client.send(expecting(b"/x", 5))
    assert client.answer()[0] == 100
    assert client.ask(b"hello") == 200
    assert client.ask(sized(b"again", "5")) == 200


def test_a_refusal_comes_before_the_expected_body(client: Client) -> None:
    client.send(expecting(b"/refuse", 5))
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (412, "close")
    assert client.is_closed()


def test_a_small_body_left_unread_does_not_cost_the_connection(client: Client) -> None:
    refused = b"PUT /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    assert client.ask(refused) == 412
    assert client.ask(refused.replace(b"/refuse", b"/x")) == 200
    unread = chunked(b"3\r\nabc\r\n0\r\n\r\n").replace(b"/x", b"/refuse")
    assert client.ask(unread) == 412
    assert client.ask(chunked(b"3\r\nabc\r\n0\r\n\r\n")) == 200


def test_a_refusal_reaches_the_client_in_the_middle_of_a_large_body(client: Client) -> None:
    size = 50 * MAX_DRAINED_BYTES
    client.send(b"PUT /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
    client.send(b"x" * size)
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (412, "close")


def test_head_and_no_content_keep_clients_in_step(client: Client) -> None:
    client.send(b"HEAD /lazy HTTP/1.1\r\nHost: h\r\n\r\n")
    status, headers, _ = client.answer(bodiless=True)
    assert status == 200
    if headers.get("connection") != "close":
        assert client.ask(sized(b"hello", "5")) == 200
    else:
        assert client.is_closed()


def test_a_head_with_a_length_has_no_body(client: Client) -> None:
    client.send(b"HEAD /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
    assert client.answer(bodiless=True)[0] == 200
    assert client.ask(sized(b"hello", "5")) == 200


def test_a_streamed_answer_is_chunked(client: Client) -> None:
    client.send(b"GET /lazy HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    raw = b"".join(iter(lambda: client.socket.recv(4096), b""))
    assert raw.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


def test_an_answer_that_ends_early_closes_the_connection(client: Client, http_name: str) -> None:
    client.send(b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.answer()[2] in SENT_OF_A_SHORT_ANSWER[http_name]


def test_a_failing_application_is_answered(client: Client) -> None:
    client.send(b"GET /fail HTTP/1.1\r\nHost: h\r\n\r\n")
    status, headers, _ = client.answer()
    assert (status, headers["server"]) == (500, "davfusion")


def test_http_1_0(client: Client) -> None:
    assert client.ask(b"GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n") == 200
    assert client.ask(b"GET /x HTTP/1.0\r\n\r\n") == 200
    assert client.is_closed()


def test_the_log_shows_refused_requests_without_their_bytes(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "davfusion"):
        client.ask(b"GET /\x1b[31m%zz HTTP/1.1\r\n\r\n")
    assert re.fullmatch(r'127\.0\.0\.1 - "\([a-z ]+\)" 400 \d+ms', caplog.messages[-1])
