"""Servers as processes: starting one, stopping it, and what it takes of the machine."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
_STOP_SECONDS: Final = 20
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class WrongError(Exception):
    """A server answered or stored something that it should not have, or did nothing at all."""


@dataclass(frozen=True)
class Usage:
    """What all processes of a server take together."""

    cpu: float
    """Seconds, since their start."""
    memory: float
    """MiB of resident pages; those that processes share count once for each."""


def free_port(*offsets: int) -> int:
    """A port that nobody listens on, nor on those that lie `offsets` above it."""
    while True:
        with socket.socket() as one:
            one.bind((HOST, 0))
            port: int = one.getsockname()[1]
        if all(port + offset < 65536 and not is_open(port + offset) for offset in offsets):
            return port


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def wait_until(
    is_so: Callable[[], bool], what: str, *, limit: float = 120, step: float = 0.02
) -> None:
    """Ask every `step` seconds; WrongError after `limit` seconds."""
    end = time.monotonic() + limit
    while not is_so():
        if time.monotonic() > end:
            raise WrongError(f"{what}: not within {limit:g} s")
        time.sleep(step)


@contextmanager
def running(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is ended with the block."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env, process_group=0)
    try:
        yield process
    finally:
        _end(process)


def require_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    """Raises WrongError with the end of its log if it has ended."""
    if process.poll() is not None:
        raise WrongError(f"the server has ended: {log.read_text(errors='replace')[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole group, SIGKILL to what of it stays."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def usage(group: int) -> Usage:
    """Of the living processes of a group; see proc(5)."""
    ticks = pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
                pages += int(fields[21])
    return Usage(ticks / _TICKS, pages * _PAGE / (1 << 20))
