"""Request lines, headers and bodies, as they come from a socket."""

import io

from hypothesis import given
from hypothesis import strategies as st

from davfusion.http_body import Body, ChunkedBody, LengthBody, RequestBodyError
from davfusion.http_requests import (
    BadRequestError,
    RequestLine,
    body_length,
    keeps_alive,
    parse_request_line,
    read_headers,
    settle_host,
)
from tests.fuzz.fuzzing import fuzzed, octets, refusal

LINES = octets(
    b"GET", b"PROPFIND", b" ", b"/", b"*", b"http://h", b"?q", b"#f", b"%2e", b"..", b"[::1]",
    b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"\r\n",
)  # fmt: skip
FIELDS = octets(
    b"Host: h\r\n", b"Content-Length: ", b"5", b"5, 5", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Depth: 0\r\n", b"X_Y: ", b":", b" ", b",", b"\r\n", b"\r\n\r\n",
)  # fmt: skip
CHUNKS = octets(
    b"3\r\nabc\r\n", b"0\r\n", b"\r\n", b"A;x=y\r\n", b"ffffffffffffffff\r\n", b"T: 1\r\n"
)


class Connection:
    """Bytes that have come, and no more will."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readinto(self, buffer: memoryview, /) -> int:
        return self._file.readinto(buffer)

    def readline(self, limit: int = -1, /) -> bytes:
        return self._file.readline(limit)


def nothing() -> None:
    """No `100 Continue`."""


@fuzzed
@given(LINES)
def test_request_lines(line: bytes) -> None:
    try:
        request = parse_request_line(line)
    except BadRequestError as error:
        assert error.status[:1] in "45"
    else:
        assert b"\0" not in request.path
        assert request.path.decode()[:1] in ("/", "*")


@fuzzed
@given(FIELDS)
def test_headers(fields: bytes) -> None:
    line = RequestLine(b"GET", b"/", b"", b"/", b"", (1, 1))
    try:
        headers = read_headers(Connection(fields).readline)
        settle_host(headers, line)
        length = body_length(headers, line.version)
    except BadRequestError as error:
        assert error.status[:1] in "45"
        return
    assert length is None or 0 <= length < 2**63
    assert isinstance(keeps_alive(headers, line.version), bool)
    assert not any(b"\r" in value or b"\n" in value for value in headers.values())


@fuzzed
@given(CHUNKS, st.integers(0, 40))
def test_bodies(data: bytes, length: int) -> None:
    bodies: list[Body] = [
        ChunkedBody(Connection(data), nothing),
        LengthBody(Connection(data), length, nothing),
    ]
    for body in bodies:
        refused = refusal(body.input().read, RequestBodyError)
        assert body.is_at_end == (refused is None)
        assert not body.drain(1 << 20) or refused is None
