"""One worker's HTTP server: cheroot, with the requests, bodies and answers read and sent strictly.

This is the only importer of cheroot. Each override names the behaviour of cheroot 11.1 that it
replaces.
"""

import logging
import os
import socket
import ssl
import time
from contextlib import suppress
from email.utils import formatdate
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from cheroot.errors import MaxSizeExceeded
from cheroot.makefile import StreamWriter
from cheroot.server import HTTPConnection, HTTPRequest
from cheroot.ssl import Adapter
from cheroot.wsgi import Gateway_10
from cheroot.wsgi import Server as CherootServer

from davfusion import http_requests
from davfusion.access_log import log_request
from davfusion.http_body import Body, ChunkedBody, LengthBody, RequestBodyError
from davfusion.http_inbox import MAX_HEADER_BYTES, Inbox
from davfusion.http_requests import BadRequestError, RequestLine

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = logging.getLogger(__name__)

THREADS: Final = 16
"""Requests that one worker serves at a time."""

BACKLOG: Final = 512
"""Connections that may wait in the kernel for a worker."""

IDLE_SECONDS: Final = 60
"""How long a client may pause: within a request's body or the answer, and between two requests."""

HEAD_SECONDS = 20.0
"""How long all of a request's head may take, from its first byte."""

SHUTDOWN_SECONDS: Final = 5
"""How long requests under way may take to finish when the server stops."""

MAX_DRAINED_BYTES: Final = 64 * 1024
"""Of a body that the application left unread, to keep the connection for the next request."""

_DRAIN_SECONDS: Final = 0.5
_LINGER_SECONDS: Final = 2.0
_SEND_BYTES: Final = 256 * 1024
_MAX_IDLE_CONNECTIONS: Final = 400


class _Request(HTTPRequest):
    """Parses strictly and keeps the connection only when both sides agree where they are."""

    status: Any  # bytes once the application has answered
    method = b""
    _line: RequestLine
    _body: Body | None = None
    _length: int | None = 0
    _version = (1, 0)
    _expects_continue = False

    def parse_request(self) -> None:
        self._start = time.monotonic()
        super().parse_request()

    def read_request_line(self) -> bool:
        """As cheroot's, but takes the absolute form and refuses what it lets through."""
        line = self.rfile.readline()
        self.started_request = True
        if line == b"\r\n":  # RFC 9112 section 2.2: one empty line before a request is ignored
            line = self.rfile.readline()
        if not line:
            return False
        try:
            request = http_requests.parse_request_line(line)
        except BadRequestError as error:
            self.simple_response(error.status, str(error))
            return False
        self.method, self.uri, self.path = request.method, request.target, request.path
        self.authority, self.qs = request.authority, request.query
        self._line, self._version = request, request.version
        self.request_protocol = b"HTTP/%d.%d" % request.version
        self.response_protocol = self.request_protocol.decode()
        return True

    def read_request_headers(self) -> bool:
        """As cheroot's, but refuses ambiguous lengths and leaves `100 Continue` to the body."""
        try:
            self.inheaders = http_requests.read_headers(self.rfile.readline)
            http_requests.settle_host(self.inheaders, self._line)
            self._length = http_requests.body_length(self.inheaders, self._version)
        except BadRequestError as error:
            self.simple_response(error.status, str(error))
            return False
        except MaxSizeExceeded:
            self.simple_response("431 Request Header Fields Too Large", "too many header bytes")
            return False
        self.chunked_read = self._length is None
        self.close_connection = not http_requests.keeps_alive(self.inheaders, self._version)
        expect = self.inheaders.get(b"Expect", b"").lower()
        self._expects_continue = expect == b"100-continue" and self._version >= (1, 1)
        return True

    def respond(self) -> None:
        """As cheroot's, but a body that is cut off or malformed is an error."""
        source = self.conn.rfile
        source.begin_body()
        if self._length is None:
            self._body = ChunkedBody(source, self._send_continue)
        else:
            self._body = LengthBody(source, self._length, self._send_continue)
        self.rfile = self._body.input()
        try:
            self.server.gateway(self).respond()
        except RequestBodyError as error:
            logger.info("%s: %s", self.conn.remote_addr, error)
            self._refuse_body(error)
            return
        if self.chunked_write and not self.is_bodiless:
            self.conn.wfile.write(b"0\r\n\r\n")

    def _refuse_body(self, error: RequestBodyError) -> None:
        self.close_connection = True
        if not self.sent_headers:
            self.simple_response("400 Bad Request", str(error))

    def _send_continue(self) -> None:
        """Ask for the body when the application does, so that a refusal comes before it."""
        if self._expects_continue and not self.sent_headers:
            self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send_headers(self) -> None:
        """As cheroot's, which would first read all that is left of the body into memory."""
        if not self._is_body_settled():
            self.close_connection = True
            self.conn.has_unread_body = True
        super().send_headers()

    def _is_body_settled(self) -> bool:
        """Whether the next request will begin where this one's body ends."""
        body = self._body
        if body is None or body.is_at_end:
            return True
        if self._expects_continue and body.is_untouched:
            return False  # the client may send the body, or the next request: unknown
        self.conn.rfile.hurry(_DRAIN_SECONDS)
        try:
            return body.drain(MAX_DRAINED_BYTES)
        finally:
            self.conn.rfile.wait(IDLE_SECONDS)

    @property
    def is_bodiless(self) -> bool:
        return self.method == b"HEAD" or self.status[:3] in (b"204", b"304")

    def write(self, chunk: bytes) -> None:
        """As cheroot's, without its copies; no body where HTTP allows none."""
        if self.is_bodiless:
            return
        if self.chunked_write:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        view = memoryview(chunk)
        for start in range(0, len(view), _SEND_BYTES):  # sendall's timeout counts for each piece
            self.conn.socket.sendall(view[start : start + _SEND_BYTES])

    def simple_response(self, status: str, msg: str = "") -> None:
        """An answer without the application, after which the connection is closed."""
        self.close_connection = self.conn.has_unread_body = self.sent_headers = True
        content = msg.encode() + b"\n"
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n"
            f"Date: {formatdate(usegmt=True)}\r\nServer: {self.server.server_name}\r\n\r\n"
        )
        if self._body is None:  # else the application's own log has the request
            request = f"{self.method.decode()} ({msg})".lstrip()
            seconds = time.monotonic() - self._start
            log_request(self.conn.remote_addr, "", request, status[:3], seconds)
        with suppress(OSError):  # the client may be gone
            self.conn.wfile.write(head.encode() + (b"" if self.method == b"HEAD" else content))


class _Gateway(Gateway_10):
    """Calls the application and holds it to the length that it announced."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]
        return {**super().get_environ(), "wsgi.multiprocess": True}

    def respond(self) -> None:
        """As cheroot's, which sends a 200 when the first piece fails, and trusts the length."""
        pieces = self.req.server.wsgi_app(self.env, self.start_response)
        try:
            for piece in filter(None, pieces):
                self.write(piece)
            self.req.ensure_headers_sent()
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        if self.remaining_bytes_out and not self.req.is_bodiless:
            raise ValueError(f"{self.remaining_bytes_out} bytes of the answer are missing")

    def write(self, chunk: bytes) -> None:
        if not self.started_response:
            raise RuntimeError("bytes before start_response")
        if self.remaining_bytes_out is not None:
            if len(chunk) > self.remaining_bytes_out:
                raise ValueError("more bytes than the answer's Content-Length says")
            self.remaining_bytes_out -= len(chunk)
        self.req.ensure_headers_sent()
        self.req.write(chunk)


def _make_file(sock: socket.socket, mode: str = "r", bufsize: int = -1) -> Any:
    return Inbox(sock) if "r" in mode else StreamWriter(sock, mode, bufsize)


class _Connection(HTTPConnection):
    """Has a thread only from the end of a request's head to the end of the answer."""

    RequestHandlerClass = _Request
    rfile: Inbox
    has_unread_body = False
    _is_leaving = False
    _last_used: float | None = None

    def __init__(self, server: "HttpServer", sock: socket.socket, _makefile: object = None) -> None:
        super().__init__(server, sock, _make_file)

    @property
    def last_used(self) -> float | None:
        """The time (time.time) from which IDLE_SECONDS count, None for a new connection.

        cheroot sets it when some bytes have come. A head that has begun has a deadline instead,
        and so has a connection that is being closed.
        """
        if self.rfile.began is None:
            return self._last_used
        seconds = _LINGER_SECONDS if self._is_leaving else HEAD_SECONDS
        return self.rfile.began + seconds - IDLE_SECONDS

    @last_used.setter
    def last_used(self, moment: float) -> None:
        self._last_used = moment

    @property
    def is_new(self) -> bool:
        return self._last_used is None

    def communicate(self) -> bool:
        """As cheroot's, but what is to be closed may wait for its client first."""
        self.rfile.wait(IDLE_SECONDS)
        return bool(super().communicate()) or (self.has_unread_body and self._leave())

    def _leave(self) -> bool:
        """Closing over unread bytes resets the connection, and the client may lose the answer.

        So, as RFC 9112 section 9.6 says: close one direction, and read on for a while.
        """
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            self.rfile.drop()
            self._is_leaving = True
        return self._is_leaving

    def evict(self) -> None:
        """End it from the selector's thread, which then finds it readable and closes it."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.rfile.began, self._last_used = None, time.time()


class _TlsAdapter(Adapter):
    """cheroot's interface to an SSLContext; the handshake is left to Inbox."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def bind(self, sock: socket.socket) -> socket.socket:
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, self.get_environ()

    def get_environ(self) -> dict[str, str]:
        return {"HTTPS": "on"}

    def makefile(self, sock: ssl.SSLSocket, mode: str = "r", bufsize: int = -1) -> Any:
        return _make_file(sock, mode, bufsize)


class HttpServer(CherootServer):
    """Serves `application` on a socket that listens already and that other processes share."""

    ConnectionClass = _Connection
    max_request_header_size = MAX_HEADER_BYTES
    keep_alive_conn_limit = _MAX_IDLE_CONNECTIONS

    def __init__(
        self, listener: socket.socket, application: "WSGIApplication", tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(
            listener.getsockname()[:2],
            application,
            numthreads=THREADS,
            request_queue_size=BACKLOG,  # cheroot calls listen again
            server_name="davfusion",
            timeout=IDLE_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        self.gateway = _Gateway
        self.software = "davfusion"
        self.ssl_adapter = _TlsAdapter(tls) if tls else None
        self._listener = listener

    def prepare(self) -> None:
        """Start the threads; cheroot would take a socket of systemd's, of which it knows little.

        All workers wait for the same socket, so the one that comes late must not wait in accept.
        """
        os.environ.pop("LISTEN_PID", None)
        super().prepare()
        self._listener.setblocking(False)

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: ARG002
        """Take the socket that is bound already."""
        self.socket = self._listener
        return self._listener

    def process_conn(self, conn: _Connection) -> None:
        """As cheroot's, but a thread is only given to a connection with a request's whole head."""
        if conn.is_new:
            self._make_room()
            self.put_conn(conn)
        elif not conn.rfile.has_data():
            self.put_conn(conn)
        elif conn.rfile.is_spent:
            if isinstance(conn.rfile.problem, ssl.SSLError):
                logger.info("%s: no TLS: %s", conn.remote_addr, conn.rfile.problem)
            conn.close()
        else:
            super().process_conn(conn)

    def _make_room(self) -> None:
        """End the connection whose time is up first, so that idle ones shut out no new one."""
        if self.can_add_keepalive_connection:
            return
        manager: Any = self._connections  # type: ignore[attr-defined]
        waiting = {conn for _, conn in manager._selector.connections} - {self}
        if waiting:
            min(waiting, key=attrgetter("last_used")).evict()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Into logging, where cheroot writes to stderr."""
        logger.log(level, "%s", msg, exc_info=traceback)
