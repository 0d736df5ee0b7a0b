"""The way from a server to the S3 server, which can be cut."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from davfusion.stores.prompt import PROBED
from tests import servers
from tests.live.serving import Serving, free_port, serving
from tests.servers import S3Server


class Line:
    """The way to the S3 server, on a port that stays the same."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = free_port()
        self._proxy: Any = None

    def up(self) -> None:
        """From now on it answers."""
        self.cut()
        self._proxy = servers.testing_program("faultproxy").FaultProxy(self._target, self.port)
        threading.Thread(target=self._proxy.serve_forever, args=[0.05], daemon=True).start()

    def hang(self) -> None:
        """From now on it takes connections and requests, and never answers."""
        self.up()
        self._proxy.rules = [{"action": "hang"}]

    def late(self, seconds: float) -> None:
        """From now on changes, and questions whether anyone is there, are passed on so late."""
        self.up()
        match = f"^(PUT|POST|DELETE) |{quote_plus(PROBED[1:])}"
        self._proxy.rules = [{"match": match, "action": "delay", "seconds": seconds}]

    def prompt(self) -> None:
        """From now on it answers; what has come before is late all the same."""
        self._proxy.rules = []

    def slow(self, seconds: float) -> None:
        """From now on each write takes so long."""
        self.up()
        self._proxy.rules = [{"match": "^(PUT|POST) ", "action": "delay", "seconds": seconds}]

    def cut(self) -> None:
        """From now on nothing listens."""
        if self._proxy is not None:
            self._proxy.rules = [{"action": "drop"}]  # for the connections that are open
            self._proxy.shutdown()
            self._proxy.server_close()
        self._proxy = None


@pytest.fixture
def line(s3_server: S3Server) -> Iterator[Line]:
    line = Line(int(s3_server.endpoint.rpartition(":")[2]))
    line.up()
    yield line
    line.cut()


@contextmanager
def share(line: Line, bucket: str, folder: Path, *options: str) -> Iterator[Serving]:
    """The bucket, served over the line."""
    env = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"}
    options = ("--write-back-delay", "0.1", *options)
    with serving(f"s3://{bucket}", folder, *options, env=env) as server:
        yield server
