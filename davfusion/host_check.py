"""A server that nothing but its address protects answers to the names of its own machine only.

Otherwise any web page could give its own name the address 127.0.0.1 after it was loaded, and read
and delete through the browser of whoever looks at it (DNS rebinding).
"""

import ipaddress
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

MAX_LOGGED: Final = 100
"""Names that are logged; whoever sends others could otherwise fill the log and the memory."""


class HostCheck:
    """WSGI middleware: answers 421 to a request for the name of another machine.

    `host` is the address or name that the server listens on.
    """

    def __init__(self, application: "WSGIApplication", host: str) -> None:
        self._application = application
        self._host = host.lower()
        self._logged: set[str] = set()

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        name = host_name(environ.get("HTTP_HOST", ""))
        if not name or name == self._host or is_own_name(name):
            return self._application(environ, start_response)
        text = (
            f"without users this server answers to names of its own machine only, not to {name}: "
            "give it users (--user or --htpasswd), or say --anonymous if it stands behind a "
            "reverse proxy that keeps the Host header"
        )
        self._log(name, text)
        body = text.encode() + b"\n"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
        ]
        start_response("421 Misdirected Request", headers)
        return [body]

    def _log(self, name: str, text: str) -> None:
        if name not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(name)
            logger.warning("%s", text)


def host_name(host: str) -> str:
    """The name or address of a Host header in lower case, without port, brackets and last dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].rstrip(".").lower()


def is_own_name(name: str) -> bool:
    """Whether `name` means this machine on every machine (RFC 6761 section 6.3)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
