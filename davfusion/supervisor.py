"""The supervisor: holds the port, starts processes and replaces those that die or are outdated."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, Final

from davfusion.platform import START_METHOD
from davfusion.server import RELOAD, RETIRE, ServerError, WorkerSpec, run_mover, run_worker

logger = logging.getLogger(__name__)

_READY_SECONDS: Final = 0.02
_STEADY_SECONDS: Final = 10.0
_MAX_PAUSE: Final = 30.0


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
