"""A request as granian hands it on, made sound: what it has let through is refused here.

granian 2.8 ends a body that was cut off or is malformed as if it were whole. So only bodies whose
length is announced are taken, and counted.
"""

from typing import TYPE_CHECKING, Final

from davfusion.http_body import Body, LengthBody, RequestBodyError, Source
from davfusion.http_requests import is_host

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_MEANINGFUL: Final = tuple(
    "HTTP_" + name.upper().replace("-", "_")
    for name in (
        *("Authorization", "Content-MD5", "Content-Digest", "Depth", "Destination", "Digest", "If"),
        *("If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since"),
        *("Lock-Token", "OC-Checksum", "Overwrite", "Range", "Repr-Digest", "X-OC-Mtime"),
    )
)
"""Without its value, the request would be another. granian gives "" for what is not ASCII."""


_TOO_LONG: Final = "the body is longer than X-Expected-Entity-Length says"


class RefusedError(Exception):
    """The request is answered with this status, and never reaches the application."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _ChunkedBody(LengthBody):
    """A body in chunks, of which another header says how long it is."""

    def _fill(self, view: memoryview) -> int:
        count = super()._fill(view)
        if self._left == 0 and self._source.readinto(memoryview(bytearray(1))):
            raise RequestBodyError(_TOO_LONG)
        return count


def check(environ: "WSGIEnvironment") -> None:
    """Raises RefusedError for what granian has let through but should not have."""
    host = environ["HTTP_HOST"]
    if "," in host or not is_host(host.encode()):
        raise RefusedError(400, "malformed Host header")
    if not host and environ["SERVER_PROTOCOL"] == "HTTP/1.1":
        raise RefusedError(400, "no Host header")
    if any(environ.get(name) == "" for name in _MEANINGFUL):
        raise RefusedError(400, "a header is empty, or its value is not ASCII")


def announced_body(environ: "WSGIEnvironment", source: Source) -> Body | None:
    """Of exactly the announced length; None: no body. Raises RefusedError where none is announced.

    CONTENT_LENGTH becomes what was announced.
    """
    if encoding := environ.pop("HTTP_TRANSFER_ENCODING", None):
        if encoding.lower() != "chunked":
            raise RefusedError(501, "only chunked is known")
        return _chunked_body(environ, source)
    length = int(environ.get("CONTENT_LENGTH", 0))
    return LengthBody(source, length, _nothing) if length else None


def _chunked_body(environ: "WSGIEnvironment", source: Source) -> Body | None:
    """Finder says in another header how much will come in chunks."""
    value = environ.get("HTTP_X_EXPECTED_ENTITY_LENGTH", "")
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise RefusedError(411, "this server takes no body without Content-Length")
    environ["CONTENT_LENGTH"] = value
    if int(value):
        return _ChunkedBody(source, int(value), _nothing)
    if source.readinto(memoryview(bytearray(1))):
        raise RefusedError(400, _TOO_LONG)
    return None


def _nothing() -> None:
    """granian sends `100 Continue` itself, when the body is asked for."""
