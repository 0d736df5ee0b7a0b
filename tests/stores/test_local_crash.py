"""LocalStore beside other processes, after crashes, and across file systems."""

import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from davfusion.platform import START_METHOD
from davfusion.stores.local import LocalStore
from davfusion.stores.local.workfolder import NAME, WorkFolder
from davfusion.stores.store import ABSENT, ConflictError, TransientStoreError
from tests.conformance import BINARY, TREE, contents, put, put_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def left_over(root: Path) -> list[str]:
    """What the work folder holds besides the lock and the sign of life."""
    return [path.name for path in (root / NAME).glob("*/*") if path.name != "alive"]


KILLED = """
import io, os, signal, sys
from davfusion.stores.local import LocalStore
class Source:
    left = 4
    def read(self, size=-1):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return b"n" * 200_000
LocalStore(sys.argv[1]).store_fileobject(Source(), "/file")
"""


def test_kill_in_the_middle_of_a_write(store: LocalStore, root: Path) -> None:
    etag = put(store, "/file", b"old")["etag"]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert contents(store, "/") == {"file": b"old"}
    assert store.get_metadata("/file")["etag"] == etag
    assert len(left_over(root)) == 1
    LocalStore(root)
    assert left_over(root) == []


def test_leftovers_of_the_living_stay(store: LocalStore, root: Path) -> None:
    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert len(left_over(root)) == 1
            LocalStore(root)
            assert len(left_over(root)) == 1
            return super().read(size)

    store.store_fileobject(Source(BINARY), "/file")
    assert store.get_file("/file") == BINARY
    assert left_over(root) == []


CRASHED_MOVE = """
import os, pathlib, sys
from davfusion.stores.local import disk
from davfusion.stores.local import LocalStore
def crash(event, args):
    if event == "os.rename" and args[0].endswith("/src"):
        os._exit(9)
store = LocalStore(sys.argv[1])
sys.addaudithook(crash)
store.move("/src", "/dst")
"""


def test_a_crash_between_taking_away_and_replacing(store: LocalStore, root: Path) -> None:
    put_tree(store, "/src")
    put(store, "/dst/old", b"old")
    crashed = subprocess.run([sys.executable, "-c", CRASHED_MOVE, str(root)], check=False)
    assert crashed.returncode == 9
    assert not store.exists("/dst")
    again = LocalStore(root)
    assert again.get_file("/dst/old") == b"old"
    assert contents(again, "/src") == TREE


CRASHED_REMOVAL = """
import os, sys
from davfusion.stores.local import LocalStore
def crash(event, args):
    if event == "os.remove" and args[0] == "y":
        os._exit(9)
store = LocalStore(sys.argv[1])
sys.addaudithook(crash)
store.move("/src", "/dst")
"""


def test_a_crash_while_what_was_replaced_is_removed(store: LocalStore, root: Path) -> None:
    """Half of it is never brought back, whatever has become of the new since."""
    put_tree(store, "/src", {"new": b"new"})
    put_tree(store, "/dst", {"x": None, "x/y": b"old", "z": b"old"})
    crashed = subprocess.run([sys.executable, "-c", CRASHED_REMOVAL, str(root)], check=False)
    assert crashed.returncode == 9
    assert contents(store, "/dst") == {"new": b"new"}
    store.delete("/dst", is_dir=True)
    assert contents(LocalStore(root), "/") == {}
    assert left_over(root) == []


def test_what_a_client_copies_is_never_taken_for_what_was_taken_away(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    put_tree(store, "/src", {"origin": str(tmp_path / "planted").encode(), "content": b"evil"})
    crash = CRASHED_MOVE.replace('args[0].endswith("/src")', 'args[1].endswith("/dst")')
    crash = crash.replace('store.move("/src", "/dst")', 'store.duplicate("/src", "/dst")')
    crashed = subprocess.run([sys.executable, "-c", crash, str(root)], check=False)
    assert crashed.returncode == 9
    LocalStore(root)
    assert left_over(root) == []
    assert not (tmp_path / "planted").exists()


ANOTHER_FILE_SYSTEM = """
import io, pathlib, subprocess, sys
from davfusion.stores.local import LocalStore
from davfusion.stores.store import ABSENT, ConflictError
from tests.conformance import TREE, contents, put, put_tree
root = pathlib.Path(sys.argv[1])
(root / "mounted").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "none", root / "mounted"], check=True)
store = LocalStore(root)
put(store, "/mounted/file", b"one")
put(store, "/mounted/file", b"two")
put(store, "/mounted/deep/new", b"new", if_etag=ABSENT)
try:
    put(store, "/mounted/deep/new", b"again", if_etag=ABSENT)
except ConflictError:
    print("refused")
assert store.get_file("/mounted/file") == b"two"
put_tree(store, "/tree")
put_tree(store, "/mounted/tree", {"old": b"old"})
store.duplicate("/tree", "/mounted/tree")
assert contents(store, "/mounted/tree") == TREE
store.move("/tree", "/mounted/moved")
assert not store.exists("/tree")
store.move("/mounted/moved", "/back")
assert contents(store, "/back") == TREE
assert set(store.get_directory_metadata("/mounted")) == {"file", "deep", "tree"}
assert contents(LocalStore(root), "/mounted/deep") == {"new": b"new"}
"""


def with_mounts(program: str, root: Path) -> str:
    """What `program`, which may mount what nobody else sees, writes."""
    alone = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("this system gives no mount namespace")
    done = subprocess.run(
        [*alone, sys.executable, "-c", program, str(root)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_a_second_file_system_below_the_root(root: Path) -> None:
    assert with_mounts(ANOTHER_FILE_SYSTEM, root) == "refused\n"


FULL_DISK = """
import pathlib, subprocess, sys
from davfusion.stores.local import LocalStore
from davfusion.stores.local.workfolder import NAME
from davfusion.stores.store import StoreSpaceLimitError
from tests.conformance import contents, put_tree
root = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", root], check=True)
store = LocalStore(root)
put_tree(store, "/src", {"first": b"new", "large": bytes(2_000_000)})
put_tree(store, "/dst", {"first": b"old", "large": b"old"})
try:
    store.duplicate("/src", "/dst")
except StoreSpaceLimitError as error:
    print(error.status)
assert contents(store, "/dst") == {"first": b"old", "large": b"old"}
assert [path.name for path in (root / NAME).glob("*/*")] == ["alive"]
"""


def test_a_copy_that_fills_the_disk_changes_nothing(root: Path) -> None:
    assert with_mounts(FULL_DISK, root) == "507\n"


def _create(root: str, content: bytes) -> bool:
    try:
        LocalStore(root).store_fileobject(io.BytesIO(content), "/file", if_etag=ABSENT)
    except ConflictError:
        return False
    return True


def test_one_of_several_processes_creates(root: Path) -> None:
    versions = [bytes([65 + n]) * 100_000 for n in range(4)]
    with multiprocessing.get_context(START_METHOD).Pool(4) as pool:
        won = pool.starmap(_create, [(str(root), content) for content in versions])
        pool.close()
        pool.join()
    assert won.count(True) == 1
    assert (root / "file").read_bytes() == versions[won.index(True)]


def _count(root: str) -> int:
    """Add one to the number in /n, twenty times, by conditional writes."""
    store, refused = LocalStore(root), 0
    for _ in range(20):
        while True:
            etag = store.get_metadata("/n")["etag"]
            try:
                with store.open_read("/n", etag=etag) as stream:
                    number = int(stream.read())
                put(store, "/n", b"%d" % (number + 1), if_etag=etag)
                break
            except ConflictError:
                refused += 1
    return refused


def test_no_conditional_write_is_lost(store: LocalStore, root: Path) -> None:
    put(store, "/n", b"0")
    with multiprocessing.get_context(START_METHOD).Pool(3) as pool:
        pool.map(_count, [str(root)] * 3)
        pool.close()
        pool.join()
    assert store.get_file("/n") == b"60"


def test_what_a_failed_replacement_took_away_comes_back(root: Path) -> None:
    (root / "dir").mkdir()
    work = WorkFolder(root)
    with work.lock():
        with pytest.raises(FileNotFoundError), work.without(root / "dir"):
            (root / "dir").rmdir()
        assert (root / "dir").is_dir()
    assert left_over(root) == []


REFUSED_MOVE = """
import sys
from davfusion.stores.local import LocalStore
def refuse(event, args):
    if event == "os.rename" and args[0].endswith(("/src", "/content")):
        raise PermissionError(13, "refused")
sys.addaudithook(refuse)
LocalStore(sys.argv[1]).move("/src", "/dst")
"""


def test_what_cannot_be_put_back_at_once_is_kept(store: LocalStore, root: Path) -> None:
    put_tree(store, "/src")
    put(store, "/dst/old", b"old")
    done = subprocess.run(
        [sys.executable, "-c", REFUSED_MOVE, str(root)], check=False, capture_output=True, text=True
    )
    assert "could not be put back" in done.stderr
    assert not store.exists("/dst")
    again = LocalStore(root)
    assert again.get_file("/dst/old") == b"old"
    assert left_over(root) == []


def test_the_place_of_what_is_taken_away_is_on_the_disk_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "dir").mkdir()
    work = WorkFolder(root)
    synced: set[int] = set()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    with work.lock(), work.without(root / "dir"):
        (box,) = (root / NAME).glob("*/*.box")
        needed = (box / "origin", box, box.parent, root / NAME, root)
        assert {path.stat().st_ino for path in needed} <= synced


def test_the_work_folder_may_be_removed_at_any_time(store: LocalStore, root: Path) -> None:
    put(store, "/file")
    shutil.rmtree(root / NAME)
    put(store, "/file", b"again")
    shutil.rmtree(root / NAME)
    store.duplicate("/file", "/copy")
    put_tree(store, "/tree")
    put_tree(store, "/other")
    shutil.rmtree(root / NAME)
    store.move("/tree", "/other")
    assert store.get_file("/copy") == b"again"
    assert contents(store, "/other") == TREE


def test_a_work_folder_that_goes_during_a_write_is_not_a_missing_file(
    store: LocalStore, root: Path
) -> None:
    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            shutil.rmtree(root / NAME, ignore_errors=True)
            return super().read(size)

    with pytest.raises(TransientStoreError):
        store.store_fileobject(Source(b"new"), "/file")
    put(store, "/file", b"new")
    assert store.get_file("/file") == b"new"
