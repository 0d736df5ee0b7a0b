"""Answers that the HTTP server gives again without the application."""

import re
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from davfusion import http_server
from davfusion.access_log import AccessLog
from davfusion.memo import REPEATABLE, Memo, Repeatable, Validity
from davfusion.server import TlsFiles
from davfusion.stamp import Stamp
from tests.http_serving import Client, Served, sized

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SECONDS = 5.0
LARGE = 200 << 10


class Counter:
    """Answers what it has counted, which may be given again; of `/large`, LARGE bytes."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.count = 0
        self.stamp = Stamp(folder)
        self.memo = Memo(Validity(folder, SECONDS, lambda: self.now), limit=4 * LARGE)

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        environ[REPEATABLE] = Repeatable(self.memo, self.memo.begin())
        body = environ["wsgi.input"].read()
        self.count += 1
        if environ["PATH_INFO"] == "/twice":
            start_response("200 OK", [("Content-Length", "2")])
            return [b"a", b"b"]
        said = b"%d %b" % (self.count, body)
        if environ["PATH_INFO"] == "/large":
            said = said.ljust(LARGE)
        start_response("200 OK", [("Content-Length", str(len(said))), ("ETag", '"x"')])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [said]


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


@pytest.fixture
def server(counter: Counter) -> Iterator[Served]:
    served = Served(AccessLog(counter))
    yield served
    served.stop()


@pytest.fixture
def client(server: Served) -> Client:
    client = server.client()
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def get(path: str = "/x", fields: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode()


def answer(client: Client, *pieces: bytes) -> bytes:
    for piece in pieces:
        client.send(piece)
    status, _, body = client.answer()
    assert status == 200
    return body


def test_the_same_bytes_get_the_same_answer(client: Client, server: Served) -> None:
    client.send(get())
    first = client.answer()
    client.send(get())
    assert client.answer() == (200, first[1] | {"date": client_date(first)}, b"1 ")
    assert answer(server.client(), get()) == b"1 "
    assert answer(client, get("/y")) == b"2 "
    assert answer(client, get(fields="Authorization: Basic eDp5\r\n")) == b"3 "
    assert answer(client, get()) == b"1 "


def client_date(reply: tuple[int, dict[str, str], bytes]) -> str:
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", reply[1]["date"])
    return reply[1]["date"]


def test_no_answer_outlives_a_change_or_its_time(client: Client, counter: Counter) -> None:
    assert [answer(client, get()) for _ in range(2)] == [b"1 ", b"1 "]
    counter.stamp.renew()
    assert [answer(client, get()) for _ in range(2)] == [b"2 ", b"2 "]
    counter.now += SECONDS
    assert [answer(client, get()) for _ in range(2)] == [b"3 ", b"3 "]


def test_a_body_belongs_to_the_question(client: Client) -> None:
    assert answer(client, sized(b"one", "3")) == b"1 one"
    assert answer(client, sized(b"two", "3")) == b"2 two"
    assert answer(client, sized(b"one", "3")) == b"1 one"


class Pause:
    """Returns when the server has seen what was sent before, since it answers what came later."""

    def __init__(self, server: Served) -> None:
        self._client = server.client()
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        assert self._client.ask(get(f"/pause{self._count}")) == 200


def in_pieces(client: Client, pause: Pause, *pieces: bytes) -> bytes:
    for piece in pieces:
        pause()
        client.send(piece)
    return client.answer()[2]


def repeated(ask: Callable[[], bytes]) -> bytes:
    """What is answered again: it is kept once it has been sent, and its pieces came apart."""
    said = ask()
    while (again := ask()) != said:
        said = again
    return said


def test_a_body_may_come_later(client: Client, server: Served) -> None:
    head, pause = sized(b"", "3"), Pause(server)
    one = repeated(lambda: in_pieces(client, pause, head, b"one"))
    two = repeated(lambda: in_pieces(server.client(), pause, head, b"two"))
    assert (one[-3:], two[-3:]) == (b"one", b"two")
    assert in_pieces(client, pause, head, b"o", b"n", b"e")[-3:] == b"one"
    half = server.client()
    half.send(head)
    assert in_pieces(client, pause, head, b"two") == two
    half.send(b"two")
    assert half.answer()[2] == two


def test_a_client_that_goes_before_its_body_is_told(client: Client, server: Served) -> None:
    head = sized(b"", "3")
    pause = Pause(server)
    repeated(lambda: in_pieces(client, pause, head, b"one"))
    gone = server.client()
    gone.send(head)
    gone.socket.shutdown(socket.SHUT_WR)
    assert gone.answer()[0] == 400
    assert gone.is_closed()


def test_a_known_head_without_its_body_ends_in_time(
    client: Client, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = sized(b"", "3")
    pause = Pause(server)
    repeated(lambda: in_pieces(client, pause, head, b"one"))
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)
    silent = server.client()
    silent.send(head)
    assert silent.is_closed()


def test_requests_sent_ahead_are_answered_in_order(client: Client) -> None:
    client.send(get("/a") + get("/b"))
    assert [client.answer()[2] for _ in range(2)] == [b"1 ", b"2 "]
    client.send((get("/a") + get("/b")) * 100)
    assert len([client.answer()[2] for _ in range(200)]) == 200
    assert answer(client, get("/c")) == answer(client, get("/c"))


def test_only_what_was_sent_whole_is_repeated(client: Client, counter: Counter) -> None:
    for request in (get("/twice"), get(fields="Connection: close\r\n")):
        count = counter.count
        for _ in range(2):
            other = Client(client.socket.getpeername()[1])
            assert answer(other, request)
            other.close()
        assert counter.count == count + 2


def test_head_is_not_get(client: Client) -> None:
    for _ in range(2):
        client.send(get().replace(b"GET", b"HEAD"))
        assert client.answer(bodiless=True)[1]["content-length"] == "2"
    assert answer(client, get()) == b"2 "


def test_a_client_that_takes_its_answer_slowly_gets_all_of_it(
    client: Client, server: Served
) -> None:
    server.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # theirs, too
    first = repeated(lambda: answer(client, get("/large")))
    number = b"%d " % (int(first) + 1)
    slow = [server.client() for _ in range(3)]
    for one in slow:
        one.send(get("/large"))
    assert answer(client, get()) == number  # nobody waits for them
    number = repeated(lambda: answer(client, get()))
    for one in slow:
        assert one.answer()[2] == first
        assert answer(one, get()) == number


def test_over_tls_too_each_request_has_its_own_answer(
    counter: Counter, certificate: tuple[Path, Path]
) -> None:
    served = Served(AccessLog(counter), tls=TlsFiles(*certificate))
    try:
        client = served.client()
        for_others = set()
        for number in range(20):
            client.send(get("/a"))
            client.send(get(f"/b{number}"))  # in a record of its own
            assert client.answer()[0] == 200
            for_others.add(client.answer()[2])
            assert answer(served.client(), get("/a")) not in for_others
    finally:
        served.stop()


def test_each_answer_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "davfusion"):
        for _ in range(3):
            answer(client, get("/a%20b?q"))
    assert len(caplog.messages) == 3
    for message in caplog.messages:
        assert re.fullmatch(r'127\.0\.0\.1 - "GET /a b" 200 \d+ms', message)
