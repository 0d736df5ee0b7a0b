"""Behind a reverse proxy: who asks, and what the URLs look like to them."""

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from davfusion.config import Network

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

FORWARDED_FOR: Final = "davfusion.forwarded_for"
"""Of a WSGI environ: the address of the client, where a proxy that is trusted has told it."""
_TOLD: Final = tuple(f"HTTP_X_FORWARDED_{name}" for name in ("FOR", "PROTO", "HOST", "PREFIX"))
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?")


class ReverseProxy:
    """WSGI middleware: the application sees a request as the client has sent it.

    Of a proxy whose address lies in one of the networks `trusted`, X-Forwarded-For, -Proto, -Host
    and -Prefix (what it has taken from the path's beginning) count; nobody else's do.
    """

    def __init__(self, application: "WSGIApplication", trusted: Iterable[Network]) -> None:
        self._application = application
        self._trusted = tuple(trusted)

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if told := [name for name in _TOLD if name in environ]:
            if self._trusts(environ.get("REMOTE_ADDR", "")):
                self._believe(environ)
            else:
                for name in told:
                    del environ[name]
        return self._application(environ, start_response)

    def _trusts(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in self._trusted)

    def _believe(self, environ: "WSGIEnvironment") -> None:
        # Each proxy adds the address that it was asked from: the last one that nobody vouches for.
        told = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
        stranger = next((a.strip() for a in reversed(told) if not self._trusts(a.strip())), "")
        if _address(stranger):
            environ["REMOTE_ADDR"] = environ[FORWARDED_FOR] = stranger
        if (scheme := environ.get("HTTP_X_FORWARDED_PROTO", "").lower()) in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme
        prefix = environ.get("HTTP_X_FORWARDED_PREFIX", "")
        if _PREFIX.fullmatch(prefix):
            environ["SCRIPT_NAME"] = prefix.rstrip("/")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for what is no address; one of IPv4 also where IPv6 stands for it."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found
