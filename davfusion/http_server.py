"""One worker's HTTP server: cheroot, with connections that need no thread while they wait.

This, http_exchange.py and http_threads.py alone import cheroot. Each override names the behaviour
of cheroot 11.1 that it replaces.
"""

import logging
import os
import selectors
import socket
import ssl
import time
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from cheroot.makefile import StreamWriter
from cheroot.server import HTTPConnection
from cheroot.ssl import Adapter
from cheroot.wsgi import Server as CherootServer

from davfusion.http_answers import Answer
from davfusion.http_exchange import IDLE_SECONDS, Gateway, Request
from davfusion.http_inbox import MAX_HEADER_BYTES, Inbox
from davfusion.http_threads import THREADS, Threads
from davfusion.memo import Memos

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = logging.getLogger(__name__)

BACKLOG: Final = 512
"""Connections that may wait in the kernel for a worker."""

HEAD_SECONDS = 20.0
"""How long all of a request's head may take, from its first byte."""

SHUTDOWN_SECONDS: Final = 5
"""How long requests under way may take to finish when the server stops."""

RETIRE_SECONDS: Final = 2.0
"""How long idle connections of a server that is replaced may still be used."""
_RETIRE_POLL: Final = 0.1

LINGER_SECONDS: Final = 2.0
MAX_CONNECTIONS: Final = 400


def _make_file(sock: socket.socket, mode: str = "r", bufsize: int = -1) -> Any:
    return Inbox(sock) if "r" in mode else StreamWriter(sock, mode, bufsize)


class _Connection(HTTPConnection):
    """Has a thread only from the end of a request's head to the end of the answer."""

    RequestHandlerClass = Request
    rfile: Inbox
    has_unread_body = False
    _is_leaving = False
    _last_used: float | None = None
    _unsent = memoryview(b"")

    def __init__(self, server: "HttpServer", sock: socket.socket, _makefile: object = None) -> None:
        super().__init__(server, sock, _make_file)
        self.rfile.waiting = self._waiting = server.requests

    @property
    def last_used(self) -> float | None:
        """The time (time.time) from which IDLE_SECONDS count, None for a new connection.

        cheroot sets it when some bytes have come. A head that has begun has a deadline instead,
        and so has a connection that is being closed.
        """
        if self.rfile.began is None:
            return self._last_used
        seconds = LINGER_SECONDS if self._is_leaving else HEAD_SECONDS
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
        if self._unsent:
            return self._send_rest()
        return bool(super().communicate()) or (self.has_unread_body and self._leave())

    def send(self, data: bytes | memoryview) -> None:
        """Send all; OSError when the client takes none of it for IDLE_SECONDS."""
        view = memoryview(data)
        with self._waiting:
            while view:  # not by sendall, whose timeout counts for all of it
                view = view[self.socket.send(view) :]

    def begin_to_send(self, data: bytes) -> bool:
        """Send what can be sent at once; whether that is all. communicate() sends the rest."""
        sent = 0
        with suppress(OSError):
            sent = self.socket.send(data)
        self._unsent = memoryview(data)[sent:]
        return not self._unsent

    def _send_rest(self) -> bool:
        rest, self._unsent = self._unsent, memoryview(b"")
        try:
            self.send(rest)
        except OSError:
            return False
        return True

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
        """End it from the selector's thread, which then finds it readable and closes it.

        A request that has come just now is not carried out, for it could not be answered.
        """
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.rfile.end()
        self._last_used = time.time()


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
    """Serves `application` on a socket that is bound already and that other processes share."""

    ConnectionClass = _Connection
    max_request_header_size = MAX_HEADER_BYTES
    keep_alive_conn_limit = MAX_CONNECTIONS
    is_leaving = False
    """Whether each connection ends with its next answer."""

    def __init__(
        self, listener: socket.socket, application: "WSGIApplication", tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(
            listener.getsockname()[:2],
            application,
            numthreads=THREADS,
            request_queue_size=BACKLOG,
            server_name="davfusion",
            timeout=IDLE_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        self.requests = Threads(self)
        self.gateway = Gateway
        self.software = "davfusion"
        self.ssl_adapter = _TlsAdapter(tls) if tls else None
        self._listener = listener
        self.memos = Memos()
        """Those of the application, by the bytes of requests too."""

    def prepare(self) -> None:
        """Listen, and start the threads.

        cheroot would take a socket of systemd's, of which it knows little.

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
            self._await(conn)
        elif conn.rfile.is_spent:
            if isinstance(conn.rfile.problem, ssl.SSLError):
                logger.info("%s: no TLS: %s", conn.remote_addr, conn.rfile.problem)
            conn.close()
        elif self._repeat(conn) and conn.rfile.is_drained():
            self._await(conn)
        else:
            super().process_conn(conn)

    def put_conn(self, conn: _Connection) -> None:
        """As cheroot's, but stop() may close the selector meanwhile."""
        try:
            super().put_conn(conn)
        except ValueError:
            conn.close()

    def _repeat(self, conn: _Connection) -> bool:
        """Answer at once what has been answered before; whether there is nothing left to do."""
        question = conn.rfile.look()
        if conn.rfile.is_over or self.is_leaving:
            return False
        found = self.memos.recall(question)
        if found is None:
            return False
        answer: Answer | None = found[1]
        if answer is None:
            conn.rfile.expect_more()
            return True
        conn.rfile.skip()
        if answer.logged:
            answer.logged.again(conn.remote_addr)
        return conn.begin_to_send(answer.head.then(answer.body))

    def retire(self) -> None:
        """Take no more connections, and end each with its next answer.

        One that is kept, since its last answer had begun before, has RETIRE_SECONDS for it.
        """
        self.is_leaving = True
        try:
            self._connections._selector.unregister(self._listener.fileno())  # type: ignore[attr-defined]
        except (KeyError, ValueError):  # stop() has closed them
            return
        until = time.monotonic() + RETIRE_SECONDS
        while time.monotonic() < until:
            time.sleep(_RETIRE_POLL)
            if self.requests.idle < THREADS:
                until = time.monotonic() + RETIRE_SECONDS
        self.shutdown_timeout = None
        self.stop()

    def _await(self, conn: _Connection) -> None:
        """As put_conn, for a connection on which all that has come is read."""
        conn.last_used = time.time()
        manager: Any = self._connections  # type: ignore[attr-defined]
        manager._selector.register(conn.socket.fileno(), selectors.EVENT_READ, conn)

    def _make_room(self) -> None:
        """End the connection whose time is up first, so that idle ones shut out no new one."""
        if self.can_add_keepalive_connection or not self.ready:
            return
        manager: Any = self._connections  # type: ignore[attr-defined]
        waiting = {conn for _, conn in manager._selector.connections} - {self}
        if waiting:
            min(waiting, key=attrgetter("last_used")).evict()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Into logging, where cheroot writes to stderr."""
        logger.log(level, "%s", msg, exc_info=traceback)
