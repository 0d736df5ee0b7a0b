"""A worker that is killed in the middle of a change in the store: the others put it right."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from davfusion.stores.credentials import PASSWORD
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.fsspec.share import WORK
from tests import conformance
from tests.fsspec_servers import DavServer
from tests.live.drive import ask, eventually, get, move, put, wait_for_drain
from tests.live.serving import Serving, serving
from tests.servers import fault_proxy

pytestmark = pytest.mark.live
SOON = 10.0
"""Seconds, on a busy machine: twice a second it is looked who has ended."""


@dataclass(frozen=True)
class Stuck:
    """A service that, once told so, is at the moving of /src to /dst for as long as anybody waits.

    What is at /dst is out of the way by then.
    """

    serve: Sequence[str]
    """The target, and options."""
    env: Mapping[str, str]
    contents: Callable[[], dict[str, bytes]]
    """Files by path, those out of the way included."""
    get_stuck: Callable[[], None]


@contextmanager
def stuck_dropbox(request: pytest.FixtureRequest) -> Iterator[Stuck]:
    dropbox: Any = request.getfixturevalue("filled_dropbox")

    def get_stuck() -> None:
        late = 1000 * int(3 * SOON)
        rule = {"endpoint": "files/move_v2", "skip": 2, "times": 1, "latency_ms": late}
        dropbox.control(faults=[rule])

    yield Stuck(["dropbox:/"], {}, lambda: files_of(dropbox), get_stuck)


@contextmanager
def stuck_dav(request: pytest.FixtureRequest) -> Iterator[Stuck]:
    dav: DavServer = request.getfixturevalue("dav_server")
    store: FsspecStore = request.getfixturevalue("dav_store")
    folder = store.get_name().rpartition("/")[2]
    root: Path = dav.root / unquote(folder)

    def contents() -> dict[str, bytes]:
        files = [path for path in root.rglob("*") if path.is_file() and ".DAV" not in path.parts]
        return {f"/{path.relative_to(root)}": path.read_bytes() for path in files}

    for path, content in BEFORE.items():
        conformance.put(store, path, content)
    with fault_proxy(dav.port) as proxy:

        def get_stuck() -> None:
            proxy.rules = [{"match": "^MOVE .*/src", "action": "hang"}]

        target = f"webdav://me@127.0.0.1:{proxy.port}/{folder}"
        # Written through: what is written back copies files where a service moves them singly.
        yield Stuck([target, "--write-mode", "through"], {PASSWORD: "secret"}, contents, get_stuck)


BEFORE = {"/src/new": b"new", "/dst/old": b"old"}


@pytest.fixture
def filled_dropbox(dropbox: Any) -> Any:
    for path, content in BEFORE.items():
        dropbox.other.put(path, content)
    return dropbox


@pytest.fixture(params=[stuck_dropbox, stuck_dav])
def stuck(request: pytest.FixtureRequest) -> Iterator[Stuck]:
    with request.param(request) as stuck:
        yield stuck


def test_what_was_out_of_the_way_comes_back(stuck: Stuck, tmp_path: Path) -> None:
    target, *options = stuck.serve
    with (
        ThreadPoolExecutor(1) as pool,
        serving(target, tmp_path, *options, env=stuck.env) as server,
    ):
        assert get(server, "/dst/old") == b"old"
        stuck.get_stuck()
        asked = pool.submit(move, server, "/src", "/dst")
        assert eventually(lambda: any(WORK in path for path in stuck.contents()))
        kill_workers(server, asked)
        assert eventually(lambda: stuck.contents() == BEFORE, SOON)
        assert get(server, "/dst/old") == b"old"
        assert get(server, "/src/new") == b"new"


def kill_workers(server: Serving, asked: Future[Any]) -> None:
    """And with them what they were `asked` for."""
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises((OSError, HTTPException)):
        asked.result()


def test_what_goes_out_of_the_way_after_that_comes_back(
    filled_dropbox: Any, tmp_path: Path
) -> None:
    """Dropbox carries out what it has been asked, whoever waits for the answer."""
    with ThreadPoolExecutor(1) as pool, serving("dropbox:/", tmp_path) as server:
        assert get(server, "/dst/old") == b"old"
        rule = {"endpoint": "files/move_v2", "skip": 1, "times": 1, "latency_ms": 2000}
        filled_dropbox.control(faults=[rule])
        asked = pool.submit(move, server, "/src", "/dst")
        assert eventually(lambda: filled_dropbox.report()["faults"][0]["times"] == 0)
        assert files_of(filled_dropbox) == BEFORE
        kill_workers(server, asked)
        assert eventually(lambda: "/dst was being replaced" in server.log.read_text(), SOON)
        assert eventually(lambda: files_of(filled_dropbox) == BEFORE, SOON)
        assert get(server, "/dst/old") == b"old"


def test_nothing_is_sent_to_where_something_is_out_of_the_way(
    filled_dropbox: Any, tmp_path: Path
) -> None:
    """What is in its place would be taken for what was to replace it."""
    options = "--write-back-delay", "1"
    with ThreadPoolExecutor(1) as pool, serving("dropbox:/", tmp_path, *options) as server:
        assert get(server, "/dst/old") == b"old"
        put(server, "/dst/later", b"later")
        late = 1000 * int(3 * SOON)
        rule = {"endpoint": "files/copy_v2", "skip": 1, "times": 1, "latency_ms": late}
        filled_dropbox.control(faults=[rule])
        asked = pool.submit(ask, server, "COPY", "/src", Destination=f"{server.url}dst")
        assert eventually(lambda: filled_dropbox.report()["faults"][0]["times"] == 0)
        filled_dropbox.control(faults=[{"endpoint": "files/list_folder", "status": 503}])
        kill_workers(server, asked)
        put(server, "/other", b"other")
        assert eventually(lambda: "/other" in files_of(filled_dropbox), 3 * SOON)
        assert any(WORK in path for path in files_of(filled_dropbox))
        filled_dropbox.control(faults=[])
        wait_for_drain(server)
        assert files_of(filled_dropbox) == {**BEFORE, "/dst/later": b"later", "/other": b"other"}


def test_what_is_sent_elsewhere_does_not_wait(filled_dropbox: Any, tmp_path: Path) -> None:
    """Until Dropbox has answered whoever puts it right."""
    options = "--write-back-delay", "0.1"
    with ThreadPoolExecutor(1) as pool, serving("dropbox:/", tmp_path, *options) as server:
        assert get(server, "/dst/old") == b"old"
        late = {"endpoint": "files/move_v2", "times": 1, "latency_ms": 1500 * int(SOON)}
        filled_dropbox.control(faults=[{**late, "skip": 2}])
        asked = pool.submit(move, server, "/src", "/dst")
        assert eventually(lambda: filled_dropbox.report()["faults"][0]["times"] == 0)
        filled_dropbox.control(faults=[late])
        kill_workers(server, asked)
        assert eventually(lambda: filled_dropbox.report()["faults"][0]["times"] == 0)
        put(server, "/other", b"other")
        assert eventually(lambda: "/other" in files_of(filled_dropbox), SOON)


def files_of(dropbox: Any) -> dict[str, bytes]:
    """By path, those out of the way included."""
    return {path: content for path, content in dropbox.other.tree().items() if content}
