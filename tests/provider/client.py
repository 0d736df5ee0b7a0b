"""A DAV client that calls the WSGI application directly."""

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from davfusion.app import PasswordCheck, make_app
from davfusion.provider.shares import Share, Shares
from davfusion.provider.state import State
from davfusion.provider.tree import DavTree
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import Store

D = "{DAV:}"


@dataclass
class Reply:
    """An answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def properties(self) -> dict[str, dict[str, tuple[int, Element]]]:
        """Of a 207: decoded path -> property name -> (status, element)."""
        assert self.status == 207, (self.status, self.body)
        found: dict[str, dict[str, tuple[int, Element]]] = {}
        for response in fromstring(self.body).iter(D + "response"):
            props = found.setdefault(unquote(response.findtext(D + "href") or ""), {})
            for stat in response.iter(D + "propstat"):
                status = int((stat.findtext(D + "status") or "").split()[1])
                props |= {prop.tag: (status, prop) for prop in stat.findall(D + "prop/*")}
        return found

    def statuses(self) -> dict[str, int]:
        """Of a 207 without properties: decoded path -> status."""
        return {
            unquote(r.findtext(D + "href") or ""): int((r.findtext(D + "status") or "").split()[1])
            for r in fromstring(self.body).iter(D + "response")
        }


class BrokenError(OSError):
    """The client's connection has gone."""


class CutBody(io.BytesIO):
    """A request body whose connection breaks after what there is of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise BrokenError
        return data


@dataclass
class DavClient:
    """Sends requests to a share over `store`, each checked for conformance to WSGI."""

    store: Store = field(default_factory=MemoryStore)
    state: State = field(default_factory=lambda: State(None))
    read_only: bool = False
    users: PasswordCheck | None = None
    prefix: str = ""
    shares: Shares | None = None
    """In place of the one over `store`."""
    user: str = ""
    """With the password `secret`."""

    def __post_init__(self) -> None:
        self.tree = DavTree(self.store, self.state, read_only=self.read_only)
        self.app = make_app(self.shares or Shares({"/": Share(self.tree)}), self.users)

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | io.BytesIO = b"",
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
    ) -> Reply:
        """`path` is decoded. Headers: Destination may be a store path."""
        return self._send(self.environ(method, path, headers or {}, body, chunked=chunked))

    def environ(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | io.BytesIO = b"",
        *,
        chunked: bool = False,
    ) -> dict[str, Any]:
        """The WSGI environ of a request."""
        environ = self._environ(method, path, dict(headers))
        if isinstance(body, bytes):
            if body and not chunked:
                environ["CONTENT_LENGTH"] = str(len(body))
            body = io.BytesIO(body)
        if chunked:
            environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        environ["wsgi.input"] = body
        return environ

    def _environ(self, method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": self.prefix,
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "localhost",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if headers.get("Destination", "").startswith("/"):
            headers["Destination"] = quote(self.prefix + headers["Destination"])
        if self.user:
            credentials = b64encode(f"{self.user}:secret".encode()).decode()
            headers = {"Authorization": f"Basic {credentials}", **headers}
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            plain = key in ("CONTENT_LENGTH", "CONTENT_TYPE")
            environ[key if plain else "HTTP_" + key] = value
        return environ

    def _send(self, environ: dict[str, Any]) -> Reply:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: object = None
        ) -> object:
            del exc_info
            started.append((status, headers))
            return lambda _data: None

        pieces: Iterable[bytes] = self.app(environ, start_response)
        try:
            body = b"".join(pieces)
        finally:
            close = getattr(pieces, "close", None)
            if close:
                close()
        status, headers = started[-1]
        return Reply(int(status[:3]), {k.lower(): v for k, v in headers}, body)

    def put(self, path: str, body: bytes = b"", **headers: str) -> Reply:
        return self("PUT", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def get(self, path: str, **headers: str) -> Reply:
        return self("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def mkcol(self, *folders: str) -> None:
        for path in folders:
            assert self("MKCOL", path).status == 201

    def etag(self, path: str) -> str:
        return self("HEAD", path).headers["etag"]

    def propfind(self, path: str, *names: str, depth: str = "0") -> Reply:
        """Ask for DAV: properties, or for all."""
        inner = "".join(f"<D:{name}/>" for name in names)
        body = f'<D:propfind xmlns:D="DAV:"><D:prop>{inner}</D:prop></D:propfind>'
        return self("PROPFIND", path, body.encode() if names else b"", {"Depth": depth})

    def proppatch(self, path: str, inner: str, **headers: str) -> Reply:
        body = (
            '<D:propertyupdate xmlns:D="DAV:" xmlns:X="urn:x:">'
            f"<D:set><D:prop>{inner}</D:prop></D:set></D:propertyupdate>"
        )
        return self("PROPPATCH", path, body.encode(), headers)

    def lock(self, path: str, scope: str = "exclusive", **headers: str) -> Reply:
        body = (
            f'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:{scope}/></D:lockscope>'
            "<D:locktype><D:write/></D:locktype><D:owner><D:href>me</D:href></D:owner>"
            "</D:lockinfo>"
        )
        return self("LOCK", path, body.encode(), headers)

    def token(self, path: str, **headers: str) -> str:
        """The coded URL of a new exclusive lock."""
        reply = self.lock(path, **headers)
        assert reply.status in (200, 201), reply
        return reply.headers["lock-token"]
