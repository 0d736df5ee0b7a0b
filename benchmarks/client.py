"""The client's side: requests whose answers are checked, and the programs that load a server."""

import html
import http.client
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Final, Self
from urllib.parse import unquote

from benchmarks.processes import HOST, WrongError

PROPFIND: Final = (
    '<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/>'
    "<D:getcontentlength/><D:getlastmodified/><D:getetag/></D:prop></D:propfind>"
)
_XML: Final = {"Content-Type": "application/xml"}
_HREF: Final = re.compile(r"<(?:\w+:)?href>([^<]*)<")
CREATED: Final = (201, 204)


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=300)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    def send(
        self,
        method: str,
        path: str,
        want: Iterable[int],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The answer's body; WrongError unless its status is one of `want`."""
        self._connection.request(method, path, body=body, headers=dict(headers or {}))
        response = self._connection.getresponse()
        content = response.read()
        if response.status not in want:
            raise WrongError(f"{method} {path}: {response.status} {content[:200]!r}")
        return content

    def put(self, path: str, body: bytes) -> None:
        self.send("PUT", path, CREATED, body)

    def delete(self, path: str) -> None:
        self.send("DELETE", path, (200, 204))

    def move(self, path: str, destination: str) -> None:
        """To another path of the same server."""
        to = f"http://{HOST}:{self._connection.port}{destination}"
        self.send("MOVE", path, CREATED, headers={"Destination": to})

    def list(self, folder: str, names: set[str]) -> float:
        """Seconds that PROPFIND with depth 1 took; WrongError unless `names` are what is there."""
        start = time.perf_counter()
        xml = self.send("PROPFIND", folder, (207,), PROPFIND.encode(), {"Depth": "1", **_XML})
        seconds = time.perf_counter() - start
        hrefs = (unquote(html.unescape(href)) for href in _HREF.findall(xml.decode()))
        found = {href.rstrip("/").rpartition("/")[2] for href in hrefs if not href.endswith(folder)}
        if found != names:
            odd = sorted(found ^ names)
            raise WrongError(f"PROPFIND {folder}: {len(found)} names, wrong are {odd[:5]}")
        return seconds


def curl(*arguments: str) -> list[str]:
    """The words that it prints for --write-out."""
    done = subprocess.run(
        ["curl", "-sS", "-o", "/dev/null", *arguments], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise WrongError(f"curl: {done.stderr.strip()}")
    return done.stdout.split()


def wrk(url: str, clients: int, seconds: int, *, depth_0: bool = False) -> float:
    """Requests per second: GET, or PROPFIND of the one file; WrongError if one of them fails."""
    command = ["wrk", "--threads", "1", "--connections", str(clients)]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if depth_0:
            script.write(
                'wrk.method = "PROPFIND"\nwrk.headers["Depth"] = "0"\n'
                f'wrk.headers["Content-Type"] = "application/xml"\nwrk.body = [[{PROPFIND}]]\n'
            )
            script.flush()
            command += ["--script", script.name]
        command += ["--duration", f"{seconds}s", url]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate = re.search(r"Requests/sec:\s*([\d.]+)", shown)
    if rate is None or "Non-2xx" in shown or "Socket errors" in shown:
        raise WrongError(f"wrk {url}: {shown}")
    return float(rate[1])
