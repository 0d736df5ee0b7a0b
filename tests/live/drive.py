"""A client of a running server, and what can be seen of its journal and of the bucket."""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.live.serving import Serving

PATIENCE = 60.0


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    seconds: float


def ask(
    server: Serving,
    method: str,
    path: str,
    content: "bytes | Iterable[bytes] | None" = None,
    **headers: str,
) -> Answer:
    """One request on a connection of its own."""
    start = time.monotonic()
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request(method, quote(path), content, headers)
        response = connection.getresponse()
        body = response.read()
    seconds = time.monotonic() - start
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body, seconds)


def put(server: Serving, path: str, content: bytes) -> None:
    """Write a file; it must be acknowledged."""
    answer = ask(server, "PUT", path, content)
    assert answer.status in (201, 204), (path, answer)


def get(server: Serving, path: str) -> bytes:
    """Read a file that must be there."""
    answer = ask(server, "GET", path)
    assert answer.status == 200, (path, answer)
    return answer.content


def move(server: Serving, source: str, target: str) -> Answer:
    return ask(server, "MOVE", source, Destination=server.url + quote(target[1:]))


def eventually(holds: Callable[[], Any], seconds: float = PATIENCE) -> bool:
    """Whether it holds before the time is up; other processes give no event to wait for."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.05)
    return False


def cache_of(server: Serving) -> Path:
    """The only cache of the server."""
    (folder,) = (path for path in server.cache.iterdir() if path.is_dir())
    return folder


def journal(server: Serving, sql: str = "SELECT path, attempts, error FROM pending") -> list[Any]:
    """Rows of the server's journal."""
    path = cache_of(server) / "journal.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(sql).fetchall()


def evidence(server: Serving, stored: Iterable[str], folder: str) -> str:
    """Who knows what of a folder: service, journal and listing table; then what the log says."""
    rows = journal(server, "SELECT path, kind, clears, generation, due, begun, error FROM pending")
    with closing(sqlite3.connect(cache_of(server) / "listings.sqlite")) as connection:
        known = connection.execute("SELECT dir, name, kind, expires, as_of, own FROM entry")
        entries = [entry for entry in known if entry[0].startswith(folder)]
    found = [
        *(name for name in stored if name.startswith(folder[1:])),
        *(row for row in rows if row[0].startswith(folder)),
        *entries,
        *(line for line in server.log.read_text().splitlines()[-500:] if folder in line),
    ]
    return "\n".join(map(str, found))


def wait_for_drain(server: Serving, seconds: float = PATIENCE) -> None:
    """Return when the store has all."""
    assert eventually(lambda: not journal(server), seconds), journal(server)


def keys(client: Any, bucket: str, prefix: str = "") -> set[str]:
    """The keys of all files of a bucket, without the markers of folders."""
    return {key for key in all_keys(client, bucket, prefix) if not key.endswith("/")}


def all_keys(client: Any, bucket: str, prefix: str = "") -> set[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


def contents(client: Any, bucket: str, prefix: str = "") -> dict[str, bytes]:
    """All files of a bucket by what follows `prefix` in the key, but for those gone meanwhile."""
    found = {}
    for key in keys(client, bucket, prefix):
        with suppress(client.exceptions.NoSuchKey):
            content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            found[key.removeprefix(prefix)] = content
    return found


def unfinished_uploads(client: Any, bucket: str) -> list[Any]:
    """Multipart uploads that nobody has completed or aborted."""
    found: list[Any] = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return found


def empty_folders(client: Any, bucket: str) -> list[str]:
    """What a listing by folders shows that nothing is in: SeaweedFS keeps such ones."""
    held = all_keys(client, bucket)

    def folders(prefix: str = "") -> Iterator[str]:
        listing = client.get_paginator("list_objects_v2")
        for page in listing.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
            for folder in page.get("CommonPrefixes", []):
                yield folder["Prefix"]
                yield from folders(folder["Prefix"])

    return [folder for folder in folders() if not any(key.startswith(folder) for key in held)]
