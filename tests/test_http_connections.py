"""Connections that wait, trickle or are many: none of them holds up the others."""

import logging
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from cheroot.connections import ConnectionManager

from davfusion import http_granian, http_server, http_waiting
from davfusion.config import HttpServerName
from davfusion.http_body import Pace, RequestBodyError
from davfusion.http_inbox import Inbox
from davfusion.http_server import BACKLOG, HttpServer
from davfusion.http_threads import THREADS, Threads
from davfusion.memo import Memos
from tests.http_serving import PATIENCE, Client, Served, chunked, sized


@pytest.fixture(scope="module")
def server(http_name: HttpServerName) -> Iterator[Served]:
    served = Served(name=http_name)
    yield served
    served.stop()


@pytest.fixture
def client(server: Served) -> Client:
    return server.client()


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
def test_many_connections_may_wait_in_the_kernel(server: Served) -> None:
    info = server.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert struct.unpack("I", info[28:])[0] == BACKLOG  # tcpi_sacked, of a socket that listens


def test_silent_and_slow_connections_hold_up_nobody(server: Served, client: Client) -> None:
    others = [server.client() for _ in range(250)]
    for half in others[:100]:
        half.send(b"GET /x HTTP/1.1\r\nHost:")
    for slow in others[100:200]:
        slow.send(sized(b"he", "5"))
    assert client.ask(sized(b"hello", "5")) == 200
    others[0].send(b" h\r\n\r\n")
    assert others[0].answer()[0] == 200
    others[199].send(b"llo")
    assert others[199].answer()[0] == 200
    for other in others:
        other.close()


def test_threads_that_stood_in_for_those_held_up_end_again() -> None:
    served = Served()
    try:
        before = threading.active_count()
        slow = [served.client() for _ in range(2 * THREADS)]
        for each in slow:
            each.send(sized(b"he", "5"))
        client = served.client()
        assert client.ask(sized(b"hello", "5")) == 200
        assert threading.active_count() > before
        for each in slow:
            assert each.ask(b"llo") == 200
        give_up = time.monotonic() + PATIENCE
        while threading.active_count() > before:
            assert client.ask(sized(b"hello", "5")) == 200
            assert time.monotonic() < give_up
    finally:
        served.stop()


def test_a_head_may_come_in_pieces(client: Client) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"\r\n" + sized(b"hello", "5"):
        client.send(bytes([byte]))
    assert client.answer()[2] == b"hello"


def test_requests_may_be_sent_ahead(client: Client) -> None:
    client.send(sized(b"one", "3") + chunked(b"3\r\ntwo\r\n0\r\n\r\n") + b"GET /lazy HTTP/1.1\r\n")
    assert [client.answer()[2], client.answer()[2]] == [b"one", b"two"]
    assert client.ask(b"Host: h\r\n\r\n") == 200


def test_a_malformed_line_end_is_answered_at_once(client: Client) -> None:
    assert client.ask(b"GET / HTTP/1.1\nHost: h\n\n") == 400
    assert client.is_closed()


def test_what_begins_as_no_request_is_answered_at_once(client: Client) -> None:
    assert client.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") == 400
    assert client.is_closed()


def test_a_head_that_trickles_has_an_end(
    http_name: HttpServerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (http_server, http_granian):
        monkeypatch.setattr(module, "HEAD_SECONDS", 1)
    served = Served(name=http_name)
    try:
        client = served.client()
        client.send(b"GET /x HTTP/1.1\r\nX:")
        start = time.monotonic()
        client.trickle()
        assert time.monotonic() - start < PATIENCE
    finally:
        served.stop()


@pytest.mark.parametrize("sent", [b"", b"he"])
def test_a_body_that_stops_has_an_end(
    http_name: HttpServerName, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_server, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(http_waiting, "Pace", lambda: Pace(0.2))
    served = Served(name=http_name)
    try:
        client = served.client()
        client.send(sized(sent, "5"))
        assert client.answer()[0] in (0, 400, 408)
        assert client.is_closed()
        give_up = time.monotonic() + PATIENCE
        while not served.application.errors:
            assert served.client().ask(sized(b"hello", "5")) == 200
            assert time.monotonic() < give_up
    finally:
        served.stop()


def test_those_that_wait_longest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpServer, "keep_alive_conn_limit", 3)
    served = Served()
    try:
        waiting = [served.client() for _ in range(4)]
        assert waiting[0].is_closed()
        assert served.client().ask(sized(b"hello", "5")) == 200
        assert waiting[1].is_closed()
        assert waiting[3].ask(sized(b"hello", "5")) == 200
    finally:
        served.stop()


@pytest.mark.parametrize("_attempt", range(6))  # the order of two events is the kernel's
def test_a_request_that_cannot_be_answered_any_more_is_not_carried_out(
    monkeypatch: pytest.MonkeyPatch, _attempt: int
) -> None:
    """Of a connection that may make room for a new one just as its request comes."""
    served = Served()
    go_on = threading.Event()
    try:
        waiting, other = served.client(), served.client()
        assert [each.ask(sized(b"hello", "5")) for each in (waiting, other)] == [200, 200]
        monkeypatch.setattr(Memos, "recall", lambda *_: go_on.wait(PATIENCE) and None)
        other.send(sized(b"holds up the thread that watches the connections", "48"))
        monkeypatch.setattr(HttpServer, "keep_alive_conn_limit", 1)
        new = served.client()
        waiting.send(sized(b"too late", "8"))
        go_on.set()
        assert other.answer()[0] == 200
        assert new.ask(sized(b"hello", "5")) == 200
        status = 0
        with suppress(ConnectionResetError):
            status = waiting.answer()[0]
        assert (b"too late" in served.application.bodies) == (status == 200)
    finally:
        go_on.set()
        served.stop()


def test_a_thread_that_comes_while_the_server_stops_ends_too() -> None:
    served = Served()
    threads: Threads = vars(served)["_server"].requests
    late = threads._spawn_worker()
    served.stop()
    late.join(PATIENCE)
    assert not late.is_alive()


def test_a_server_that_has_stopped_may_be_told_to_retire(http_name: HttpServerName) -> None:
    """Both orders may come at once, and threads take them in any order."""
    served = Served(name=http_name)
    served.stop()
    vars(served)["_server"].retire()


def test_a_server_may_stop_while_a_connection_is_put_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_back, is_closed = threading.Event(), threading.Event()
    look, close = Inbox.has_data, ConnectionManager.close

    def looks_late(inbox: Inbox) -> bool:
        if threading.current_thread().name.startswith("CP Server"):
            is_back.set()
            is_closed.wait(PATIENCE)
        return look(inbox)

    def notes(connections: ConnectionManager) -> None:
        close(connections)
        is_closed.set()

    monkeypatch.setattr(Inbox, "has_data", looks_late)
    monkeypatch.setattr(ConnectionManager, "close", notes)
    served = Served()
    try:
        client = served.client()
        assert client.ask(sized(b"hello", "5")) == 200
        assert is_back.wait(PATIENCE)
        vars(served)["_server"].stop()  # while the client is still there
        assert client.is_closed()
    finally:
        served.stop()
    assert not [said for said in caplog.records if said.levelno > logging.INFO]


def test_a_refused_body_that_trickles_holds_no_thread(server: Served, client: Client) -> None:
    refused = b"PUT /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n"
    clients = [server.client() for _ in range(32)]
    for each in clients:
        each.send(refused)
    assert client.ask(sized(b"hello", "5")) == 200
    assert clients[0].answer()[0] == 412
    start = time.monotonic()
    clients[0].trickle()
    assert time.monotonic() - start < 2 * PATIENCE


def test_a_body_keeps_to_a_least_rate() -> None:
    steady = Pace(pause=60, rate=1024)
    for _ in range(1000):
        steady.note(10 * 1024, 9)
    steady.note(1, 59)
    with pytest.raises(RequestBodyError, match="too slowly"):
        steady.note(1, 59)
