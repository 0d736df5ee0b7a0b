"""CachingStore: writes are received whole, then go through; the folder has one owner."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import BinaryIO

import pytest

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.filestore import SPACES, FileStore
from davfusion.cache.folder import CacheFolder, CacheInUseError, cache_id_for
from davfusion.cache.room import SPARE
from davfusion.stores.local import LocalStore
from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.source import SMALL
from davfusion.stores.store import (
    InterruptedException,
    Store,
    StoreSpaceLimitError,
    TransientStoreError,
)
from davfusion.stores.streams import COPY_BUFFER
from davfusion.stores.wrapper import P, R, StoreWrapper
from tests.remote import RemoteStore


class BrokenSource:
    """Gives some bytes and then breaks off."""

    def __init__(self, error: Exception) -> None:
        self._pieces = iter([b"some", b"bytes"])
        self._error = error

    def read(self, _size: int = -1, /) -> bytes:
        piece = next(self._pieces, None)
        if piece is None:
            raise self._error
        return piece


class RefusingStore(StoreWrapper):
    """Reads what is to be stored twice, as a retry does, and refuses it."""

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if method == self._store.store_fileobject:
            source = args[0]
            assert isinstance(source, io.IOBase)
            assert source.read() == b"new"
            source.seek(0)
            assert source.read() == b"new"
            raise TransientStoreError("no")
        return method(*args, **kwargs)


def spooled(folder: Path) -> list[str]:
    return [path for space in SPACES for path in FileStore(folder / "id" / "spool").list(space)]


def share(tmp_path: Path, store: Store) -> CachingStore:
    return CachingStore(store, cache_id="id", cache_dir=tmp_path)


def test_a_write_reaches_the_store_before_the_call_returns(tmp_path: Path) -> None:
    store = MemoryStore()
    metadata = share(tmp_path, store).store_fileobject(io.BytesIO(b"new"), "/a", modified=7.0)
    assert store.get_file("/a") == b"new"
    assert metadata == store.get_metadata("/a")
    assert spooled(tmp_path) == []


class WatchingSource(io.BytesIO):
    """Sees, each time it is read, what lies in the spool."""

    def __init__(self, content: bytes, folder: Path) -> None:
        super().__init__(content)
        self.seen: list[str] = []
        self._folder = folder

    def read(self, size: int | None = -1, /) -> bytes:
        self.seen += spooled(self._folder)
        return super().read(size)


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_a_folder_receives_by_itself_is_not_written_twice(
    tmp_path: Path, is_folder: bool
) -> None:
    (tmp_path / "files").mkdir()
    store = share(tmp_path, LocalStore(tmp_path / "files") if is_folder else MemoryStore())
    source = WatchingSource(bytes(4 * SMALL), tmp_path)
    store.store_fileobject(source, "/a")
    assert bool(source.seen) is not is_folder
    with pytest.raises(OSError, match="cut off"):
        store.store_fileobject(BrokenSource(OSError("cut off")), "/a")
    assert store.get_file("/a") == bytes(4 * SMALL)
    assert spooled(tmp_path) == []


def test_the_folder_is_private(tmp_path: Path) -> None:
    share(tmp_path, MemoryStore())
    assert (tmp_path / "id").stat().st_mode & 0o777 == 0o700


def test_an_existing_folder_is_made_private_and_so_are_its_databases(tmp_path: Path) -> None:
    (tmp_path / "id").mkdir(mode=0o755)
    folder = CacheFolder(tmp_path, "id")
    folder.claim()
    folder.listings.record_entry("/a", None, folder.listings.begin(0, 1))
    assert folder.path.stat().st_mode & 0o777 == 0o700
    databases = list(folder.path.glob("*.sqlite*"))
    assert {path.name for path in databases} >= {"listings.sqlite", "listings.sqlite-wal"}
    for path in folder.path.glob("*.sqlite*"):
        assert path.name.endswith(".lock") or path.stat().st_mode & 0o777 == 0o600, path
    folder.release()


def test_recovery_prunes_the_listings(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, "id")
    folder.claim()
    folder.recover()
    assert not list(folder.path.glob("listings.sqlite"))
    folder.listings.record_entry("/a", None, folder.listings.begin(0, 1))
    folder.recover()
    assert folder.listings.recall("/a") is None
    folder.release()


@pytest.mark.parametrize("error", [OSError("connection lost"), ValueError("digest")])
def test_a_source_that_breaks_off_leaves_the_old_content(tmp_path: Path, error: Exception) -> None:
    store = MemoryStore()
    cached = share(tmp_path, store)
    before = cached.store_fileobject(io.BytesIO(b"old"), "/a")
    with pytest.raises(type(error)):
        cached.store_fileobject(BrokenSource(error), "/a")
    assert cached.get_file("/a") == b"old"
    assert cached.get_metadata("/a") == before == store.get_metadata("/a")
    assert spooled(tmp_path) == []


def test_a_refused_write_leaves_no_spool_file(tmp_path: Path) -> None:
    with pytest.raises(TransientStoreError):
        share(tmp_path, RefusingStore(MemoryStore())).store_fileobject(io.BytesIO(b"new"), "/a")
    assert spooled(tmp_path) == []


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    event = Event()
    event.set()
    store = MemoryStore()
    with pytest.raises(InterruptedException):
        share(tmp_path, store).store_fileobject(io.BytesIO(b"new"), "/a", event)
    assert not store.exists("/a")
    assert spooled(tmp_path) == []


class FullDisk(io.FileIO):
    """A file of a disk that has just become full."""

    def write(self, _data: object, /) -> int:
        raise OSError(errno.ENOSPC, "full")


def test_a_full_disk_is_a_space_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(files: FileStore, name: str, mode: str) -> BinaryIO:
        return io.BufferedWriter(FullDisk(files.path(name, "tmp"), mode))

    cached = share(tmp_path, MemoryStore())
    monkeypatch.setattr(FileStore, "create", full)
    with pytest.raises(StoreSpaceLimitError) as failure:
        cached.store_fileobject(io.BytesIO(b"new"), "/a")
    assert failure.value.status == 507
    assert spooled(tmp_path) == []


class Coming:
    """An upload before whose last bytes something else happens."""

    def __init__(self, content: bytes, size: int | None, meanwhile: Callable[[], object]) -> None:
        self.size = size
        self._content = io.BytesIO(content)
        self._end = len(content)
        self._meanwhile = meanwhile

    def read(self, size: int = -1, /) -> bytes:
        data = self._content.read(size)
        if data and self._content.tell() == self._end:
            self._meanwhile()
        return data


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "untold"])
@pytest.mark.parametrize("size", [3, 6], ids=["one finds room", "none does"])
def test_what_finds_no_room_in_the_spool_goes_straight_to_the_store(
    tmp_path: Path, size: int, is_told: bool
) -> None:
    store, most = RemoteStore(), []
    cached = CachingStore(store, cache_size_in_mb=4, cache_id="id", cache_dir=tmp_path)
    old, new = os.urandom(1 << 20), os.urandom(size << 20)
    cached.store_fileobject(io.BytesIO(old), "/kept in blocks")

    def measure() -> None:
        contents = [*tmp_path.glob("id/spool/tmp/*"), *tmp_path.glob("id/blocks/**/*.val")]
        most.append(sum(path.stat().st_size for path in contents))

    def second() -> None:
        measure()
        cached.store_fileobject(Coming(new, len(new) if is_told else None, measure), "/second")

    cached.store_fileobject(Coming(new, len(new) if is_told else None, second), "/first")
    assert len(most) == 2
    assert max(most) <= 4 << 20
    assert store.get_file("/first") == store.get_file("/second") == new
    assert cached.get_file("/first") == cached.get_file("/second") == new
    assert cached.get_file("/kept in blocks") == old
    assert spooled(tmp_path) == []


def test_a_large_source_that_breaks_off_leaves_the_old_content(tmp_path: Path) -> None:
    """What has been received when it turns out too large does not stay either."""
    store = RemoteStore()
    cached = CachingStore(store, cache_size_in_mb=1, cache_id="id", cache_dir=tmp_path)
    before = cached.store_fileobject(io.BytesIO(b"old"), "/a")

    def break_off() -> None:
        raise OSError("connection lost")

    with pytest.raises(OSError, match="connection lost"):
        cached.store_fileobject(Coming(bytes(4 << 20), None, break_off), "/a")
    assert cached.get_file("/a") == store.get_file("/a") == b"old"
    assert cached.get_metadata("/a") == before
    assert spooled(tmp_path) == []


def test_what_the_disk_has_no_room_for_goes_straight_to_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    cached = share(tmp_path, store)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=SPARE))

    def measure() -> None:
        assert sum(Path(path).stat().st_size for path in spooled(tmp_path)) == 0

    cached.store_fileobject(Coming(b"new" * COPY_BUFFER, None, measure), "/a")
    assert store.get_file("/a") == b"new" * COPY_BUFFER


def test_what_goes_through_is_not_flushed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    cached = share(tmp_path, MemoryStore())
    monkeypatch.setattr(os, "fsync", flushed.append)
    cached.store_fileobject(io.BytesIO(b"new"), "/a")
    assert flushed == []


def test_a_file_too_large_for_the_store_is_refused_while_it_comes(tmp_path: Path) -> None:
    cached = share(tmp_path, MemoryStore(MemoryTree(largest_object=4)))
    with pytest.raises(StoreSpaceLimitError) as failure:
        cached.store_fileobject(BrokenSource(AssertionError("read on")), "/a")
    assert failure.value.status == 413


KILLED = """
import os, signal, sys
from davfusion.cache.caching_store import CachingStore
from davfusion.stores.memory import MemoryStore

class Source:
    calls = 0
    def read(self, size=-1):
        self.calls += 1
        if self.calls > 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(300_000)

CachingStore(MemoryStore(), cache_id="id", cache_dir=sys.argv[1]).store_fileobject(Source(), "/a")
"""


def test_what_a_killed_process_was_receiving_is_swept_by_recover(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    store = MemoryStore()
    cached = share(tmp_path, store)
    assert [Path(path).parent.name for path in spooled(tmp_path)] == ["tmp"]
    assert cached.get_directory_metadata("/") == {}
    CacheFolder(tmp_path, "id").recover()
    assert spooled(tmp_path) == []


def test_a_cache_folder_has_one_owner(tmp_path: Path) -> None:
    owner, other = CacheFolder(tmp_path, "id"), CacheFolder(tmp_path, "id")
    owner.claim()
    with pytest.raises(CacheInUseError, match=str(tmp_path)):
        other.claim()
    another = CacheFolder(tmp_path, "another")
    another.claim()
    another.release()
    owner.release()
    other.claim()
    other.release()


@pytest.mark.parametrize("cache_id", ["..", "a/b", "a\\b", "\0"])
def test_a_cache_id_is_one_name(tmp_path: Path, cache_id: str) -> None:
    with pytest.raises(ValueError, match="not usable"):
        CachingStore(MemoryStore(), cache_id=cache_id, cache_dir=tmp_path)


def test_the_cache_id_made_from_a_name() -> None:
    made = cache_id_for("s3://bucket/some prefix/ä")
    assert made == cache_id_for("s3://bucket/some prefix/ä")
    assert made != cache_id_for("s3://bucket/some prefix/ö")
    assert made.isascii()
    assert "/" not in made


def test_documented_methods(tmp_path: Path) -> None:
    store = MemoryStore()
    cached = CachingStore(store, 30, 100, "id", tmp_path)
    assert cached.get_cache_expiration_time() == 30
    cached.store_fileobject(io.BytesIO(b"old"), "/a")
    assert not cached.is_cached_version_invalid("/a")
    store.store_fileobject(io.BytesIO(b"newer"), "/a")
    assert cached.is_cached_version_invalid("/a")
    assert cached.is_cached_version_invalid("/absent")
