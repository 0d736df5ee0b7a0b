"""The processes of one server: a supervisor that holds the port, and workers that answer.

A pipe ties them together: only the supervisor holds its writing end, so the workers see its end
when the supervisor stops, and also when it is killed.
"""

import errno
import gc
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Protocol

from davfusion.access_log import configure_logging
from davfusion.config import HttpServerName
from davfusion.http_server import SHUTDOWN_SECONDS, HttpServer
from davfusion.platform import START_METHOD, share_freed_memory, take_address

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

_READY_SECONDS: Final = 0.02
_STEADY_SECONDS: Final = 10.0
_MAX_PAUSE: Final = 30.0


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
        raise ServerError(_cannot_listen(error, host, port)) from error
    return listener


def _bind(listener: socket.socket, address: tuple[object, ...]) -> None:
    take_address(listener)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # those accepted inherit it
    listener.bind(address)


def _cannot_listen(error: OSError, host: str, port: int) -> str:
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
        for path in (self.cert, self.key):
            try:
                path.open("rb").close()
            except OSError as error:
                raise ServerError(f"cannot read {path}: {error.strerror}") from error
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
        sys.exit(_cannot_listen(error, *spec.listener.getsockname()[:2]))
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


class Restarts:
    """When to start a worker again: at once, but later and later if it keeps dying young."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = 0.0
        self._due: list[float] = []

    def died(self, started: float) -> float:
        """Note a worker's death; returns the pause in seconds."""
        young = self._clock() - started < _STEADY_SECONDS
        self._pause = min(max(2 * self._pause, 0.5), _MAX_PAUSE) if young else 0.0
        self._due.append(self._clock() + self._pause)
        return self._pause

    def take_due(self) -> int:
        """How many workers are to be started now."""
        now = self._clock()
        due = [moment for moment in self._due if moment <= now]
        self._due = [moment for moment in self._due if moment > now]
        return len(due)

    def next_due(self) -> float | None:
        """Seconds until take_due has something; None: nothing is awaited."""
        return max(0.0, min(self._due) - self._clock()) if self._due else None


Life = Callable[[WorkerSpec, Connection, Connection, Event], None]
Reload = Callable[[], WorkerSpec | None]
"""The spec of a new configuration; None where there is none that can be used."""


@dataclass(frozen=True, eq=False)
class Role:
    """What a process does, and when one that died is replaced."""

    name: str
    life: Life
    spec: WorkerSpec
    is_ready: Event
    restarts: Restarts


class Supervisor:
    """Keeps the processes of `spec` running until SIGINT or SIGTERM.

    With `reload`, SIGHUP has it called. New workers take the place of the old ones, which finish
    what is under way; if they cannot start, the old ones go on.

    It stays free of threads, since it forks again whenever a process dies.
    """

    def __init__(self, spec: WorkerSpec, reload: Reload | None = None) -> None:
        self._listener = spec.listener
        self._reload = reload
        self._context: BaseContext = multiprocessing.get_context(START_METHOD)
        self._life, self._end = self._context.Pipe(duplex=False)
        self._call, self._caller = self._context.Pipe(duplex=False)
        self._running: dict[BaseProcess, tuple[Role, float]] = {}
        self._worker = self._role("worker", run_worker, spec)
        self._mover = self._role("mover", run_mover, spec)
        self._has_failed = False
        """Whether a process of a role has died before the first of it was ready."""
        self._must_reload = False
        self._is_stopping = False

    def run(self, announce: Callable[[], None] = lambda: None) -> None:
        """Returns when all processes have ended; calls `announce` once requests are answered."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_stop)
        if self._reload and RELOAD is not None:
            signal.signal(RELOAD, self._on_reload)
        self._start_all(self._worker)
        self._start_all(self._mover)
        if not self._is_answering(self._worker):
            self._stop()
            raise ServerError("a process could not start; its error stands above")
        if not self._is_stopping:
            announce()
        while self._running or not self._is_stopping:
            if self._must_reload and not self._is_stopping:
                self._change()
            self._watch(self._next_due())

    def leave(self) -> None:
        """Give up what is the supervisor's own, in a process that was forked for something else.

        That would otherwise keep the port, and the workers from seeing that the supervisor ends.
        """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._listener.close()
        for each in (self._life, self._end, self._call, self._caller):
            each.close()

    def _role(self, name: str, life: Life, spec: WorkerSpec) -> Role:
        return Role(name, life, spec, self._context.Event(), Restarts())

    def _start_all(self, role: Role) -> None:
        number = role.spec.workers if role.life is run_worker else int(bool(role.spec.send))
        for _ in range(number):
            self._start(role)

    def _start(self, role: Role) -> None:
        process = self._context.Process(  # type: ignore[attr-defined]
            target=role.life, args=(role.spec, self._life, self._end, role.is_ready)
        )
        process.start()
        self._running[process] = role, time.monotonic()
        logger.debug("%s %d started", role.name, process.pid)

    def _is_answering(self, worker: Role) -> bool:
        """Wait until one of the workers answers; False if one has died before."""
        self._has_failed = False
        while not (worker.is_ready.is_set() or self._has_failed or self._is_stopping):
            self._watch(_READY_SECONDS, worker)
        return not self._has_failed

    def _change(self) -> None:
        """To what is configured now."""
        self._must_reload = False
        while self._call.poll():
            self._call.recv_bytes()
        spec = self._reload() if self._reload else None
        if spec is None or self._is_stopping:
            return
        worker = self._role("worker", run_worker, spec)
        self._start_all(worker)
        if not self._is_answering(worker):
            logger.error("not reloaded: a new worker could not start; its error stands above")
            self._end_all(worker, signal.SIGTERM)
            return
        old, self._worker = self._worker, worker
        self._end_all(old, RETIRE)
        if spec.send != self._mover.spec.send:
            self._end_all(self._mover, signal.SIGTERM)
            self._mover = self._role("mover", run_mover, spec)
            self._start_all(self._mover)
        logger.info("reloaded")

    def _end_all(self, role: Role, number: signal.Signals | None) -> None:
        for process, (its_role, _) in self._running.items():
            if its_role is role and process.pid and number is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def _watch(self, seconds: float | None, starting: Role | None = None) -> None:
        awaited: list[Any] = [process.sentinel for process in self._running]
        if not self._is_stopping:
            awaited += [self._life, self._call]  # they show at once that a signal has come
        wait(awaited, seconds)
        for process in [process for process in self._running if not process.is_alive()]:
            role, started = self._running.pop(process)
            if role is starting:
                self._has_failed = True
            elif role in (self._worker, self._mover) and not self._is_stopping:
                self._note_death(process, role, started)
        if not self._is_stopping:
            for role in (self._worker, self._mover):
                for _ in range(role.restarts.take_due()):
                    self._start(role)

    def _next_due(self) -> float | None:
        due = [role.restarts.next_due() for role in (self._worker, self._mover)]
        return min((moment for moment in due if moment is not None), default=None)

    def _note_death(self, process: BaseProcess, role: Role, started: float) -> None:
        pause = role.restarts.died(started)
        code = process.exitcode
        logger.error(
            "%s %d ended with %s; the next starts in %gs", role.name, process.pid, code, pause
        )

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        """First: stop taking requests and finish those under way. Again: end at once."""
        if self._is_stopping:
            for process in self._running:
                process.kill()
            return
        self._stop()

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        if not self._must_reload:
            self._must_reload = True
            self._caller.send_bytes(b"!")

    def _stop(self) -> None:
        self._is_stopping = True
        self._listener.close()
        self._end.close()
