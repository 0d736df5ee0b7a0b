"""What a request's first lines say (RFC 9112), checked strictly: pure functions over bytes."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

MAX_HEADERS: Final = 200
"""Header lines in one request."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!\x22$-~\x80-\xff]+) HTTP/([0-9])\.([0-9])\r\n")
_ABSOLUTE_FORM = re.compile(rb"(https?)://([^/?]+)([^?]*)(?:\?(.*))?", re.IGNORECASE)
_HEADER_LINE = re.compile(rb"(" + _TOKEN + rb"):[ \t]*(.*?)[ \t]*\r\n", re.DOTALL)
_BAD_VALUE = re.compile(rb"[\0\r\n]")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[A-Za-z0-9._~!$&'()*+,;=%\x80-\xff-]*)(?::[0-9]*)?")
_LENGTH = re.compile(rb"[0-9]{1,19}")

_ONCE = frozenset([b"Authorization", b"Content-Type", b"Destination", b"Depth"])
"""Fields whose repetition has no meaning: two values that differ are an attack or a defect."""

Headers = dict[bytes, bytes]


class BadRequestError(Exception):
    """The request is answered with this status, and its connection is closed."""

    def __init__(self, text: str, status: str = "400 Bad Request") -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class RequestLine:
    """The first line of a request; `path` is decoded, and is UTF-8 without NUL."""

    method: bytes
    target: bytes
    authority: bytes
    path: bytes
    query: bytes
    version: tuple[int, int]


def parse_request_line(line: bytes) -> RequestLine:
    """Raises BadRequestError; the absolute form is taken as a proxy would send it on."""
    match = _REQUEST_LINE.fullmatch(line)
    if not match:
        raise BadRequestError("malformed request line")
    method, target = match[1], match[2]
    version = int(match[3]), int(match[4])
    if version[0] != 1:
        raise BadRequestError("this server speaks HTTP/1.1", "505 HTTP Version Not Supported")
    authority, path, query = _split_target(target)
    return RequestLine(method, target, authority, _decode(path), query, min(version, (1, 1)))


def _split_target(target: bytes) -> tuple[bytes, bytes, bytes]:
    """(authority, path, query) of the origin, absolute or asterisk form (RFC 9112 section 3.2)."""
    if _BAD_ESCAPE.search(target):
        raise BadRequestError("malformed percent escape in the request target")
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return b"", path, query
    if target == b"*":
        return b"", target, b""
    if match := _ABSOLUTE_FORM.fullmatch(target):
        return match[2], match[3] or b"/", match[4] or b""
    raise BadRequestError("the request target is neither a path nor an http URL")


def _decode(path: bytes) -> bytes:
    decoded = unquote_to_bytes(path)
    try:
        decoded.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError("the path is not UTF-8") from error
    if b"\0" in decoded:
        raise BadRequestError("NUL in the path")
    return decoded


def read_headers(readline: Callable[[], bytes]) -> Headers:
    """Name (`Title-Case`) -> value, up to the empty line; repeated fields are joined by commas.

    Names with an underscore are dropped: in CGI's spelling they would pass for the real ones.
    Raises BadRequestError.
    """
    headers: Headers = {}
    for _ in range(MAX_HEADERS + 1):
        line = readline()
        if line == b"\r\n":
            return headers
        match = _HEADER_LINE.fullmatch(line)
        if not match or _BAD_VALUE.search(match[2]):
            raise BadRequestError("malformed header line")
        name = match[1].title()
        if b"_" not in name:
            headers[name] = _joined(name, headers.get(name), match[2])
    raise BadRequestError("too many headers", "431 Request Header Fields Too Large")


def _joined(name: bytes, former: bytes | None, value: bytes) -> bytes:
    if former is None:
        return value
    if name == b"Host":
        raise BadRequestError("two Host headers")
    if name not in _ONCE:
        return former + b", " + value
    if former != value:
        raise BadRequestError(f"two different {name.decode()} headers")
    return value


def settle_host(headers: Headers, line: RequestLine) -> None:
    """Make `Host` what the request is for (RFC 9112 section 3.2); raises BadRequestError."""
    if line.version >= (1, 1) and b"Host" not in headers:
        raise BadRequestError("no Host header")
    if line.authority:
        headers[b"Host"] = line.authority.rpartition(b"@")[2]
    if not is_host(headers.get(b"Host", b"")):
        raise BadRequestError("malformed Host header")


def is_host(value: bytes) -> bool:
    """Whether it can be the value of `Host` (RFC 9110 section 7.2); it may be empty."""
    return _HOST.fullmatch(value) is not None


def body_length(headers: Headers, version: tuple[int, int]) -> int | None:
    """The body's length, None if it comes in chunks; RFC 9112 section 6.3.

    Whatever two servers in a row could read differently is refused. Of several Content-Lengths
    that agree, `headers` keeps one. Raises BadRequestError.
    """
    lengths = headers.get(b"Content-Length")
    encoding = headers.get(b"Transfer-Encoding")
    if encoding is None:
        if lengths is None:
            return 0
        length = _only_length(lengths.split(b","))
        headers[b"Content-Length"] = b"%d" % length
        return length
    if lengths is not None:
        raise BadRequestError("both Content-Length and Transfer-Encoding")
    if version < (1, 1):
        raise BadRequestError("Transfer-Encoding in HTTP/1.0")
    if encoding.lower() != b"chunked":
        raise BadRequestError("only chunked is known", "501 Not Implemented")
    return None


def _only_length(values: Iterable[bytes]) -> int:
    lengths = {value.strip() for value in values}
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length) or int(length) >= 2**63:
        raise BadRequestError("malformed Content-Length")
    return int(length)


def keeps_alive(headers: Headers, version: tuple[int, int]) -> bool:
    """Whether the client wants to use the connection again (RFC 9112 section 9.3)."""
    options = {option.strip().lower() for option in headers.get(b"Connection", b"").split(b",")}
    return b"close" not in options and (version >= (1, 1) or b"keep-alive" in options)
