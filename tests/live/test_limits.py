"""The size of the cache is kept, whatever is written to it and however slow the store is (C10)."""

import hashlib
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.live.drive import (
    PATIENCE,
    Answer,
    ask,
    cache_of,
    contents,
    eventually,
    get,
    journal,
    put,
    unfinished_uploads,
    wait_for_drain,
)
from tests.live.line import Line, line, share
from tests.live.serving import Serving, serving

__all__ = ["line"]
pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.large]
MB = 1 << 20
LIMIT, MOST = 100 * MB, 110 * MB
SIZE, FILES, WRITERS = 5 * MB, 100, 24


class Watch:
    """The most that a folder takes of the disk, looked at all the time."""

    def __init__(self, folder: Path) -> None:
        self.peak = 0
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, disk_use(self._folder))

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def disk_use(folder: str | Path) -> int:
    """Bytes that the disk has given, as du counts them: a file with two names once.

    What has gone by the end of the walk is not counted: others may have taken its room meanwhile.
    """
    found: dict[int, tuple[Path, int]] = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError):
                status = path.lstat()
                found[status.st_ino] = path, status.st_blocks * 512
    return sum(size for path, size in found.values() if path.exists())


def content(number: int, size: int = SIZE) -> bytes:
    seed = hashlib.sha256(str(number).encode()).digest()
    return seed * (size // len(seed))


def write_all(server: Serving, writers: int) -> dict[str, Answer]:
    """500 MB, by so many clients at once."""

    def write(number: int) -> Answer:
        return ask(server, "PUT", f"/{number}", content(number))

    with ThreadPoolExecutor(writers) as pool:
        return dict(zip(map(str, range(FILES)), pool.map(write, range(FILES)), strict=True))


def test_while_the_store_is_stopped_the_cache_is_full_and_no_fuller(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    with share(line, bucket, tmp_path, "--cache-size", "100MB") as server:
        put(server, "/sent", b"")
        wait_for_drain(server)
        line.cut()
        put(server, "/read", content(1000))
        with Watch(server.cache) as watch:
            reader = Reader(server)
            answers = write_all(server, WRITERS)
            reader.stop()
        assert watch.peak < MOST, watch.peak / MB
        refused = [answer for answer in answers.values() if answer.status != 201]
        assert {answer.status for answer in refused} <= {503, 507}
        assert all(answer.status == 507 or answer.headers["retry-after"] for answer in refused)
        written = [name for name, answer in answers.items() if answer.status == 201]
        assert len(written) >= 16
        assert max(reader.seconds) < 5, sorted(reader.seconds)[-5:]
        assert_refused_before_the_body(server)
        for name in written:
            assert get(server, f"/{name}") == content(int(name))
        line.up()
        wait_for_drain(server)
        put(server, "/again", content(2000))
        wait_for_drain(server)
    stored = contents(s3_client, bucket)
    assert stored.keys() == {*written, "sent", "read", "again"}
    assert all(stored[name] == content(int(name)) for name in written)


class Reader:
    """A client that reads all the time."""

    def __init__(self, server: Serving) -> None:
        self.seconds: list[float] = []
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            answer = ask(self._server, "GET", "/read", Range="bytes=7000-7999")
            self.seconds.append(answer.seconds if answer.status == 206 else PATIENCE)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def assert_refused_before_the_body(server: Serving) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 30) as sock:
        head = f"PUT /late HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n"
        sock.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 507 "), answer


def test_while_the_store_is_slow_writers_wait(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    with share(line, bucket, tmp_path, "--cache-size", "100MB") as server:
        put(server, "/first", b"")
        wait_for_drain(server)
        line.slow(2)
        with Watch(server.cache) as watch:
            answers = write_all(server, 8)
        assert {answer.status for answer in answers.values()} == {201}
        assert watch.peak < MOST, watch.peak / MB
        assert max(answer.seconds for answer in answers.values()) > 1
        wait_for_drain(server)
    stored = contents(s3_client, bucket)
    assert stored == {str(number): content(number) for number in range(FILES)} | {"first": b""}


@contextmanager
def upload(server: Serving, path: str, framing: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
        sock.sendall(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
        yield sock


def keep_files_small(server: Serving, most: int) -> None:
    """From now on the server writes no file, a temporary one or any, of more than so many bytes."""
    for pid in server.pids():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


def stream(
    server: Serving, content: bytes, end: int, framing: str = "chunked", path: str = "/large"
) -> bytes:
    """PUT, which breaks off at `end` unless that is the end; what is answered."""
    is_chunked, is_whole = framing == "chunked", end == len(content)
    header = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(content)}"
    with upload(server, path, header) as sock:
        for start in range(0, end, MB):
            piece = content[start : start + MB]
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked and is_whole:
            sock.sendall(b"0\r\n\r\n")
        return sock.recv(65536) if is_whole else b""


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_file_larger_than_the_cache_streams_through(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path, framing: str
) -> None:
    large = content(1, 150 * MB)
    with share(line, bucket, tmp_path, "--cache-size", "100MB") as server:
        keep_files_small(server, MOST)
        put(server, "/large", b"old")
        with Watch(server.cache) as watch:
            stream(server, large, 120 * MB, framing)
            assert get(server, "/large") == b"old"
            assert stream(server, large, len(large), framing).startswith(b"HTTP/1.1 204 ")
            wait_for_drain(server)
            assert get(server, "/large") == large
        assert watch.peak < MOST, watch.peak / MB
        assert eventually(lambda: not unfinished_uploads(s3_client, bucket))
        assert journal(server, "SELECT * FROM conflict") == []
    assert contents(s3_client, bucket) == {"large": large}


def test_meanwhile_its_client_goes_on_sending(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    """While the store takes what has been received before it was known to be too large."""
    large = content(1, 90 * MB)
    line.slow(3)  # ten parts, three at a time: longer than the client has patience
    with share(line, bucket, tmp_path, "--cache-size", "80MB") as server:
        with upload(server, "/large", "Transfer-Encoding: chunked") as sock:
            sock.settimeout(10)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            for start in range(0, len(large), 32768):
                piece = large[start : start + 32768]
                sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            line.prompt()
            sock.settimeout(PATIENCE)
            assert not list((cache_of(server) / "spool" / "tmp").iterdir()), (
                "its room is free again"
            )
            sock.sendall(b"0\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 201 ")
        assert get(server, "/large") == large
    assert contents(s3_client, bucket) == {"large": large}


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_so_does_what_finds_no_room_when_it_is_written_through(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path, framing: str
) -> None:
    large, half = content(1, 60 * MB), content(2, 30 * MB)
    options = ("--cache-size", "40MB", "--write-mode", "through")
    with share(line, bucket, tmp_path, *options) as server:
        keep_files_small(server, 45 * MB)
        put(server, "/large", b"old")
        with Watch(server.cache) as watch, ThreadPoolExecutor(2) as pool:
            stream(server, large, 50 * MB, framing)
            assert get(server, "/large") == b"old"
            assert stream(server, large, len(large), framing).startswith(b"HTTP/1.1 204 ")
            write = partial(stream, server, half, len(half), framing)
            for answer in pool.map(write, ["/one", "/two"]):
                assert answer.startswith(b"HTTP/1.1 201 ")
            assert get(server, "/large") == large
        assert watch.peak < 45 * MB, watch.peak / MB
        assert eventually(lambda: not unfinished_uploads(s3_client, bucket))
        assert not list((cache_of(server) / "spool" / "tmp").iterdir())
    assert contents(s3_client, bucket) == {"large": large, "one": half, "two": half}


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_killed_process_was_sending_so_is_removed_by_the_next(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path, whole: bool
) -> None:
    """A worker, or the whole server."""
    options = ("--cache-size", "1MB", "--write-mode", "through", "--workers", "1")
    with share(line, bucket, tmp_path, *options) as server:
        put(server, "/large", b"old")
        with upload(server, "/large", f"Content-Length: {60 * MB}") as sock:
            sock.sendall(content(1, 40 * MB))
            assert eventually(lambda: unfinished_uploads(s3_client, bucket))
            if whole:
                server.kill()
            else:
                os.kill(server.workers()[0], signal.SIGKILL)
        if whole:
            server.start()
        assert eventually(lambda: not unfinished_uploads(s3_client, bucket))
        assert get(server, "/large") == b"old"


@pytest.mark.parametrize("store", ["webdav", "dropbox"])
def test_to_other_stores_too(request: pytest.FixtureRequest, tmp_path: Path, store: str) -> None:
    """Where nobody says how long it is."""
    large, target = content(1, 60 * MB), "dropbox:/"
    if store == "webdav":
        target = request.getfixturevalue("dav_store").get_name()
    else:
        request.getfixturevalue("dropbox")
    with serving(target, tmp_path, "--cache-size", "40MB", "--write-back-delay", "0.1") as server:
        keep_files_small(server, 45 * MB)
        put(server, "/large", b"old")
        wait_for_drain(server)
        stream(server, large, 50 * MB)
        assert get(server, "/large") == b"old"
        assert stream(server, large, len(large)).startswith(b"HTTP/1.1 204 ")
        assert get(server, "/large") == large
        assert journal(server, "SELECT * FROM conflict") == []


@pytest.mark.parametrize("mode", ["back", "through"])
def test_what_a_killed_worker_was_receiving_takes_no_room(
    line: Line, bucket: str, tmp_path: Path, mode: str
) -> None:
    options = ("--cache-size", "100MB", "--write-mode", mode)
    with share(line, bucket, tmp_path, *options) as server:
        folder = cache_of(server) / "spool" / "tmp"
        with upload(server, "/broken-off", f"Content-Length: {90 * MB}") as sock:
            sock.sendall(b"begun")
            assert eventually(lambda: any(file.stat().st_size for file in folder.iterdir()))
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)
            put(server, "/whole", content(1, 90 * MB))
        assert eventually(lambda: not list(folder.iterdir()))
        if mode == "back":
            wait_for_drain(server)
