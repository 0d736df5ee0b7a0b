"""Cross-origin requests of web pages and of apps made of them (https://fetch.spec.whatwg.org/#cors).

Pages of the origins that may come send the name and password of their user themselves: what a
browser remembers of credentials is never used for them (no Access-Control-Allow-Credentials).
"""

import re
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ANY: Final = "*"
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
_SHOWN: Final = (
    "Accept-Ranges, Allow, Content-Length, Content-Location, Content-Range, DAV, ETag, "
    "Last-Modified, Lock-Token, OC-Checksum, Retry-After, WWW-Authenticate, X-OC-Mtime"
)
_NAMES: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+(?:\s*,\s*[\w!#$%&'*+.^`|~-]+)*", re.ASCII)
_METHOD_ASKED: Final = "HTTP_ACCESS_CONTROL_REQUEST_METHOD"
_SECONDS: Final = "86400"
"""How long a browser may keep the answer to a preflight."""


class Cors:
    """WSGI middleware: lets pages of `origins` (ANY among them: of all) read answers.

    A browser asks beforehand, without credentials, so that is answered here.
    """

    def __init__(self, application: "WSGIApplication", origins: Iterable[str]) -> None:
        self._application = application
        self._origins = frozenset(origins)

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not ({origin, ANY} & self._origins):
            return self._application(environ, start_response)
        if ANY in self._origins:
            allowed = [("Access-Control-Allow-Origin", ANY)]
        else:
            allowed = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if environ["REQUEST_METHOD"] == "OPTIONS" and _METHOD_ASKED in environ:
            start_response("204 No Content", allowed + _preflight(environ))
            return []

        def started(
            status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            shown = ("Access-Control-Expose-Headers", _SHOWN)
            return start_response(status, [*headers, *allowed, shown], exc_info)

        return self._application(environ, started)


def _preflight(environ: "WSGIEnvironment") -> list[tuple[str, str]]:
    """Whatever is asked for may be tried; what comes of it is for the application to say."""
    asked = {
        "Access-Control-Allow-Methods": environ[_METHOD_ASKED],
        "Access-Control-Allow-Headers": environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", ""),
    }
    answer = [(name, value) for name, value in asked.items() if _NAMES.fullmatch(value)]
    return [*answer, ("Access-Control-Max-Age", _SECONDS)]
