"""A DAV request as values, and the answer to one."""

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote, unquote_to_bytes, urlsplit

from wsgidav.dav_error import DAVError

from davfusion.provider.xml import DECLARATION
from davfusion.stores import paths

if TYPE_CHECKING:
    from davfusion.provider.shares import Shares

Environ = dict[str, Any]
Depth = Literal["0", "1", "infinity"]
XML_TYPE = "application/xml; charset=utf-8"
MAX_XML_BYTES = 1 << 20
"""Bodies of PROPFIND, PROPPATCH and LOCK; real ones stay below 64 KiB."""
MAX_LEVELS = 256
"""Names in a path. Folders are walked by functions that call themselves; no client goes so deep."""
UNQUOTED = "/!*'()~"
"""Left as they are in an href, as encodeURIComponent of browsers and clients does."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNESCAPED = re.compile(r"[?#\x00-\x1f\x7f]")
_DEFAULT_PORT = re.compile(r":(80|443)$")


class _Quoted(dict[int, str]):
    """Character -> how it stands in an href; for str.translate, which is faster than quote."""

    def __missing__(self, code: int) -> str:
        quoted = quote(chr(code), safe=UNQUOTED)
        if len(self) < _MAX_QUOTED:
            self[code] = quoted
        return quoted


_MAX_QUOTED = 4096
_QUOTED = _Quoted()


class StartResponse(Protocol):
    def __call__(self, status: str, headers: list[tuple[str, str]], /) -> object: ...


@dataclass
class Response:
    """A status, headers and a body; `body` is bytes, or pieces that are sent as they come."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Iterable[bytes] = b""
    is_lasting: bool = True
    """Whether it will be the same as long as nothing changes."""

    @property
    def repeatable_size(self) -> int | None:
        """Bytes of the body, None where it cannot be sent again."""
        whole = self.body if isinstance(self.body, bytes | tuple) else None
        return len(whole) if whole is not None and self.is_lasting else None

    def without_body(self) -> "Response":
        """The answer to HEAD where this is the one to GET (RFC 9110 section 9.3.2)."""
        if not isinstance(self.body, bytes) or self.status in (204, 304):
            return Response(self.status, self.headers, ())
        return Response(self.status, [*self.headers, ("Content-Length", str(len(self.body)))], ())

    def send(self, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a WSGI request; the one place that writes responses."""
        headers = self.headers
        body = [self.body] if isinstance(self.body, bytes) else self.body
        # RFC 9110 section 8.6: no Content-Length in a 204, and none of our own in a 304.
        if isinstance(self.body, bytes) and self.status not in (204, 304):
            headers = [*headers, ("Content-Length", str(len(self.body)))]
        start_response(f"{self.status} {HTTPStatus(self.status).phrase}", headers)
        return body


def decode_path(raw: str) -> str:
    """A store path from the percent-encoded path of a URL, as it stands in a WSGI header.

    Repeated and trailing slashes mean nothing. Raises DAVError 400 for a bad escape, bytes that
    are not UTF-8, NUL, dot segments, encoded or not, and more than MAX_LEVELS.
    """
    if _BAD_ESCAPE.search(raw):
        raise DAVError(400, "Bad percent-encoding in a path.")
    try:
        return normal_path(unquote_to_bytes(raw.encode("latin-1")))
    except UnicodeEncodeError as error:
        raise DAVError(400, "The path is not one of WSGI's strings.") from error


def normal_path(decoded: bytes) -> str:
    """A store path from the bytes of a decoded URL path; DAVError 400 as in decode_path."""
    try:
        segments = [segment for segment in decoded.decode().split("/") if segment]
    except UnicodeDecodeError as error:
        raise DAVError(400, "The path is not UTF-8.") from error
    if any(segment in (".", "..") or "\0" in segment for segment in segments):
        raise DAVError(400, "The path holds a dot segment or NUL.")
    if len(segments) > MAX_LEVELS:
        raise DAVError(400, f"The path has more than {MAX_LEVELS} levels.")
    return "/" + "/".join(segments)


def read_body(environ: Environ, size: int) -> bytes:
    """At most `size` bytes of the request's body; DAVError 400 where it breaks off."""
    try:
        data: bytes = environ["wsgi.input"].read(size)
    except (OSError, ValueError) as error:
        raise DAVError(400, f"The request body broke off: {error}") from error
    return data


class DavRequest:
    """What a client asks for. `path` is a store path; the root of its URLs is `prefix`.

    `names_folder`: the URL ends with a slash, as that of a folder should.
    """

    shares: "Shares"
    """All that is served; set by whoever received the request."""
    may_write = True
    """Whether the user may change the share."""
    folder_etag: str | None = None
    """See DavTree.folder_etag: as it was before anything was looked at."""

    def __init__(self, environ: Environ) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.root: str = environ.get("SCRIPT_NAME", "").rstrip("/")
        """The root of all URLs of this server."""
        self.prefix: str = self.root
        self.path = normal_path(environ["PATH_INFO"].encode())
        self.names_folder: bool = environ["PATH_INFO"].endswith("/")
        self.user: str = environ.get("wsgidav.auth.user_name") or ""
        self._body: bytes | None = None

    def within(self, mount: str, path: str) -> "DavRequest":
        """The request as if it were for `path` of the share at `mount`."""
        request = copy.copy(self)
        request.prefix, request.path = self.root + mount, path
        return request

    def header(self, name: str) -> str | None:
        """The value of a request header, None if it was not sent."""
        key = name.upper().replace("-", "_")
        value: str | None = self.environ.get(
            key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key
        )
        return value

    def href(self, path: str, *, is_dir: bool = False) -> str:
        """The absolute-path reference of a store path; a folder's ends with a slash."""
        slash = "/" if is_dir and path != paths.ROOT else ""
        return (self.prefix + path + slash).translate(_QUOTED)

    def depth(self, default: Depth, *allowed: Depth) -> Depth:
        """The Depth header (RFC 4918 section 10.2); DAVError 400 for any other value."""
        value = (self.header("Depth") or default).strip().lower()
        for depth in allowed:
            if value == depth:
                return depth
        raise DAVError(400, f"Depth must be {' or '.join(allowed)}.")

    def check_whole(self, *, is_dir: bool) -> None:
        """A folder goes with all below it; of a file, any Depth says the same."""
        self.depth("infinity", "infinity", *(() if is_dir else ("0", "1")))

    @property
    def overwrite(self) -> bool:
        """The Overwrite header (RFC 4918 section 10.6)."""
        value = (self.header("Overwrite") or "T").strip().upper()
        if value not in ("T", "F"):
            raise DAVError(400, "Overwrite must be T or F.")
        return value == "T"

    @property
    def destination(self) -> str:
        """The path in the Destination header (RFC 4918 section 10.3), see resolve."""
        value = self.header("Destination")
        if not value:
            raise DAVError(400, "Destination is missing.")
        return self.resolve(value)

    def resolve(self, reference: str) -> str:
        """The path, in the tree of all shares, of a URL or absolute path that a header names.

        The scheme is not compared: behind a proxy that speaks TLS, clients send https for what
        arrives here as http. Raises DAVError 502 for another server's URL.
        """
        try:
            parts = urlsplit(reference.strip(" "))
        except ValueError as error:
            raise DAVError(400, "Not a URL.") from error
        if parts.scheme not in ("", "http", "https"):
            raise DAVError(400, "Not a URL of http or https.")
        if parts.netloc and not self._is_here(parts.netloc):
            raise DAVError(502, "The URL is on another server.")
        if not parts.path.startswith("/"):
            raise DAVError(400, "Neither a URL nor an absolute path.")
        if _UNESCAPED.search(reference):
            # Whoever did not escape them in a name would have another file replaced; of a tab,
            # urlsplit leaves nothing.
            raise DAVError(400, "A name's ?, # and control characters are to be escaped.")
        path = decode_path(parts.path)
        if path == self.root:
            return paths.ROOT
        if path.startswith(self.root + "/"):
            return path[len(self.root) :]
        raise DAVError(502, "The URL is outside of what this server serves.")

    def _is_here(self, netloc: str) -> bool:
        host = _DEFAULT_PORT.sub("", netloc.rpartition("@")[2].lower())
        # Each proxy of several may have added its own name, as Apache does.
        told = (self.header("X-Forwarded-Host") or "").split(",")
        ours = filter(None, (self.header("Host"), *told))
        return any(host == _DEFAULT_PORT.sub("", name.strip().lower()) for name in ours)

    def has_body(self) -> bool:
        """Whether a body was announced; reads nothing."""
        return self.environ.get("CONTENT_LENGTH") not in (None, "", "0") or bool(
            self.header("Transfer-Encoding")
        )

    def body(self) -> bytes:
        """The whole body, at most MAX_XML_BYTES of it; DAVError 413 for more."""
        if self._body is None:
            self._body = self._read_body() if self.has_body() else b""
        return self._body

    def _read_body(self) -> bytes:
        data = bytearray()
        while piece := read_body(self.environ, MAX_XML_BYTES + 1 - len(data)):
            data += piece
            if len(data) > MAX_XML_BYTES:
                raise DAVError(413, "The request body is too large.")
        return bytes(data)


def multistatus_body(statuses: Mapping[str, int]) -> bytes:
    """A 207 body with one status for each href (RFC 4918 section 13)."""
    responses = "".join(
        f"<D:response><D:href>{href}</D:href>"
        f"<D:status>HTTP/1.1 {status} {HTTPStatus(status).phrase}</D:status></D:response>"
        for href, status in statuses.items()
    )
    return (f'{DECLARATION}<D:multistatus xmlns:D="DAV:">{responses}</D:multistatus>').encode()
