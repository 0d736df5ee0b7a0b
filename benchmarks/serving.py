"""Starting a contender's server, and the far link before its store."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.far_link import MB_PER_S, ROUND_TRIP_MS
from benchmarks.processes import HOST, free_port, is_open, require_alive, running, wait_until
from benchmarks.seaweedfs import KEY, REGION, SECRET
from benchmarks.site import Site, Turn

_REPOSITORY: Final = Path(__file__).parent.parent
_SOON: Final = 0.005
_LIMIT: Final = 60.0


def environment(endpoint: str | None) -> dict[str, str]:
    """Of a server, which finds this davfusion wherever it is started."""
    given = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
        "PYTHONPATH": str(_REPOSITORY),
    }
    return os.environ | given | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})


@contextmanager
def distant(turn: Turn) -> Iterator[str]:
    """The endpoint of the turn's store as it is seen over the far link."""
    port, target = free_port(), str(turn.endpoint).rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.far_link", str(port), target]
    figures = [str(ROUND_TRIP_MS), str(MB_PER_S)]
    with running([*command, *figures], turn.log, environment(None)) as process:
        wait_until(lambda: is_open(port), "start of the far link", limit=_LIMIT)
        require_alive(process, turn.log)
        yield f"http://{HOST}:{port}"


@contextmanager
def serving(turn: Turn) -> Iterator[Site]:
    """The contender's server, which has answered once."""
    port = free_port()
    given = {"port": port, "target": turn.target, "endpoint": turn.endpoint, "cache": turn.cache}
    start = time.perf_counter()
    command = turn.contender.filled_in(given)
    with running(command, turn.log, environment(turn.endpoint)) as process:
        wait_until(
            lambda: _answers(port, process, turn.log), "first answer", limit=_LIMIT, step=_SOON
        )
        yield Site(turn, port, process.pid, time.perf_counter() - start)


def _answers(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    require_alive(process, log)
    connection = http.client.HTTPConnection(HOST, port, timeout=_LIMIT)
    try:
        connection.request("OPTIONS", "/")
        return connection.getresponse().status < 400
    except ConnectionError:
        return False
    finally:
        connection.close()
