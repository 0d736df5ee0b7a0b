"""What granian is guarded against, and what it does instead where its answers differ."""

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from davfusion import http_granian
from davfusion.access_log import AccessLog
from davfusion.http_waiting import LEAST, MOST, THREADS, Threads
from davfusion.memo import REPEATABLE, Memo, Repeatable, Validity
from davfusion.server import TlsFiles
from tests.http_serving import PATIENCE, Client, Recorder, Served, sized

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

LARGE = 300_000
FINDER = b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
FINDER += b"X-Expected-Entity-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    served = Served(name="granian")
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
    bodies = [b"hello", b"", bytes(range(256)) * 4096 * 5, b"again"]
    assert [client.ask(sized(body, str(len(body)))) for body in bodies] == [200] * 4
    assert application.bodies == bodies


@pytest.mark.parametrize("sent", [0, 1, 9, 4096, LARGE - 1])
@pytest.mark.parametrize("length", [10, LARGE])
def test_a_body_that_breaks_off_is_never_whole(
    client: Client, application: Recorder, length: int, sent: int
) -> None:
    client.send(sized(bytes(min(sent, length - 1)), str(length)))
    client.socket.shutdown(socket.SHUT_WR)
    assert client.answer()[0] in (400, 0)
    assert application.bodies == []


@pytest.mark.parametrize("size", [3, LARGE])
def test_a_body_in_chunks_is_refused(client: Client, application: Recorder, size: int) -> None:
    head = b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size)))
    status, _, text = client.answer()
    assert (status, b"Content-Length" in text) == (411, True)
    assert application.environs == []


@pytest.mark.parametrize(
    ("chunks", "status"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", 200),
        (b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200),
        (b"4\r\nhell\r\n0\r\n\r\n", 400),
        (b"6\r\nhello!\r\n0\r\n\r\n", 400),
        (b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", 400),
        (b"2\r\nhe\r\nzz\r\n", 400),
    ],
)
def test_chunks_are_taken_from_who_says_how_much_comes(
    client: Client, application: Recorder, chunks: bytes, status: int
) -> None:
    assert client.ask(FINDER % 5 + chunks) == status
    assert application.bodies == [b"hello"] * (status == 200)


def test_chunks_of_nothing(client: Client, application: Recorder) -> None:
    assert client.ask(FINDER % 0 + b"0\r\n\r\n") == 200
    assert client.ask(FINDER % 0 + b"1\r\n!\r\n0\r\n\r\n") == 400
    assert application.bodies == [b""]


@pytest.mark.parametrize("name", ["If", "If-Match", "Destination", "Overwrite", "Depth"])
def test_a_condition_that_granian_cannot_read_is_not_passed_over(
    client: Client, application: Recorder, name: str
) -> None:
    field = f"{name}: \u00fc\r\n".encode()
    assert client.ask(b"GET /x HTTP/1.1\r\nHost: h\r\n" + field + b"\r\n") == 400
    assert application.environs == []


def test_a_refusal_reaches_the_client_in_the_middle_of_a_large_body(client: Client) -> None:
    size = 4 << 20
    client.send(b"PUT /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
    client.send(bytes(size))
    assert client.answer()[0] == 412


def test_a_failing_application_is_answered(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.ask(b"GET /fail HTTP/1.1\r\nHost: h\r\n\r\n") == 500
    assert "the application failed" in caplog.text
    assert client.ask(sized(b"hello", "5")) == 200


def test_an_answer_that_breaks_off_does_not_look_whole(client: Client) -> None:
    client.send(b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n")
    status, headers, content = client.answer()
    assert status == 0 or len(content) < int(headers["content-length"])


def test_what_may_be_repeated_is_answered_without_the_application(tmp_path: Path) -> None:
    memo = Memo(Validity(tmp_path, 5.0, lambda: 0.0))
    asked = []

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ[REPEATABLE] = Repeatable(memo, memo.begin())
        asked.append(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Length", "1")])
        return [b"%d" % len(asked)]

    served = Served(AccessLog(application), "granian")
    try:
        client = served.client()

        def answer(request: bytes) -> bytes:
            client.send(request)
            return client.answer()[2]

        match, none_match = (
            b"GET /x HTTP/1.1\r\nHost: h\r\n%b: x\r\n\r\n" % name
            for name in (b"If-Match", b"If-None-Match")
        )
        requests = [match, match, none_match, sized(b"a", "1"), sized(b"b", "1"), sized(b"a", "1")]
        assert [answer(each) for each in requests] == [b"1", b"1", b"2", b"3", b"4", b"5"]
        assert asked == [b"", b"", b"a", b"b", b"a"]  # those with a body are asked for
    finally:
        served.stop()


def test_threads_that_are_too_many_rest_until_others_wait() -> None:
    threads = Threads()
    together, ended = threading.Barrier(MOST + 1), threading.Semaphore(0)

    def answer() -> None:
        threads.begin()
        together.wait(PATIENCE)
        threads.end(may_rest=True)
        ended.release()

    for _ in range(MOST + 1):
        threading.Thread(target=answer, daemon=True).start()
    for _ in range(MOST):
        assert ended.acquire(timeout=PATIENCE)
    for _ in range(MOST - LEAST):
        threads.wait()
    assert not ended.acquire(timeout=0.1)
    threads.wait()
    assert ended.acquire(timeout=PATIENCE)


def test_threads_that_rest_serve_others_than_slow_clients() -> None:
    together = threading.Barrier(THREADS)

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not environ["wsgi.input"].read():
            together.wait(PATIENCE)  # so that all work at once, and all but MOST rest then
        start_response("200 OK", [("Content-Length", "0")])
        return []

    served = Served(application, "granian")
    try:
        clients = [served.client() for _ in range(THREADS)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [client.answer()[0] for client in clients] == [200] * THREADS
        for client in clients[: 2 * MOST]:
            client.send(sized(b"he", "5"))
        assert served.client().ask(sized(b"hello", "5")) == 200
    finally:
        served.stop()


@pytest.mark.parametrize("has_tls", [False, True])
def test_a_thread_is_asked_for_while_all_are_taken(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, has_tls: bool
) -> None:
    """granian may have overlooked a request; it looks again when another comes."""
    asked = []
    answer_of = HTTPConnection.getresponse

    def noted(connection: HTTPConnection) -> None:
        asked.append(answer_of(connection).status)

    monkeypatch.setattr(HTTPConnection, "getresponse", noted)
    monkeypatch.setattr(http_granian, "_WATCH_SECONDS", 0.02)
    served = Served(name="granian", tls=TlsFiles(*certificate) if has_tls else None)
    try:
        client = served.client()
        give_up = time.monotonic() + PATIENCE
        client.send(sized(b"he", "5"))
        while not asked:
            assert time.monotonic() < give_up
        assert client.ask(b"llo") == 200
        enough = len(asked)
        client.send(sized(b"he", "5"))
        time.sleep(0.2)  # the other thread is still there
        assert client.ask(b"llo") == 200
        assert len(asked) == enough
        assert {*asked} == {204}
        assert [seen["REQUEST_METHOD"] for seen in served.application.environs] == ["PUT", "PUT"]
    finally:
        served.stop()


def test_little_is_kept_for_a_client_that_does_not_read() -> None:
    size, taken = 1 << 20, [0]

    def pieces() -> Iterator[bytes]:
        for number in range(64):
            taken[0] = (number + 1) * size
            yield bytes(size)

    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        is_large = environ["PATH_INFO"] == "/large"
        start_response("200 OK", [("Content-Length", str(64 * size if is_large else 0))])
        return pieces() if is_large else []

    served = Served(application, "granian")
    try:
        served.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        client, other = served.client(), served.client()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        read = len(client.socket.recv(size))
        for _ in range(100):  # time enough for the server to go ahead
            assert other.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") == 200
        assert taken[0] <= read + 3 * size
    finally:
        served.stop()
