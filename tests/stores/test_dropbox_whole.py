"""DropboxStore: files in one request, which are read while they are sent."""

import io
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from davfusion.stores.dropbox import DropboxStore, credentials
from davfusion.stores.dropbox.content import MIB
from davfusion.stores.dropbox.credentials import Credentials
from davfusion.stores.dropbox.streaming import LARGEST_REQUEST
from davfusion.stores.retry import GivenUpError
from davfusion.stores.store import (
    ConflictError,
    InterruptedException,
    StoreAccessError,
    StoreSpaceLimitError,
    TransientStoreError,
)
from tests import servers
from tests.conformance import SourceError, names, put, put_all
from tests.conformance_uploads import KeptUpload, resume

pytestmark = pytest.mark.live

TWENTY = bytes(range(256)) * (20 * MIB // 256)
IN_PARTS = {"start": 1, "append_v2": 5, "finish_batch_v2": 1}
"""Requests for it, in parts of 4 MiB."""


class Watched(io.BytesIO):
    """Calls `act` once, when it is read behind `position` for the `time`th time."""

    def __init__(
        self, content: bytes, act: Callable[[], None], position: int = 11 * MIB, time: int = 2
    ) -> None:
        super().__init__(content)
        self._act, self._position, self._left = act, position, time

    def read(self, size: int | None = -1, /) -> bytes:
        before = self.tell()
        data = super().read(size)
        if before <= self._position < self.tell():
            self._left -= 1
            if self._left == 0:
                self._act()
        return data


@pytest.fixture
def store(dropbox: Any) -> Iterator[DropboxStore]:
    """A store with a connection, and parts of 4 MiB."""
    store = DropboxStore(part_size=4 * MIB)
    store.check_access()
    servers.requests_of(dropbox)
    yield store
    store.reconnect()


def cost(dropbox: Any) -> Counter[str]:
    """The requests since the last call, those of upload sessions by their step."""
    found = servers.requests_of(dropbox)
    return Counter(kind.removeprefix("upload_session/") for kind in found)


def test_a_large_file(store: DropboxStore, dropbox: Any) -> None:
    class Counting(KeptUpload):
        def sent(self, size: int) -> None:
            super().sent(size)
            steps.append(size)

    steps: list[int] = []
    upload = Counting()
    stored = resume(store, "/file", TWENTY, upload)
    assert cost(dropbox) == {"upload": 1}
    assert stored == store.get_metadata("/file")
    assert store.get_file("/file") == TWENTY
    assert steps == [4 * MIB] * 5  # as it goes, for who looks at the status


@pytest.mark.parametrize("size", [LARGEST_REQUEST - 1, LARGEST_REQUEST, LARGEST_REQUEST + 1])
def test_around_the_most_that_one_request_may_have(dropbox: Any, tmp_path: Path, size: int) -> None:
    content = tmp_path / "content"
    content.touch()
    os.truncate(content, size)
    store = DropboxStore()
    assert store.store_file(str(content), "/")["bytes"] == size
    whole = {"upload": 1}
    parts = {"start": 1, "append_v2": -(-size // (8 * MIB)), "finish_batch_v2": 1}
    assert cost(dropbox) == (whole if size < LARGEST_REQUEST else parts)
    store.reconnect()


def test_a_source_that_cannot_seek_is_held_or_goes_in_parts(
    store: DropboxStore, dropbox: Any
) -> None:
    """Nobody knows what it is before it has gone; so Dropbox compares part by part."""

    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

    store.store_fileobject(Stream(TWENTY[: 4 * MIB - 1]), "/held")
    assert cost(dropbox) == {"upload": 1}
    store.store_fileobject(Stream(TWENTY), "/file")
    assert cost(dropbox) == IN_PARTS
    assert store.get_file("/file") == TWENTY


def test_a_token_that_expires_meanwhile(
    store: DropboxStore, dropbox: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All is sent once more, by a new one."""
    login = tmp_path / "login.json"
    credentials.keep(Credentials(None, dropbox.app_key, dropbox.refresh_token), login)
    monkeypatch.delenv(credentials.TOKEN)
    share, upload = DropboxStore(token_file=login, part_size=4 * MIB), KeptUpload()
    put(share, "/file", b"old")
    cost(dropbox)
    source = Watched(TWENTY, lambda: dropbox.control(expire_tokens=True))
    assert share.store_resumable(source, "/file", upload)["bytes"] == len(TWENTY)
    assert cost(dropbox) == {"upload": 2, "oauth2/token": 1}
    assert (upload.progress, share.get_file("/file")) == (len(TWENTY), TWENTY)
    share.reconnect()
    store.reconnect()


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("error", [SourceError, OSError, BrokenPipeError])
def test_a_source_that_breaks_off(
    store: DropboxStore, dropbox: Any, time: int, error: type[Exception]
) -> None:
    def fail() -> None:
        raise error

    put(store, "/file", b"old")
    cost(dropbox)
    upload = KeptUpload()
    with pytest.raises(error):
        store.store_resumable(Watched(TWENTY, fail, time=time), "/file", upload)
    assert store.get_file("/file") == b"old"
    assert dropbox.emulator.sessions == {}
    assert (upload.progress, upload.token) == (0, None)
    assert cost(dropbox)["upload"] == time - 1


@pytest.mark.parametrize(
    ("size", "error"), [(len(TWENTY), TransientStoreError), (15 * MIB, StoreAccessError)]
)
def test_a_source_that_changes_meanwhile(
    store: DropboxStore, size: int, error: type[StoreAccessError]
) -> None:
    """To other bytes, or to fewer."""

    def change() -> None:
        with source.getbuffer() as held:
            held[16 * MIB] ^= 1
        source.truncate(size)

    put(store, "/file", b"old")
    source, upload = Watched(TWENTY, change), KeptUpload()
    with pytest.raises(error):
        store.store_resumable(source, "/file", upload)
    assert store.get_file("/file") == b"old"
    assert (upload.progress, upload.token) == (0, None)


@pytest.mark.parametrize("time", [1, 2])
def test_interrupting_it(store: DropboxStore, time: int) -> None:
    put(store, "/file", b"old")
    upload = KeptUpload()

    def interrupt() -> None:
        upload.interrupted = True

    with pytest.raises(InterruptedException):
        store.store_resumable(Watched(TWENTY, interrupt, time=time), "/file", upload)
    assert store.get_file("/file") == b"old"
    assert (upload.progress, upload.token) == (0, None)


def test_a_line_that_breaks_off(store: DropboxStore, dropbox: Any) -> None:
    """The next try goes in parts; the one after goes on with those, and sends none again."""
    put(store, "/file", b"old")
    breaks = {"times": 1, "drop_request_after": 9 * MIB}
    dropbox.control(
        faults=[
            {"endpoint": "files/upload", **breaks},
            {"endpoint": ".*append_v2", "times": 1, "latency_ms": 300, "status": 503},
            {"endpoint": ".*append_v2", "times": 3, "skip": 1, "latency_ms": 900},
        ]
    )
    cost(dropbox)
    upload = KeptUpload()
    with pytest.raises(TransientStoreError):
        resume(store, "/file", TWENTY, upload)
    assert cost(dropbox) == {"upload": 1}
    assert (store.get_file("/file"), upload.progress) == (b"old", 0)
    upload = KeptUpload(upload.token)  # as of a journal
    with pytest.raises(TransientStoreError):
        resume(store, "/file", TWENTY, upload)
    before = cost(dropbox)["append_v2"]
    upload = KeptUpload(upload.token)
    resume(store, "/file", TWENTY, upload)
    after = cost(dropbox)["append_v2"]
    assert after < IN_PARTS["append_v2"]
    assert before + after == IN_PARTS["append_v2"] + 1  # the one that failed
    assert (store.get_file("/file"), upload.progress) == (TWENTY, len(TWENTY))


def test_a_line_that_breaks_off_at_once(dropbox: Any) -> None:
    """What has hardly begun may begin again."""
    store, upload = DropboxStore(part_size=40 * MIB), KeptUpload()
    content = TWENTY * 2 + b"."
    drop = {"endpoint": "files/upload", "times": 1, "drop_request_after": 1000}
    dropbox.control(faults=[drop])
    with pytest.raises(TransientStoreError):
        resume(store, "/file", content, upload)
    assert upload.begins == []
    cost(dropbox)
    resume(store, "/file", content, upload)
    assert cost(dropbox) == {"upload": 1}
    store.reconnect()


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_server_that_stops_meanwhile(store: DropboxStore, dropbox: Any, is_killed: bool) -> None:
    """By itself, or so that nobody can note anything any more."""

    class Killed(BaseException):
        pass

    def stop() -> None:
        raise Killed if is_killed else GivenUpError("the server is stopping")

    upload = KeptUpload()
    with pytest.raises(Killed if is_killed else GivenUpError):
        store.store_resumable(Watched(TWENTY, stop), "/file", upload)
    assert names(store, "/") == set()
    cost(dropbox)
    resume(store, "/file", TWENTY, KeptUpload(upload.token))
    assert cost(dropbox) == IN_PARTS
    assert store.get_file("/file") == TWENTY


def refusal(reason: dict[str, Any]) -> dict[str, Any]:
    """An UploadError of that WriteError."""
    return {".tag": "path", "reason": reason, "upload_session_id": "a session"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 429}, TransientStoreError),
        ({"status": 503}, TransientStoreError),
        ({"error": refusal({".tag": "insufficient_space"})}, StoreSpaceLimitError),
        ({"error": refusal({".tag": "conflict", "conflict": {".tag": "file"}})}, ConflictError),
    ],
)
def test_an_answer_is_no_break(
    store: DropboxStore, dropbox: Any, answer: dict[str, Any], error: type[StoreAccessError]
) -> None:
    dropbox.control(faults=[{"endpoint": "files/upload", "times": 1, **answer}])
    upload = KeptUpload()
    with pytest.raises(error):
        resume(store, "/file", TWENTY, upload)
    assert (upload.progress, upload.token) == (0, None)
    cost(dropbox)
    resume(store, "/file", TWENTY, upload)
    assert cost(dropbox) == {"upload": 1}


@pytest.mark.parametrize("lost", [-1, 20])
def test_an_answer_that_was_lost(store: DropboxStore, dropbox: Any, lost: int) -> None:
    """What it was about has been done: the caller finds it."""
    base = put(store, "/file", b"base")["etag"]
    lose = {"endpoint": "files/upload", "times": 1, "drop_response_after": lost}
    dropbox.control(faults=[lose])
    upload = KeptUpload()
    with pytest.raises(TransientStoreError):
        store.store_resumable(io.BytesIO(TWENTY), "/file", upload, if_etag=base)
    assert store.get_file("/file") == TWENTY
    with pytest.raises(ConflictError):
        store.store_resumable(io.BytesIO(TWENTY), "/file", upload, if_etag=base)
    assert (store.get_file("/file"), upload.token) == (TWENTY, None)


def test_others_write_meanwhile(store: DropboxStore, dropbox: Any) -> None:
    """A large file waits for its turn when all else of it has gone, not before."""
    source = Watched(TWENTY, lambda: put_all(store, [f"/small/{n}" for n in range(20)]))
    dropbox.control(settings={"contention_rate": 1.0})
    store.store_fileobject(source, "/large")
    assert store.get_file("/large") == TWENTY
    assert len(names(store, "/small")) == 20


def test_many_files_of_all_sizes_do_not_clash(store: DropboxStore, dropbox: Any) -> None:
    dropbox.control(settings={"contention_rate": 1.0, "contention_as": "mixed"})
    sizes = {f"/dir/{number}": (5 * MIB if number % 3 else 1000) + number for number in range(30)}
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda file: put(store, file[0], TWENTY[: file[1]]), sizes.items()))
    sent = cost(dropbox)
    assert sent["upload"] + sent["start"] == 30
    found = store.get_directory_metadata("/dir")
    assert {f"/dir/{name}": metadata["bytes"] for name, metadata in found.items()} == sizes


def test_of_many_large_files_some_are_made_by_a_second_request(
    store: DropboxStore, dropbox: Any
) -> None:
    """What has gone by the first one does not go again."""
    all_begun = threading.Barrier(6, timeout=60)
    uploads = {f"/{number}": KeptUpload() for number in range(6)}
    failing = {"endpoint": ".*finish_batch_v2", "times": 2, "status": 503}
    dropbox.control(faults=[failing])

    def wait() -> None:
        all_begun.wait()

    def store_one(path: str) -> str | None:
        source = Watched(TWENTY, wait)
        try:
            store.store_resumable(source, path, uploads[path])
        except TransientStoreError:
            return path
        return None

    with ThreadPoolExecutor(6) as pool:
        failed = [path for path in pool.map(store_one, uploads) if path is not None]
    sent = cost(dropbox)
    assert (sent["upload"], sent["start"]) == (4, 2)
    assert len(failed) == 2
    dropbox.control(reset="faults")
    for path in failed:
        later = KeptUpload(uploads[path].token)
        resume(store, path, TWENTY, later)
        assert cost(dropbox) == {"finish_batch_v2": 1}
        assert later.progress == len(TWENTY)
    assert all(store.get_file(path) == TWENTY for path in uploads)


GROWTH = """
import io, re, sys
from pathlib import Path
from davfusion.stores.dropbox import DropboxStore

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

store = DropboxStore()
store.store_fileobject(io.BytesIO(b"x" * 100_000), "/small")
before = most()
store.store_file(sys.argv[1], "/")
print(most() - before)
store.reconnect()
"""


@pytest.mark.usefixtures("store")
def test_it_is_not_held_in_memory(dropbox: Any, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(TWENTY * 5)
    command = [sys.executable, "-c", GROWTH, str(content)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert cost(dropbox)["upload"] == 2
    print(f"{done.stdout.strip()} KiB more for 100 MiB")
    assert int(done.stdout) < 8 * 1024
