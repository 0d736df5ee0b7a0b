"""`davfusion serve` as a user runs it: processes of their own, on a free loopback port."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

START_SECONDS = 20
STOP_SECONDS = 20
MOVERS_LOCK = "mover.lock"


@dataclass
class Serving:
    """A server, which can be killed and started again on the same port and cache."""

    command: Sequence[str]
    env: Mapping[str, str]
    port: int
    log: Path
    cache: Path
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def launch(self) -> None:
        """Start the processes, in a group of their own, and wait for nothing."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, stdout=out, stderr=out, env=self.env, process_group=0
            )

    def start(self) -> None:
        """Return when it takes connections."""
        self.launch()
        give_up = time.monotonic() + START_SECONDS
        while not is_open(self.port):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < give_up, self.log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Have it end by itself, unless it has been killed; that must be with exit code 0."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                code = self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            assert code == 0, self.log.read_text()

    def kill(self) -> None:
        """kill -9 for all of it at once; returns when none of it is left."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while _is_running(self.process.pid):
            time.sleep(0.005)

    def pids(self) -> list[int]:
        """The supervisor and all its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def workers(self) -> list[int]:
        """The processes that answer requests."""
        return [pid for pid in self.pids()[1:] if not _has_open(pid, MOVERS_LOCK)]

    def movers(self) -> list[int]:
        """The process that sends; none while a new one starts."""
        return [pid for pid in self.pids()[1:] if _has_open(pid, MOVERS_LOCK)]

    def peak_memory(self) -> int:
        """Bytes that the largest of the processes has had in memory."""
        return max(map(_peak, self.pids()))


def _is_running(group: int) -> bool:
    """Whether a thread of the group's processes is left; until then, their files stay open."""
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def _has_open(pid: int, name: str) -> bool:
    with suppress(OSError):  # it has just ended
        return any(fd.readlink().name == name for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError(pid)


def free_port() -> int:
    """A port where nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(
    target: str,
    folder: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    program: Sequence[str] = ("-m", "davfusion"),
) -> Iterator[Serving]:
    """Serve `target` with two workers until the block ends; log and cache lie in `folder`.

    It must then end by itself, with exit code 0 and no traceback in its log.
    """
    port, cache = free_port(), folder / "cache"
    command = [sys.executable, *program, "serve", target, "--port", str(port)]
    command += ["--workers", "2", "--cache-dir", str(cache), *options]
    server = Serving(command, {**os.environ, **(env or {})}, port, folder / "log", cache)
    with started(server):
        yield server


@contextmanager
def started(server: Serving) -> Iterator[None]:
    """See serving."""
    try:
        server.start()
        yield
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def installed(name: str) -> str | None:
    """The path of a program, of the system or beside this Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def program(name: str) -> str:
    """The path of a client program; without it the test is left out, in CI it fails."""
    found = installed(name)
    if found is None:
        missing = f"{name} is not installed: run tests/install-clients"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def large_program(name: str) -> str:
    """As program(), but without it the test is left out in CI, too."""
    found = installed(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str, cwd: Path | None = None, stdin: str = "") -> str:
    """What a client prints; it must succeed."""
    done = subprocess.run(
        command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
