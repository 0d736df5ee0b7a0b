"""A line per request, and log lines that no client can forge."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from davfusion.reverse_proxy import FORWARDED_FOR

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger("davfusion.access")

LOGGED: Final = "davfusion.logged"
"""Of a WSGI environ: what was logged."""


class Logged(NamedTuple):
    """What the log says of an answer that may be given again; `client` "": who is connected."""

    client: str
    user: str
    request: str
    status: str

    def again(self, address: str) -> None:
        """Log it once more, for the client at `address`."""
        log_request(self.client or address, self.user, self.request, self.status, 0)


ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


def printable(text: str) -> str:
    """`text` with every character escaped that could move a terminal or start a new line."""
    return "".join(
        character if character.isprintable() and character != "\\" else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def log_request(address: str, user: str, request: str, status: str, seconds: float) -> None:
    """One line: address, user (`-` for none), method and path, status, time until the end."""
    quoted = request.replace('"', "'")
    logger.info('%s %s "%s" %s %.0fms', address or "-", user or "-", quoted, status, seconds * 1000)


class AccessLog:
    """WSGI middleware: logs each request when its answer has been sent.

    The path is logged without its query; headers, and so credentials, never are.
    """

    def __init__(
        self, application: "WSGIApplication", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._application = application
        self._clock = clock

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if not logger.isEnabledFor(logging.INFO):
            return self._application(environ, start_response)
        entry = _Entry(environ, self._clock)

        def started(
            status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            entry.status = status[:3]
            return start_response(status, headers, exc_info)

        try:
            return _LoggedAnswer(self._application(environ, started), entry)
        except BaseException:
            entry.write()
            raise


class _Entry:
    def __init__(self, environ: "WSGIEnvironment", clock: Callable[[], float]) -> None:
        self.status = "500"
        self._environ = environ
        self._clock = clock
        self._start = clock()
        # wsgidav takes the share's part out of PATH_INFO, hence now.
        raw_path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self._path = raw_path.encode("latin-1").decode("utf-8", "replace")

    def write(self) -> None:
        environ = self._environ
        request = f"{environ['REQUEST_METHOD']} {self._path}"
        user, client = environ.get("wsgidav.auth.user_name", ""), environ.get(FORWARDED_FOR, "")
        environ[LOGGED] = Logged(client, user, request, self.status)
        address = environ.get("REMOTE_ADDR", "")
        log_request(address, user, request, self.status, self._clock() - self._start)


class _LoggedAnswer:
    """The answer's pieces, unchanged; its entry is written on close."""

    def __init__(self, pieces: Iterable[bytes], entry: _Entry) -> None:
        self._pieces = pieces
        self._entry = entry

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        try:
            close: Any = getattr(self._pieces, "close", None)
            if close is not None:
                close()
        finally:
            self._entry.write()


class OneLineFormatter(logging.Formatter):
    """Escapes what a message may hold of a client's bytes; tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)


def configure_logging(level: str) -> None:
    """Send davfusion's messages of `level` and above, and others' warnings, to stderr.

    The SDKs' own debug messages show signed headers, so they stay off at every level.
    """
    output = logging.StreamHandler()
    output.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[output], force=True)
    logging.getLogger("davfusion").setLevel(level.upper())
