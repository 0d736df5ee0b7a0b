"""The processes: port, workers, restarts, signals, TLS; each server is a program of its own."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from davfusion.config import HttpServerName
from davfusion.http_server import SHUTDOWN_SECONDS
from davfusion.server import ServerError, TlsFiles, WorkerSpec, bind
from davfusion.supervisor import Restarts, Supervisor

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

live = pytest.mark.live
PATIENCE = 20.0


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Answers with the number of its process; `/slow` after the body has come in."""
    if environ["PATH_INFO"] == "/slow":
        environ["wsgi.input"].read()
    content = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(content)))])
    return [content]


def make_application() -> "WSGIApplication":
    return application


def broken_application() -> "WSGIApplication":
    raise RuntimeError("cannot be made")


def other_application() -> "WSGIApplication":
    def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "1")])
        return [b"0"]

    return application


def main(http_name: HttpServerName, workers: str, make: str, *tls: str) -> None:
    """SIGHUP brings what the variable NEXT names, a word for each time."""
    listener = bind("127.0.0.1", 0)
    files = TlsFiles(*map(Path, tls)) if tls else None
    spec = WorkerSpec(listener, globals()[make], files, "debug", http_name, workers=int(workers))
    announce = partial(print, listener.getsockname()[1], flush=True)
    try:
        names = iter(os.environ.get("NEXT", "").split())
        Supervisor(spec, lambda: _next(spec, next(names))).run(announce)
    except ServerError as error:
        sys.exit(str(error))


def _next(spec: WorkerSpec, make: str) -> WorkerSpec:
    return replace(spec, make_application=globals()[make])


class Program:
    """A running supervisor with its workers."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, tls: bool) -> None:
        self.process = process
        self.port = port
        self._tls = tls

    def connect(self) -> HTTPConnection:
        if not self._tls:
            return HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=context)

    def worker(self) -> int:
        """The process that answered a request."""
        connection = self.connect()
        try:
            connection.request("GET", "/")
            return int(connection.getresponse().read())
        finally:
            connection.close()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE)


@contextmanager
def running(
    http_name: str, workers: int = 2, *tls: Path, make: str = "make_application"
) -> Iterator[Program]:
    command = [sys.executable, "-m", "tests.test_server", http_name, str(workers), make]
    command += map(str, tls)
    root = Path(__file__).parents[1]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline() or 0)  # none: it has ended
        yield Program(process, port, bool(tls))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def eventually(holds: Callable[[], bool]) -> bool:
    """Other processes give no event to wait for."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.02)
    return False


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@live
def test_several_workers_share_the_port(http_name: str) -> None:
    with running(http_name, 2) as program:
        first = program.worker()
        assert eventually(lambda: program.worker() != first)


@live
def test_a_dead_worker_is_replaced_and_the_port_stays_open(http_name: str) -> None:
    with running(http_name, 1) as program:
        first = program.worker()
        os.kill(first, signal.SIGKILL)
        assert program.worker() != first


@live
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_with_code_0(http_name: str, number: int) -> None:
    with running(http_name, 2) as program:
        worker = program.worker()
        program.signal(number)
        assert program.exit_code() == 0
        assert is_gone(worker)
        with pytest.raises(ConnectionError):
            program.worker()


@live
def test_a_request_under_way_is_finished(http_name: str) -> None:
    with running(http_name, 1) as program:
        worker = program.worker()
        connection = program.connect()
        connection.putrequest("PUT", "/slow")
        connection.putheader("Content-Length", "2")
        connection.endheaders(b"a")
        idle = program.connect()
        idle.request("GET", "/")
        idle.getresponse().read()
        program.signal(signal.SIGTERM)
        assert idle.sock.recv(1) == b""
        connection.send(b"b")
        assert int(connection.getresponse().read()) == worker
        connection.close()
        idle.close()
        assert program.exit_code() == 0


@live
def test_a_second_signal_ends_at_once(http_name: str) -> None:
    with running(http_name, 1) as program:
        connection = program.connect()
        connection.putrequest("PUT", "/slow")
        connection.putheader("Content-Length", "2")
        connection.endheaders(b"a")
        program.worker()
        start = time.monotonic()
        program.signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            program.process.wait(1)
        program.signal(signal.SIGINT)
        assert program.exit_code() == 0
        assert time.monotonic() - start < SHUTDOWN_SECONDS
        connection.close()


@live
def test_requests_that_hang_do_not_hold_up_the_end(http_name: str) -> None:
    with running(http_name, 1) as program:
        connections = [program.connect() for _ in range(100)]
        for connection in connections:
            connection.putrequest("PUT", "/slow")
            connection.putheader("Content-Length", "2")
            connection.endheaders(b"a")
        program.worker()
        program.signal(signal.SIGTERM)
        assert program.exit_code() == 0
        for connection in connections:
            connection.close()


@live
def test_workers_end_when_the_supervisor_is_killed(http_name: str) -> None:
    with running(http_name, 2) as program:
        worker = program.worker()
        program.signal(signal.SIGKILL)
        program.process.wait(PATIENCE)
        assert eventually(lambda: is_gone(worker))


@live
def test_workers_that_cannot_start_end_the_server(
    http_name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(http_name, 1, make="broken_application") as program:
        assert program.exit_code() == 1
    assert "a process could not start" in capfd.readouterr().err


@live
def test_a_reload_that_cannot_serve_leaves_all_as_it_was(
    http_name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEXT", "broken_application other_application")
    with running(http_name, 1) as program:
        worker = program.worker()
        program.signal(signal.SIGHUP)
        assert eventually(lambda: "a new worker could not start" in capfd.readouterr().err)
        assert program.worker() == worker
        program.signal(signal.SIGHUP)
        if http_name != "granian":  # which may end a connection that was just made (ADR 5)
            assert eventually(lambda: program.worker() == 0)
        assert eventually(lambda: is_gone(worker))
        assert program.worker() == 0
        program.signal(signal.SIGTERM)
        assert program.exit_code() == 0


@live
def test_tls(http_name: str, certificate: tuple[Path, Path]) -> None:
    with running(http_name, 1, *certificate) as program:
        silent = [socket.create_connection(("127.0.0.1", program.port)) for _ in range(40)]
        for each in silent[1:]:
            each.sendall(b"\x16\x03\x01")  # a handshake that does not go on
        worker = program.worker()
        connection = program.connect()
        for _ in range(3):
            body = os.urandom(300_000)
            connection.request("PUT", "/slow", body)
            assert int(connection.getresponse().read()) == worker
        connection.close()
        silent[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert program.worker() == worker
        for each in silent:
            each.close()


@pytest.mark.parametrize("which", ["missing", "swapped", "foreign", "encrypted"])
def test_tls_files_that_cannot_be_used(
    certificate: tuple[Path, Path], tmp_path: Path, which: str
) -> None:
    cert, key = certificate
    other = tmp_path / "other.pem"
    if which == "foreign":
        subprocess.run(["openssl", "genrsa", "-out", str(other)], check=True, capture_output=True)
    if which == "encrypted":
        encrypt = ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", str(key)]
        subprocess.run([*encrypt, "-out", str(other)], check=True, capture_output=True)
    pair = (key, cert) if which == "swapped" else (cert, other)
    with pytest.raises(ServerError, match=r"cannot read|are no certificate"):
        TlsFiles(*pair).context()


def test_a_port_in_use_is_named_with_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} .* in use: .*--port"):
            bind("127.0.0.1", port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ServerError, match="--host"):
        bind("192.0.2.1", 0)
    with pytest.raises(ServerError, match="--host"):
        bind("no such host", 0)


def test_ipv6() -> None:
    with bind("::1", 0) as listener:
        assert listener.family == socket.AF_INET6


def test_a_worker_that_keeps_dying_is_restarted_later_and_later() -> None:
    now = 0.0
    restarts = Restarts(lambda: now)
    assert restarts.next_due() is None
    assert [restarts.died(now) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert restarts.take_due() == 0
    now = 4.0
    assert (restarts.take_due(), restarts.next_due()) == (4, 4.0)
    now = 100.0
    assert (restarts.take_due(), restarts.died(50.0)) == (4, 0.0)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
    assert threading.active_count() == 1, "the supervisor forks, so it has no threads"
