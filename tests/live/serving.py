"""`davfusion serve` as a user runs it: processes of their own, on a free loopback port."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 20


@dataclass(frozen=True)
class Serving:
    """A running server."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    cache: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def pids(self) -> list[int]:
        """The supervisor and all its children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [self.process.pid, *map(int, children.read_text().split())]

    def peak_memory(self) -> int:
        """Bytes that the largest of the processes has had in memory."""
        return max(map(_peak, self.pids()))

    def kill(self) -> None:
        """kill -9 for all of it."""
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


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
    port, log, cache = free_port(), folder / "log", folder / "cache"
    command = [sys.executable, *program, "serve", target, "--port", str(port)]
    command += ["--workers", "2", "--cache-dir", str(cache), *options]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **(env or {})}
        )
    server = Serving(port, process, log, cache)
    try:
        give_up = time.monotonic() + START_SECONDS
        while not is_open(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.02)
        yield server
    finally:
        stopped = process.poll() is not None
        process.terminate()
        code = process.wait(20)
    assert stopped or code == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


def program(name: str) -> str:
    """The path of a client program; without it the test is left out, in CI it fails."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        missing = f"{name} is not installed: run tests/install-clients"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def run(*command: str, cwd: Path | None = None, stdin: str = "") -> str:
    """What a client prints; it must succeed."""
    done = subprocess.run(
        command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
