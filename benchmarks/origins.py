"""What lies behind the servers of a race, reached beside them: a bucket, or a local folder."""

import http.client
import itertools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from benchmarks.processes import HOST, WrongError
from benchmarks.seaweedfs import S3

_SEEDERS: Final = 8
_WORK: Final = ".davfusion-tmp"
"""Where davfusion prepares what it then renames into place; no client sees it."""


class Origin(Protocol):
    """Files by their key, the path without its first slash."""

    name: str

    def put_many(self, files: Mapping[str, bytes]) -> None:
        """Store all of them."""

    def get(self, key: str) -> bytes:
        """The content of a file."""

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Key -> bytes of every file whose key begins so."""


class Bucket:
    """A new bucket."""

    def __init__(self, server: S3, name: str) -> None:
        self.name = name
        self._server = server
        self._client = server.client()
        self._client.create_bucket(Bucket=name)

    def put_many(self, files: Mapping[str, bytes]) -> None:
        """Not signed and without the SDK, which would take the time of 100,000 files tenfold."""
        work = [list(files.items())[start::_SEEDERS] for start in range(_SEEDERS)]
        with ThreadPoolExecutor(_SEEDERS) as pool:
            list(pool.map(self._put_some, work))

    def _put_some(self, files: Iterable[tuple[str, bytes]]) -> None:
        connection = http.client.HTTPConnection(HOST, self._server.port, timeout=60)
        for key, content in files:
            connection.request("PUT", f"/{self.name}/{quote(key)}", body=content)
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise WrongError(f"seeding {key}: {response.status} {answer[:200]!r}")
        connection.close()

    def get(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """As Origin; without the objects that stand for folders."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        found = itertools.chain.from_iterable(page.get("Contents", []) for page in pages)
        return {entry["Key"]: entry["Size"] for entry in found if not entry["Key"].endswith("/")}


class Folder:
    """A new local folder."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.path = path
        path.mkdir()

    def put_many(self, files: Mapping[str, bytes]) -> None:
        for key, content in files.items():
            target = self.path / key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)

    def get(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """As Origin; a file that goes meanwhile is left out."""
        below = self.path / prefix.rpartition("/")[0]
        found = {}
        for path in below.rglob("*"):
            key = path.relative_to(self.path).as_posix()
            with suppress(FileNotFoundError):
                if key.startswith(prefix) and _WORK not in path.parts and path.is_file():
                    found[key] = path.stat().st_size
        return found
