"""The disk of the cache is full, for real: a small file system of its own."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from davfusion.cache.asides import NotedAsides
from davfusion.cache.room import SPARE
from davfusion.stores.memory import MemoryStore
from tests.live.drive import ask, cache_of, contents, eventually, get, journal, put, wait_for_drain
from tests.live.line import Line, line, share
from tests.live.serving import Serving

__all__ = ["line"]
pytestmark = [pytest.mark.live, pytest.mark.slow]
MB = 1 << 20
SIZE = 3 * MB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """64 MB, where servers of `tmp_path` keep their cache."""
    folder = tmp_path / "cache"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "davfusion-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left of the disk; removing the file gives it back."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (MB, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    assert os.statvfs(disk).f_bfree == 0
    return ballast


def content(name: str) -> bytes:
    return name.encode().ljust(64) * (SIZE // 64)


def write_until_full(server: Serving, prefix: str) -> list[str]:
    written: list[str] = []
    while True:
        name = f"{prefix} {len(written)}"
        free = os.statvfs(server.cache).f_bavail * 4096
        if free < SIZE + SPARE:
            return written
        put(server, f"/{name}", content(name))
        written.append(name)


def test_reads_go_on_and_nothing_is_torn(
    disk: Path, line: Line, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    with share(line, bucket, tmp_path) as server:
        put(server, "/known", content("known"))
        wait_for_drain(server)
        line.cut()
        written = write_until_full(server, "file")
        assert len(written) >= 15
        for name in written:
            assert get(server, f"/{name}") == content(name)
        for reserve in disk.glob("*/reserve"):
            reserve.unlink()  # at its own time, the mover would have the disk full no more
        ballast = fill(disk)
        with ThreadPoolExecutor(6) as pool:
            bodies = {f"/{written[0]}": content("torn"), "/small": b"small"} | {
                "/chunked": iter([b"piece"] * 3)
            }
            for answer in pool.map(lambda path: ask(server, "PUT", path, bodies[path]), bodies):
                assert answer.status == 507
        os.truncate(ballast, ballast.stat().st_size - 4 * MB)
        made = set(make_folders(server))
        assert made
        for name in written:
            assert get(server, f"/{name}") == content(name)
        server.kill()
    with share(line, bucket, tmp_path) as server:
        for name in written:
            assert get(server, f"/{name}") == content(name)
        ballast.unlink()
        put(server, "/small", b"small")
        line.up()
        wait_for_drain(server)
        assert eventually(lambda: not list(disk.glob("*/spool/cur/*")))
        put(server, "/again", content("again"))
        wait_for_drain(server)
        assert journal(server, "SELECT * FROM conflict") == []
    stored = contents(s3_client, bucket)
    assert stored == {name: content(name) for name in [*written, "again"]} | {
        "known": content("known"),
        "small": b"small",
    }
    folders = s3_client.list_objects_v2(Bucket=bucket, Prefix="folder")["Contents"]
    assert {entry["Key"] for entry in folders} == made


def make_folders(server: Serving) -> Iterator[str]:
    """MKCOL until the journal itself cannot grow; the keys of those that were acknowledged."""
    for number in range(3000):
        answer = ask(server, "MKCOL", f"/folder {number} {'x' * 200}")
        if answer.status == 507:
            return
        assert answer.status == 201, answer
        yield f"folder {number} {'x' * 200}/"
    raise AssertionError("the journal grows on a full disk")


def test_the_store_drains_a_full_disk(
    disk: Path, line: Line, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    with share(line, bucket, tmp_path) as server:
        line.cut()
        written = write_until_full(server, "file")
        ballast = fill(disk)
        line.up()
        wait_for_drain(server)
        ballast.unlink()
        put(server, "/more", content("more"))
        wait_for_drain(server)
    assert contents(s3_client, bucket) == {name: content(name) for name in [*written, "more"]}


def note_something_beside(path: Path) -> None:
    """As a COPY from another share does; nothing of it is left but the file of the notes."""
    with (
        suppress(LookupError),
        closing(NotedAsides(path, lambda _: None)) as asides,
        asides.replacing(MemoryStore(), "/place", is_dir=True),
    ):
        raise LookupError
    assert path.exists()


def test_written_through_reads_go_on_and_nothing_is_torn(
    disk: Path, line: Line, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    """So it is for a server that has just been started; a write may find a way past the disk."""
    expected = {name: content(name) for name in ("known", "old")}
    with share(line, bucket, tmp_path, "--write-mode", "through") as server:
        for name, body in expected.items():
            put(server, f"/{name}", body)
        note_something_beside(cache_of(server) / "asides.sqlite")
    ballast = fill(disk)
    with share(line, bucket, tmp_path, "--write-mode", "through") as server:
        assert [get(server, "/known") for _ in range(4)] == [content("known")] * 4
        bodies = {"large": content("large"), "old": content("torn"), "small": b"small"}
        for name, body in bodies.items():
            answer = ask(server, "PUT", f"/{name}", body)
            assert answer.status in (201, 204, 507), answer
            if answer.status != 507:
                expected[name] = body
        for name, body in expected.items():
            assert get(server, f"/{name}") == body
        ballast.unlink()
        put(server, "/again", content("again"))
    assert contents(s3_client, bucket) == {**expected, "again": content("again")}
