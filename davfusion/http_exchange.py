"""A request and its answer on cheroot: read and sent strictly.

Each override names the behaviour of cheroot 11.1 that it replaces.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from cheroot.errors import MaxSizeExceeded
from cheroot.server import HTTPRequest
from cheroot.wsgi import Gateway_10

from davfusion import http_requests
from davfusion.access_log import LOGGED, log_request
from davfusion.http_answers import Answer, Head, make_head
from davfusion.http_body import Body, ChunkedBody, LengthBody, RequestBodyError
from davfusion.http_requests import BadRequestError, RequestLine
from davfusion.memo import REPEATABLE, Repeatable

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 60
"""How long a client may pause: within a request's body or the answer, and between two requests."""

MAX_DRAINED_BYTES: Final = 64 * 1024
"""Of a body that the application left unread, to keep the connection for the next request."""

_DRAIN_SECONDS: Final = 0.5

AT_ONCE: Final = 256 * 1024
"""Bytes up to which a body is sent together with its head, and may be repeated from memory."""

_BODILESS: Final = (b"204", b"304")


class Request(HTTPRequest):
    """Parses strictly and keeps the connection only when both sides agree where they are."""

    status: Any  # bytes once the application has answered
    method = b""
    _line: RequestLine
    _body: Body | None = None
    _length: int | None = 0
    _version = (1, 0)
    expects_continue = False
    head: Head
    _is_head_sent = False
    only_piece: bytes | None = None
    """The body, if it was sent at once."""

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
        self.expects_continue = expect == b"100-continue" and self._version >= (1, 1)
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
        if self.expects_continue and not self.sent_headers:
            self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send_headers(self) -> None:
        """As cheroot's, which would first read all that is left of the body into memory.

        They go out with the first piece of the body.
        """
        if not self._is_body_settled():
            self.close_connection = self.conn.has_unread_body = True
        is_11, status = self._version >= (1, 1), self.status[:3]
        if status not in _BODILESS and not self._is_length_known():
            self.chunked_write = is_11 and self.method != b"HEAD"
            self.close_connection |= not self.chunked_write
        is_full = not self.server.can_add_keepalive_connection
        if status == b"413" or is_full or self.server.is_leaving:
            self.close_connection = True
        self.head = make_head(self.status, [*self.outheaders, *self._own_fields()])

    def _is_length_known(self) -> bool:
        return any(name.lower() == b"content-length" for name, _ in self.outheaders)

    def _own_fields(self) -> Iterator[tuple[bytes, bytes]]:
        if self.chunked_write:
            yield b"Transfer-Encoding", b"chunked"
        if self.close_connection:
            yield b"Connection", b"close"
        elif self._version < (1, 1):
            yield b"Connection", b"Keep-Alive"
            yield b"Keep-Alive", b"timeout=%d" % IDLE_SECONDS
        yield b"Server", self.server.server_name.encode()

    def _is_body_settled(self) -> bool:
        """Whether the next request will begin where this one's body ends."""
        body = self._body
        if body is None or body.is_at_end:
            return True
        if self.expects_continue and body.is_untouched:
            return False  # the client may send the body, or the next request: unknown
        self.conn.rfile.hurry(_DRAIN_SECONDS)
        try:
            return body.drain(MAX_DRAINED_BYTES)
        finally:
            self.conn.rfile.wait(IDLE_SECONDS)

    @property
    def is_bodiless(self) -> bool:
        return self.method == b"HEAD" or self.status[:3] in _BODILESS

    def write(self, chunk: bytes) -> None:
        """As cheroot's, without its copies; no body where HTTP allows none."""
        if self.is_bodiless:
            return
        if self.chunked_write:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        if self._is_head_sent:
            self.only_piece = None
            self.conn.send(chunk)
            return
        self.only_piece = chunk
        if len(chunk) <= AT_ONCE:
            self._send_head(chunk)
        else:
            self._send_head()
            self.conn.send(chunk)

    def finish(self) -> None:
        """All of the body has been written."""
        self.ensure_headers_sent()
        if not self._is_head_sent:
            self.only_piece = b""
            self._send_head()

    def _send_head(self, body: bytes = b"") -> None:
        self._is_head_sent = True
        self.conn.send(self.head.then(body))

    def simple_response(self, status: str, msg: str = "") -> None:
        """An answer without the application, after which the connection is closed."""
        self.close_connection = self.conn.has_unread_body = self.sent_headers = True
        content = msg.encode() + b"\n"
        fields = (
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(content)),
            (b"Connection", b"close"),
            (b"Server", self.server.server_name.encode()),
        )
        head = make_head(status.encode(), fields)
        if self._body is None:  # else the application's own log has the request
            request = f"{self.method.decode()} ({msg})".lstrip()
            seconds = time.monotonic() - self._start
            log_request(self.conn.remote_addr, "", request, status[:3], seconds)
        with suppress(OSError):  # the client may be gone
            self.conn.wfile.write(head.then(b"" if self.method == b"HEAD" else content))


class Gateway(Gateway_10):
    """Calls the application and holds it to the length that it announced."""

    def get_environ(self) -> dict[str, Any]:  # type: ignore[override]
        return {**super().get_environ(), "wsgi.multiprocess": True}

    def respond(self) -> None:
        """As cheroot's, which sends a 200 when the first piece fails, and trusts the length."""
        pieces = self.req.server.wsgi_app(self.env, self.start_response)
        try:
            for piece in filter(None, pieces):
                self.write(piece)
            self.req.finish()
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        if self.remaining_bytes_out and not self.req.is_bodiless:
            raise ValueError(f"{self.remaining_bytes_out} bytes of the answer are missing")
        if repeatable := self.env.get(REPEATABLE):
            self._keep(repeatable)

    def _keep(self, repeatable: Repeatable) -> None:
        """Have the same bytes of a request answered alike."""
        request, inbox = self.req, self.req.conn.rfile
        question, piece = inbox.seen, request.only_piece
        if question is None or piece is None or len(piece) > AT_ONCE:
            return  # what is large costs a copy for each client that is slow
        if request.close_connection or request.chunked_write:
            return
        memo, moment = repeatable
        answer = Answer(request.head, piece, self.env.get(LOGGED))
        memo.keep(question, moment, answer, len(question) + len(answer.body))
        if inbox.beginning != question and not request.expects_continue:
            memo.keep(inbox.beginning, moment, None, len(question))
        request.server.memos.add(memo)

    def write(self, chunk: bytes) -> None:
        if not self.started_response:
            raise RuntimeError("bytes before start_response")
        if self.remaining_bytes_out is not None:
            if len(chunk) > self.remaining_bytes_out:
                raise ValueError("more bytes than the answer's Content-Length says")
            self.remaining_bytes_out -= len(chunk)
        self.req.ensure_headers_sent()
        self.req.write(chunk)
