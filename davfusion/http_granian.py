"""One worker's HTTP server where `--server granian` is chosen: hyper's HTTP, in Rust.

This is the only importer of granian. It has no public way to serve WSGI on a socket that is bound
already, in a process that is not its own, so what granian's own worker processes call is called
here; the extra in setup.cfg holds it to the versions for which that was checked.
"""

import asyncio
import io
import logging
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from granian._futures import _new_cbscheduler
from granian._granian import SocketHolder, WorkerSignal, WSGIWorker
from granian.http import HTTP1Settings

from davfusion.access_log import LOGGED, Logged, log_request
from davfusion.http_body import Body, RequestBodyError
from davfusion.http_environ import RefusedError, announced_body, check
from davfusion.http_exchange import IDLE_SECONDS
from davfusion.http_inbox import MAX_HEADER_BYTES
from davfusion.http_server import BACKLOG, LINGER_SECONDS
from davfusion.http_waiting import THREADS, Awaited, Source, Threads
from davfusion.memo import REPEATABLE, Memos

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 700
"""Of one worker, which may have 1,024 open files by default; idle ones cost no thread."""

HEAD_SECONDS = IDLE_SECONDS
"""How long a connection may wait for a request and for all of its head: granian has one limit."""

_PROBE_SECONDS: Final = 15
_FOR_EVER: Final = 10**9
_WATCH_SECONDS: Final = 1.0
_MOST_LINGERING: Final = 16

_KNOCK: Final = "X-DAVFUSION-KNOCK"
"""The method of a request that asks for a thread and nothing else."""

_KNOCK_SECONDS: Final = 1.0

_SENT_PIECE: Final = 128 * 1024
"""Bytes; granian keeps up to six pieces for a client that does not read."""

_DROPPED_PIECE: Final = 64
"""Bytes; granian waits until it has all of a piece, so only between them does the time count."""

Headers = list[tuple[str, str]]


@dataclass
class _Answer:
    """What the application has said so far."""

    status: int = 0
    headers: Headers = ()  # type: ignore[assignment]

    def start(
        self, status: str, headers: Headers, _exc_info: object = None, /
    ) -> Callable[[bytes], object]:
        """WSGI's start_response."""
        if not all(value.isascii() for _, value in headers):
            raise ValueError("a header of the answer is not ASCII")
        self.status, self.headers = int(status[:3]), headers
        return _no_write

    @property
    def length(self) -> int | None:
        """What the application has announced."""
        for name, value in self.headers:
            if name.lower() == "content-length":
                return int(value)
        return None


def _no_write(_piece: bytes) -> object:
    raise TypeError("applications give their answers as pieces")


class _Pieces:
    """An answer as granian takes it: it stops at an error, and calls close()."""

    def __init__(
        self, pieces: Iterator[bytes], close: Callable[[], None], threads: Threads
    ) -> None:
        self._pieces = pieces
        self._threads = threads
        self.close = close

    def __next__(self) -> bytes:
        self._threads.go_on()
        try:
            return next(self._pieces)
        except StopIteration:
            raise
        except Exception:
            logger.exception("an answer broke off")
            raise StopIteration from None
        finally:
            self._threads.wait()


def _cut(piece: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    """What can wait for a client at little cost; holds no piece that has been sent."""
    while piece:
        for start in range(0, len(piece), _SENT_PIECE):
            yield piece[start : start + _SENT_PIECE]
        piece = next(rest, b"")


class GranianServer:
    """Serves `application` on a socket that is bound already and that other processes share.

    `tls` are the PEM files of certificate chain and key.
    """

    def __init__(
        self,
        listener: socket.socket,
        application: "WSGIApplication",
        tls: tuple[Path, Path] | None,
    ) -> None:
        self._listener = listener
        self._application = application
        self._tls = tls
        self._signal = WorkerSignal()
        self._loop = asyncio.new_event_loop()  # granian looks at it, and never runs it
        self._has_ended = threading.Event()
        self._signal.add_cb(self._has_ended.set)
        self._threads = Threads()
        self._awaited = Awaited(self._threads)
        self._may_linger = threading.Semaphore(_MOST_LINGERING)
        self._memos = Memos()
        self._base = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": "davfusion",
            "wsgi.errors": sys.stderr,
            "wsgi.multiprocess": True,
            "wsgi.multithread": True,
            "wsgi.run_once": False,
            "wsgi.version": (1, 0),
        }

    def prepare(self) -> None:
        """Listen, and start the threads, which take connections at once."""
        _end_dead_connections(self._listener)
        self._listener.listen(BACKLOG)
        cert, key = map(str, self._tls) if self._tls else (None, None)
        holder = SocketHolder(os.dup(self._listener.fileno()), False, BACKLOG)  # type: ignore[call-arg]
        worker = WSGIWorker(  # type: ignore[call-arg]
            1,
            (None, holder),
            None,  # type: ignore[arg-type]
            py_threads=THREADS,
            py_threads_idle_timeout=_FOR_EVER,
            backpressure=MAX_CONNECTIONS,
            http1_opts=HTTP1Settings(
                header_read_timeout=HEAD_SECONDS * 1000, max_buffer_size=MAX_HEADER_BYTES
            ),
            ssl_enabled=self._tls is not None,
            ssl_cert=cert,
            ssl_key=key,
            ssl_protocol_min="tls1.2",
            ssl_crl=[],
            metrics=(None, None),
        )
        scheduler = _new_cbscheduler(self._loop, self._handle, True)
        worker.serve_mtr(scheduler, self._loop, self._signal)  # type: ignore[attr-defined]

    def serve(self) -> None:
        """Returns when stop() was called and the requests under way have been answered."""
        while not self._has_ended.wait(_WATCH_SECONDS):
            self._awaited.end_late()
            if self._threads.are_all_taken:
                self._knock()
        self._loop.close()
        self._listener.close()

    def stop(self) -> None:
        """Take no more requests."""
        self._signal.set()

    def retire(self) -> None:
        """As stop: granian ends no request that is under way, and idle connections at once."""
        self.stop()

    def _knock(self) -> None:
        """Have granian look how many threads it needs.

        It does so for each request, but may count a thread that has just taken one as idle; then
        the request waits until there is another. This is another, if this worker takes it; one
        that shares the socket may do so, and leave it to the next.
        """
        connection: HTTPConnection
        host, port = self._listener.getsockname()[:2]
        if self._tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = HTTPSConnection(host, port, timeout=_KNOCK_SECONDS, context=context)
        else:
            connection = HTTPConnection(host, port, timeout=_KNOCK_SECONDS)
        with closing(connection):
            try:
                connection.request(_KNOCK, "/")
                connection.getresponse()
            except (OSError, HTTPException) as error:  # too many connections, or stopping
                logger.debug("nobody took the request for a thread: %s", error)

    def _handle(self, protocol: Any, environ: "WSGIEnvironment") -> None:
        """Answer one request; in one of granian's threads."""
        self._threads.begin()
        if environ["REQUEST_METHOD"] == _KNOCK:
            protocol.response_bytes(204, [], b"")
            self._threads.end(may_rest=True)
            return
        source = Source(environ.pop("wsgi.input"), protocol, self._awaited)
        body: Body | None = None
        is_unread = True
        try:
            body = announced_body(environ, source)
            self._answer(protocol, environ, body)
            is_unread = body is not None and not body.is_at_end
        except RefusedError as error:
            request = f"{environ['REQUEST_METHOD']} ({error})"
            log_request(environ["REMOTE_ADDR"], "", request, str(error.status), 0)
            _say(protocol, error.status, str(error))
        except RequestBodyError as error:
            logger.info("%s: %s", environ["REMOTE_ADDR"], error)
            _say(protocol, 400, str(error))
        except Exception:
            logger.exception("a request failed")
            _say(protocol, 500, "the server failed")
        if is_unread and not _is_awaited(environ, body):
            self._linger(source)
        self._threads.end(may_rest=not is_unread)  # granian closes once it gets the thread back

    def _answer(self, protocol: Any, environ: "WSGIEnvironment", body: Body | None) -> None:
        if not _has_all_come(environ, body):
            environ["wsgi.input"] = body.input() if body else io.BytesIO()
            self._ask(protocol, environ, body)
            return
        question = (*environ, *environ.values())
        if found := self._memos.recall(question):
            _repeat(protocol, environ["REMOTE_ADDR"], *found[1])
            return
        environ["wsgi.input"] = io.BytesIO()
        answer = self._ask(protocol, environ, body)
        if answer and (repeatable := environ.get(REPEATABLE)):
            memo, moment = repeatable
            size = len(answer[2]) + sum(len(str(part)) for part in question)
            self._memos.add(memo)
            memo.keep(question, moment, (*answer, environ.get(LOGGED)), size)

    def _ask(
        self, protocol: Any, environ: "WSGIEnvironment", body: Body | None
    ) -> tuple[int, Headers, bytes] | None:
        """Have the application answer; None unless its answer was of one piece."""
        check(environ)
        environ |= self._base
        answer = _Answer()
        pieces = self._application(environ, answer.start)
        close = getattr(pieces, "close", _nothing)
        try:
            rest = filter(None, pieces)
            first = next(rest, b"")
            if _is_awaited(environ, body):
                answer.headers = [*answer.headers, ("Connection", "close")]
            if environ["REQUEST_METHOD"] == "HEAD" or answer.status in (204, 304):
                first = b""
            elif len(first) != answer.length:
                streamed = _Pieces(_cut(first, rest), close, self._threads)
                first, close = b"", _nothing
                with self._threads:
                    protocol.response_iter(answer.status, answer.headers, streamed)
                return None
            protocol.response_bytes(answer.status, answer.headers, first)
        finally:
            close()
        return answer.status, answer.headers, first

    def _linger(self, source: Source) -> None:
        """Take in what still comes of a body, since otherwise the client may lose the answer.

        As RFC 9112 section 9.6 says. At most half of the threads do, for the client may pause.
        """
        if not self._may_linger.acquire(blocking=False):
            return
        piece = memoryview(bytearray(_DROPPED_PIECE))
        until = time.monotonic() + LINGER_SECONDS
        try:
            while time.monotonic() < until and source.readinto(piece):
                pass
        except RequestBodyError as error:
            logger.debug("what is left is not read: %s", error)
        finally:
            self._may_linger.release()


def _has_all_come(environ: "WSGIEnvironment", body: Body | None) -> bool:
    """Whether all of the request has come."""
    return body is None and "HTTP_EXPECT" not in environ


def _repeat(
    protocol: Any,
    address: str,
    status: int,
    headers: Headers,
    content: bytes,
    logged: Logged | None,
) -> None:
    protocol.response_bytes(status, headers, content)
    if logged:
        logged.again(address)


def _nothing() -> None:
    """The close() of an answer that has none."""


def _is_awaited(environ: "WSGIEnvironment", body: Body | None) -> bool:
    """Whether the client may be waiting for `100 Continue`, which it will not get any more."""
    return "HTTP_EXPECT" in environ and (body is None or body.is_untouched)


def _say(protocol: Any, status: int, text: str) -> None:
    """An answer without the application; does nothing where an answer has begun."""
    content = text.encode() + b"\n"
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(content))),
    ]
    protocol.response_bytes(status, headers, content)


def _end_dead_connections(listener: socket.socket) -> None:
    """Connections inherit it: one whose client is gone, or takes nothing, holds no thread for long.

    granian itself waits for a body, and for a client that does not read, without an end.
    """
    if sys.platform == "linux":  # as config.check() requires
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, IDLE_SECONDS),
            (socket.TCP_KEEPINTVL, _PROBE_SECONDS),
            (socket.TCP_USER_TIMEOUT, IDLE_SECONDS * 1000),
        ):
            listener.setsockopt(socket.IPPROTO_TCP, option, value)
