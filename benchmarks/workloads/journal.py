"""The store is away and many changes wait for it: start, `davfusion status`, and further writes."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.client import Client
from benchmarks.processes import HOST, WrongError
from benchmarks.serving import environment, serving
from benchmarks.site import Figures, Site, Turn, scaled
from benchmarks.workloads.put_parallel import write_files

_AWAY: Final = f"http://{HOST}:1"
"""No store answers there: the port is kept for a service that nobody runs (RFC 1078)."""
_FILES: Final = 200
_CLIENTS: Final = 16
_CONTENT: Final = b"x" * 64
_STATUS: Final = [sys.executable, "-m", "davfusion", "status", "--json", "--cache-dir"]


def prepare(turn: Turn, paths: int) -> Turn:
    """Have that many files written while the store is away; they still wait at the next turn."""
    away = replace(turn, endpoint=_AWAY, cache=turn.kept)
    count = scaled(paths, turn.scale)
    if not any(turn.kept.iterdir()):
        with serving(away) as site:
            with site.client() as client:
                client.send("MKCOL", "/waiting/", (201,))
                client.send("MKCOL", "/more/", (201,))
            write_files(site, "/waiting", count, _CLIENTS, _CONTENT)
    return away


def run(site: Site, paths: int) -> Figures:
    with site.client() as client:
        seconds = [_put(client, i) for i in range(_FILES)]
    start = time.perf_counter()
    pending = _pending(site.turn.cache)
    status = time.perf_counter() - start
    if pending != site.count(paths) + _FILES + 2:
        raise WrongError(f"status counts {pending} of {site.count(paths)} + {_FILES} + 2 paths")
    return {
        "start s": site.started,
        "put ms": statistics.median(seconds) * 1e3,
        "status s": status,
    }


def _put(client: Client, i: int) -> float:
    start = time.perf_counter()
    client.put(f"/more/f{i}", _CONTENT)
    return time.perf_counter() - start


def _pending(cache: Path) -> int:
    """As `davfusion status` counts them; it exits with 1 where something failed for good."""
    shown = subprocess.run(
        [*_STATUS, str(cache)], check=False, capture_output=True, env=environment(None)
    )
    if shown.returncode:
        raise WrongError(f"davfusion status: {shown.stderr.decode(errors='replace')}")
    pending = json.loads(shown.stdout)["caches"][0]["pending"]
    return int(pending["files"]) + int(pending["directories"])
