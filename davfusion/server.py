"""The life of a server's processes: workers that answer, and one that sends.

A pipe ties them to the supervisor: it alone holds its writing end, so they see its end when the
supervisor stops, and also when it is killed.
"""

import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from davfusion.access_log import configure_logging
from davfusion.config import HttpServerName
from davfusion.http_server import SHUTDOWN_SECONDS, HttpServer
from davfusion.platform import share_freed_memory, take_address

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = SHUTDOWN_SECONDS + 2.0
"""After this long a worker ends whatever it is doing."""

RETIRE: Final[signal.Signals | None] = getattr(signal, "SIGUSR1", None)
"""Tells a worker that others have taken its place; Windows has no such signal, and no reload."""

RELOAD: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)
"""Tells the supervisor that there is another configuration."""

FOR_SUPERVISOR: Final = tuple(number for number in (signal.SIGINT, RELOAD) if number is not None)


class ServerError(Exception):
    """The server cannot start; the text names the cause and the cure."""


def bind(host: str, port: int) -> socket.socket:
    """A socket with that address, dual-stack for `::`; raises ServerError.

    It listens once a worker can answer: who finds the port open does not have to wait.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ServerError(f"--host {host} is no address of this machine: {error}") from error
    try:
        _bind(listener, address)
    except OSError as error:
        listener.close()
        raise ServerError(cannot_listen(error, host, port)) from error
    return listener


def _bind(listener: socket.socket, address: tuple[object, ...]) -> None:
    take_address(listener)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those accepted inherit it
    listener.bind(address)


def cannot_listen(error: OSError, host: str, port: int) -> str:
    """What to tell the user."""
    if isinstance(error, PermissionError):
        return f"not permitted to listen on port {port}: choose one above 1023 with --port"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop that program, or choose another --port"
    return f"cannot listen on {host} port {port}: {error.strerror}; see --host and --port"


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of a server's certificate chain and of its key."""

    cert: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Raises ServerError."""
        for kind, path in (("certificate", self.cert), ("key", self.key)):
            try:
                path.open("rb").close()
            except OSError as error:
                text = f"cannot read the TLS {kind} {path}: {error.strerror}"
                raise ServerError(text) from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise ServerError(
                f"{self.cert} and {self.key} are no certificate and its unencrypted key in PEM: "
                f"{getattr(error, 'reason', None) or error}"
            ) from error
        return context


def _no_password() -> str:
    """Without it, OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs; can be pickled.

    `make_application` is called in the worker, so that what it opens belongs to that process.
    `send`, if there is one, is called in a process of its own, beside the workers, and returns
    when the event is set; one that equals that of an earlier spec goes on as it is.
    """

    listener: socket.socket
    make_application: "Callable[[], WSGIApplication]"
    tls: TlsFiles | None
    log_level: str
    http_server: HttpServerName = "cheroot"
    send: Callable[[threading.Event], None] | None = None
    workers: int = 2


class HttpService(Protocol):
    """What answers HTTP in a worker."""

    def prepare(self) -> None:
        """Have the socket listen: from now on, requests are answered."""

    def serve(self) -> None:
        """Return when stop() has been called and the requests under way are answered."""

    def stop(self) -> None:
        """Called by another thread: what is under way gets SHUTDOWN_SECONDS to finish."""

    def retire(self) -> None:
        """Called by another thread: take no more connections, and finish all that is under way.

        Returns when that is done, however long it takes.
        """


def make_http_server(spec: WorkerSpec) -> HttpService:
    """The server that `spec` names, with an application of its own; raises ServerError."""
    if spec.http_server == "cheroot":
        tls = spec.tls.context() if spec.tls else None
        return HttpServer(spec.listener, spec.make_application(), tls)
    from davfusion.http_granian import GranianServer  # noqa: PLC0415 - an extra

    files = (spec.tls.cert, spec.tls.key) if spec.tls else None
    return GranianServer(spec.listener, spec.make_application(), files)


def run_mover(
    spec: WorkerSpec, life: Connection, supervisors_end: Connection, _is_ready: Event
) -> None:
    """The life of the process that sends, as run_worker."""
    spec.listener.close()
    must_stop = _prepared(spec, life, supervisors_end)
    threading.Thread(target=_limit, args=[must_stop], daemon=True).start()
    if spec.send is not None:
        spec.send(must_stop)


def run_worker(
    spec: WorkerSpec, life: Connection, supervisors_end: Connection, is_ready: Event
) -> None:
    """A worker's whole life: serve until the supervisor stops or dies, or SIGTERM comes.

    After RETIRE it ends by itself.
    """
    must_stop, must_retire = _prepared(spec, life, supervisors_end), threading.Event()
    if RETIRE is not None:
        signal.signal(RETIRE, lambda _number, _frame: must_retire.set())
    server = make_http_server(spec)
    try:
        server.prepare()
    except OSError as error:  # another server took the address, too, and listened first
        sys.exit(cannot_listen(error, *spec.listener.getsockname()[:2]))
    is_ready.set()
    has_ended = threading.Event()
    for order, end in ((must_stop, server.stop), (must_retire, server.retire)):
        threading.Thread(target=_end, args=(order, end, has_ended), daemon=True).start()
    threading.Thread(target=_limit, args=[must_stop], daemon=True).start()
    server.serve()
    has_ended.wait()


def _end(order: threading.Event, end: Callable[[], None], has_ended: threading.Event) -> None:
    order.wait()
    end()
    has_ended.set()


def _prepared(spec: WorkerSpec, life: Connection, supervisors_end: Connection) -> threading.Event:
    """Make a new process ready; the event is set when it has to end."""
    for number in FOR_SUPERVISOR:  # a terminal sends them to all; the supervisor decides
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    supervisors_end.close()  # the copy that came over the fork would keep the pipe open
    configure_logging(spec.log_level)
    share_freed_memory()
    must_stop = threading.Event()
    threading.Thread(target=_wait_for_end, args=(life, must_stop), daemon=True).start()
    # Listings are many objects and no cycles: to look through them again and again is in vain.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    signal.signal(signal.SIGTERM, lambda _number, _frame: must_stop.set())
    return must_stop


def _wait_for_end(life: Connection, must_stop: threading.Event) -> None:
    with suppress(EOFError, OSError):
        life.recv_bytes()
    must_stop.set()


def _limit(must_stop: threading.Event) -> None:
    """Once the process has to end, end it however long what it is doing would take."""
    must_stop.wait()
    limit = threading.Timer(STOP_SECONDS, os._exit, [0])
    limit.daemon = True
    limit.start()
