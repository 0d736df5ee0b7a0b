"""kill -9 of all processes, of the mover, of a worker: nothing acknowledged is lost (row C11)."""

import os
import random
import re
import signal
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

import pytest

from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.fsspec.share import WORK
from tests.live.careful_client import Client, HalfAnsweredError
from tests.live.drive import (
    cache_of,
    contents,
    empty_folders,
    eventually,
    evidence,
    get,
    journal,
    put,
    unfinished_uploads,
    wait_for_drain,
)
from tests.live.promises import Node, Tree
from tests.live.serving import Serving, serving
from tests.servers import S3Server
from tests.spooled import sizes as sizes_in

KILLS = int(os.environ.get("DAVFUSION_KILLS", "20"))
SEED = os.environ.get("DAVFUSION_SEED", "1")
CLIENTS = 4
LONELY_KILLS, STOPS = 4, 5
PARTS, PART = 20, 8 << 20
PROBE = ".davfusion-probe-"
"""Of a throw-away key; what a kill leaves of them goes at a start an hour later."""
R = TypeVar("R")
pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(120 + 15 * KILLS)]


class Service(Protocol):
    """A service from beside the server."""

    @property
    def kills(self) -> int: ...
    @property
    def target(self) -> str: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    def put(self, name: str, content: bytes) -> None: ...
    def contents(self) -> dict[str, bytes]: ...
    def is_clean(self) -> bool: ...


class Bucket:
    """A bucket of S3."""

    kills = KILLS

    def __init__(self, client: Any, endpoint: str, name: str) -> None:
        self._client, self._name = client, name
        self.target, self.env = f"s3://{name}", {"AWS_ENDPOINT_URL": endpoint}

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._name, Key=name, Body=content)

    def contents(self) -> dict[str, bytes]:
        return contents(self._client, self._name)

    def is_clean(self) -> bool:
        """Whether no upload is unfinished, and no folder kept that nothing is in."""
        place = self._client, self._name
        return not unfinished_uploads(*place) and not empty_folders(*place)


class DropboxFolder:
    """A folder of a Dropbox, which forgets unfinished uploads by itself."""

    kills = KILLS // 4
    target = "dropbox:/Served"
    env: Mapping[str, str] = {}

    def __init__(self, dropbox: Any) -> None:
        self._other = dropbox.other
        self._other.mkdir("/Served")

    def put(self, name: str, content: bytes) -> None:
        self._other.put(f"/Served/{name}", content)

    def contents(self) -> dict[str, bytes]:
        tree: dict[str, bytes | None] = self._other.tree()
        return {
            path.removeprefix("/Served/"): content
            for path, content in tree.items()
            if content is not None
        }

    def is_clean(self) -> bool:
        """Nothing of them is to be seen."""
        return True


class ServedFolder:
    """A folder of this machine that another server serves."""

    kills = KILLS // 6
    env: Mapping[str, str] = {}

    def __init__(self, target: str, root: Path) -> None:
        self.target, self._root = target, root

    def put(self, name: str, content: bytes) -> None:
        place = self._root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def contents(self) -> dict[str, bytes]:
        files = {p.relative_to(self._root): p for p in self._root.rglob("*") if p.is_file()}
        hidden = {WORK, ".DAV"}  # in which Apache keeps properties
        return {str(at): p.read_bytes() for at, p in files.items() if not hidden & {*at.parts}}

    def is_clean(self) -> bool:
        """Whether nothing that was replaced is out of the way; uploads go a day later."""
        return not list(self._root.glob(f"{WORK}/replaced-*"))


class Crowd:
    """Clients that work at the same time, and what there must be in the end."""

    def __init__(self, server: Serving, service: Service, shared: dict[str, Node]) -> None:
        self.rng = random.Random(SEED)
        print(f"to repeat it: DAVFUSION_SEED={SEED}")
        self._shared = shared
        self._server, self._service = server, service
        self.clients = [
            Client(server.port, f"/home{number}", f"{SEED}/{number}", shared)
            for number in range(CLIENTS)
        ]
        self.pool = ThreadPoolExecutor(CLIENTS)
        for client in self.clients:
            client.make_home()

    def recover(self, *, was_graceful: bool = False) -> None:
        """All find what they were promised."""
        self.ended([self.pool.submit(c.recover, was_graceful=was_graceful) for c in self.clients])

    def ended(self, doing: "list[Future[R]]") -> list[R]:
        """The results of what each client does; what contradicts its promises, with the reasons."""
        results = []
        for client, each in zip(self.clients, doing, strict=True):
            try:
                results.append(each.result())
            except AssertionError as error:
                error.add_note(evidence(self._server, self._service.contents(), client.home))
                raise
        return results

    def check_the_end(self) -> None:
        """The bucket has all, and nothing else is left anywhere."""
        server = self._server
        wait_for_drain(server)
        self.recover()
        tree = ChainMap(self._shared, *(client.tree for client in self.clients))
        promised = {path[1:]: node.content for path, node in tree.items() if not node.is_dir}
        stored = {
            key: content
            for key, content in self._service.contents().items()
            if not (is_hidden(tree, f"/{key}") or key.startswith(PROBE))
        }
        assert sizes(stored) == sizes(promised)
        assert stored == promised
        assert eventually(self._service.is_clean)
        assert not journal(server, "SELECT * FROM conflict")
        server.stop()
        server.start()
        self.recover()
        assert not spooled(server)


def is_hidden(tree: Tree, path: str) -> bool:
    """Whether a folder has the name too: it is shown, and the object not touched."""
    return path in tree and tree[path].is_dir


def sizes(files: Mapping[str, bytes | None]) -> dict[str, int]:
    return {key: len(content or b"") for key, content in files.items()}


def spooled(server: Serving) -> dict[str, int]:
    """What is left in the spool, lost+found included."""
    return sizes_in(cache_of(server) / "spool")


def errors(server: Serving) -> list[str]:
    """What the log says of errors, but for the deaths of processes."""
    ends = re.compile(r"(worker|mover) \d+ ended with -9")
    lines = server.log.read_text().splitlines()
    return [line for line in lines if " ERROR " in line and not ends.search(line)]


@pytest.fixture(params=["s3", "dropbox"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Service:
    """What is served."""
    if request.param == "dropbox":
        return DropboxFolder(request.getfixturevalue("dropbox"))
    if request.param == "sftp":
        sftp: FsspecStore = request.getfixturevalue("sftp_store")
        return ServedFolder(sftp.get_name(), tmp_path / "a root")
    if request.param == "webdav":
        dav: FsspecStore = request.getfixturevalue("dav_store")
        root: Path = request.getfixturevalue("dav_server").root
        return ServedFolder(dav.get_name(), root / unquote(dav.get_name().rpartition("/")[2]))
    server: S3Server = request.getfixturevalue("s3_server")
    bucket: str = request.getfixturevalue("bucket")
    return Bucket(request.getfixturevalue("s3_client"), server.endpoint, bucket)


@pytest.fixture
def shared(service: Service) -> dict[str, Node]:
    """What all read; it is there before the server looks what there is."""
    rng = random.Random(SEED)
    tree = {f"/shared/{number}": Node(rng.randbytes(400_000)) for number in range(3)}
    for path, node in tree.items():
        service.put(path[1:], node.content or b"")
    return tree


@pytest.fixture
def server(service: Service, tmp_path: Path, shared: dict[str, Node]) -> Iterator[Serving]:
    assert shared
    options = ("--write-back-delay", "0.3")
    with serving(service.target, tmp_path, *options, env=service.env) as server:
        yield server
    assert not errors(server)


@pytest.fixture
def crowd(shared: dict[str, Node], server: Serving, service: Service) -> Iterator[Crowd]:
    crowd = Crowd(server, service, shared)
    with crowd.pool:
        yield crowd
    for client in crowd.clients:
        client.close()
    print(f"{sum(client.changes for client in crowd.clients)} changes were acknowledged")


@pytest.mark.parametrize("service", ["s3", "dropbox", "sftp", "webdav"], indirect=True)
def test_nothing_acknowledged_is_lost(server: Serving, service: Service, crowd: Crowd) -> None:
    for _ in range(service.kills):
        working = [crowd.pool.submit(client.work) for client in crowd.clients]
        time.sleep(crowd.rng.uniform(0, 2))
        server.kill()
        crowd.ended(working)
        if crowd.rng.random() < 0.2:
            server.launch()
            time.sleep(crowd.rng.uniform(0, 1))
            server.kill()
        server.start()
        crowd.recover()
    crowd.check_the_end()


@pytest.mark.parametrize("victims", [Serving.movers, Serving.workers])
def test_a_process_that_is_killed_is_replaced(
    server: Serving, crowd: Crowd, victims: Callable[[Serving], list[int]]
) -> None:
    usual = len(victims(server))

    def is_replaced(pid: int) -> bool:
        now = victims(server)
        return pid not in now and len(now) == usual

    stop = threading.Event()
    working = [crowd.pool.submit(client.work_on, stop) for client in crowd.clients]
    try:
        for _ in range(LONELY_KILLS):
            time.sleep(crowd.rng.uniform(0, 2))
            victim = crowd.rng.choice(victims(server))
            os.kill(victim, signal.SIGKILL)
            assert eventually(partial(is_replaced, victim))
    finally:
        stop.set()
    crowd.ended(working)
    assert server.log.read_text().count("ended with -9") == LONELY_KILLS
    crowd.check_the_end()


def test_a_server_that_is_stopped_answers_all_that_it_does(server: Serving, crowd: Crowd) -> None:
    for _ in range(STOPS):
        working = [crowd.pool.submit(client.work) for client in crowd.clients]
        time.sleep(crowd.rng.uniform(0, 2))
        server.stop()
        assert not [end for end in crowd.ended(working) if isinstance(end, HalfAnsweredError)]
        server.start()
        crowd.recover(was_graceful=True)
    crowd.check_the_end()


@pytest.mark.parametrize("end", [Serving.stop, Serving.kill])
def test_parts_that_were_sent_are_not_sent_again(
    s3_server: S3Server,
    s3_client: Any,
    s3_proxy: Any,
    bucket: str,
    tmp_path: Path,
    end: Callable[[Serving], None],
) -> None:
    """At 90 % of an upload (row C18)."""
    content = random.Random(SEED).randbytes(PARTS * PART)
    last = {PARTS - 1, PARTS}
    s3_proxy.rules = [{"match": rf"partNumber=({PARTS - 1}|{PARTS})\b", "action": "hang"}]
    env = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_proxy.port}"}
    with serving(f"s3://{bucket}", tmp_path, "--write-back-delay", "0", env=env) as server:
        put(server, "/large", content)
        assert eventually(lambda: len(parts_sent(s3_proxy)) == PARTS - len(last))
        end(server)
        s3_proxy.rules = []
        s3_proxy.log.clear()
        server.start()
        assert get(server, "/large") == content
        wait_for_drain(server)
        assert sorted(parts_sent(s3_proxy)) == sorted(last)
        assert contents(s3_client, bucket) == {"large": content}
        assert not unfinished_uploads(s3_client, bucket)


def parts_sent(proxy: Any) -> list[int]:
    """The numbers of the parts that S3 has acknowledged."""
    numbers = [
        re.search(r"partNumber=(\d+)", entry["path"])
        for entry in list(proxy.log)
        if entry["method"] == "PUT" and entry["status"] == 200
    ]
    return [int(number[1]) for number in numbers if number]
