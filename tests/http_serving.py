"""A server in this process for the tests of HTTP, and raw connections to it."""

import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from davfusion.config import HttpServerName
from davfusion.http_body import RequestBodyError
from davfusion.server import TlsFiles, WorkerSpec, make_http_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATIENCE = 5.0


class Recorder:
    """Answers what the path asks for and keeps what it saw."""

    def __init__(self) -> None:
        self.environs: list[WSGIEnvironment] = []
        self.bodies: list[bytes] = []
        self.errors: list[Exception] = []

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        self.environs.append(environ)
        path = environ["PATH_INFO"]
        if path == "/refuse":
            start_response("412 Precondition Failed", [("Content-Length", "0")])
            return []
        if path == "/lazy":
            start_response("200 OK", [])
            return iter([b"one", b"", b"two"])
        if path == "/short":
            start_response("200 OK", [("Content-Length", "10")])
            return [b"four"]
        if path == "/fail":
            raise RuntimeError("the application failed")
        body = self._read(environ["wsgi.input"])
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def _read(self, stream: Any) -> bytes:
        try:
            body = b"".join(iter(lambda: stream.read(64 * 1024), b""))
        except RequestBodyError as error:
            self.errors.append(error)
            raise
        self.bodies.append(body)
        return body


class Client:
    """A raw connection."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next response; status 0 when the server has closed the connection."""
        line = self._file.readline()
        if not line:
            return 0, {}, b""
        headers = {}
        while (field := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = 0 if bodiless else int(headers.get("content-length", 0))
        return int(line.split()[1]), headers, self._file.read(length)

    def ask(self, data: bytes) -> int:
        self.send(data)
        return self.answer()[0]

    def is_closed(self) -> bool:
        return self._file.read(1) == b""

    def trickle(self) -> None:
        """Send a byte every now and then until the server has had enough."""
        self.socket.settimeout(0.05)
        with suppress(ConnectionError):
            while True:
                self.send(b"x")
                with suppress(TimeoutError):
                    if not self.socket.recv(1):
                        return

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class Served:
    """A server in this process, and clients for it."""

    def __init__(
        self,
        application: "WSGIApplication | None" = None,
        name: HttpServerName = "cheroot",
        tls: TlsFiles | None = None,
    ) -> None:
        self._has_tls = tls is not None
        self.application = Recorder()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        made = application or self.application
        spec = WorkerSpec(self.listener, lambda: made, tls, "info", name)
        self._server = make_http_server(spec)
        self._server.prepare()
        self._thread = threading.Thread(target=self._server.serve)
        self._thread.start()
        self._clients: list[Client] = []

    def client(self) -> Client:
        self._clients.append(Client(self.port, tls=self._has_tls))
        return self._clients[-1]

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        self._server.stop()
        self._thread.join()


def chunked(body: bytes, method: bytes = b"PUT") -> bytes:
    return method + b" /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body


def sized(body: bytes, *lengths: str) -> bytes:
    fields = "".join(f"Content-Length: {length}\r\n" for length in lengths)
    return b"PUT /x HTTP/1.1\r\nHost: h\r\n" + fields.encode() + b"\r\n" + body
