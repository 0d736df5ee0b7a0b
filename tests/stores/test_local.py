"""LocalStore: what only a folder of this machine has to get right."""

import errno
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from davfusion.stores.local import LocalStore
from davfusion.stores.local import store as local_store
from davfusion.stores.local.disk import rename
from davfusion.stores.local.errors import writing
from davfusion.stores.local.workfolder import NAME
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    InvalidPathValueError,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    Store,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
)
from tests.conformance import TREE, StoreConformance, contents, names, put, put_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def store(self, root: Path) -> Store:
        return LocalStore(root)


@pytest.fixture
def outside(tmp_path: Path, root: Path) -> Path:
    """A folder beside the root, with links to it inside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (root / "file").symlink_to(outside / "secret")
    (root / "dir").symlink_to("../outside")
    (root / "new").symlink_to(outside / "not-yet")
    return outside


def test_links_outside_do_not_exist_to_readers(store: LocalStore, outside: Path) -> None:
    assert store.get_directory_metadata("/") == {}
    assert list(store.walk_metadata("/")) == []
    for path in ("/file", "/dir", "/dir/secret", "/new"):
        assert not store.exists(path)
        with pytest.raises(NoSuchFilesytemObjectError):
            store.get_file(path)
        with pytest.raises(NoSuchFilesytemObjectError):
            store.get_directory_metadata(path)
        with pytest.raises(NoSuchFilesytemObjectError):
            store.duplicate(path, "/copy")
        with pytest.raises(NoSuchFilesytemObjectError):
            store.move(path, "/moved")


def test_links_outside_are_refused_to_writers(store: LocalStore, outside: Path) -> None:
    put(store, "/src")
    for path in ("/file", "/dir/secret", "/dir/x", "/dir/x/y", "/new"):
        with pytest.raises(StoreAutorizationError):
            put(store, path, b"overwritten")
        with pytest.raises(StoreAutorizationError):
            store.create_directory(path)
        with pytest.raises(StoreAutorizationError):
            store.duplicate("/src", path)
        with pytest.raises(StoreAutorizationError):
            store.move("/src", path)
        store.delete(path)
        store.delete(path, is_dir=True)
    assert sorted(os.listdir(outside)) == ["secret"]  # noqa: PTH208
    assert (outside / "secret").read_text() == "secret"


def test_a_tree_with_a_link_outside(store: LocalStore, root: Path, outside: Path) -> None:
    put_tree(store, "/tree")
    (root / "tree" / "link").symlink_to(outside)
    store.duplicate("/tree", "/copy")
    assert contents(store, "/copy") == TREE
    assert not os.path.lexists(root / "copy" / "link")
    store.delete("/tree", is_dir=True)
    assert not (root / "tree").exists()
    assert (outside / "secret").exists()


def test_links_inside_work(store: LocalStore, root: Path) -> None:
    put_tree(store, "/tree")
    (root / "link").symlink_to("tree")
    (root / "file").symlink_to("tree/top")
    assert store.get_metadata("/link")["is_dir"]
    assert contents(store, "/link") == TREE
    put(store, "/file", b"through the link")
    assert store.get_file("/tree/top") == b"through the link"
    assert (root / "file").is_symlink()
    put(store, "/link/new", b"below")
    assert store.get_file("/tree/new") == b"below"
    store.delete("/link", is_dir=True)
    store.delete("/file")
    assert names(store, "/") == {"tree"}
    assert store.get_file("/tree/new") == b"below"


def test_links_in_a_circle_end(store: LocalStore, root: Path) -> None:
    put(store, "/a/b/file")
    (root / "a" / "b" / "up").symlink_to("..")
    (root / "a" / "b" / "self").symlink_to(".")
    (root / "a" / "other").symlink_to("../c")
    (root / "c").mkdir()
    (root / "c" / "back").symlink_to("../a")
    (root / "loop").symlink_to("loop")
    assert {path for path, _ in store.walk_metadata("/a")} == {"/a/b", "/a/b/file", "/a/other"}
    assert not store.exists("/loop")


@pytest.mark.timeout(10)
def test_pipes_and_sockets_are_not_there(store: LocalStore, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
    assert store.get_directory_metadata("/") == {}
    for path in ("/pipe", "/socket"):
        assert not store.exists(path)
        with pytest.raises(NoSuchFilesytemObjectError):
            store.open_read(path)
        with pytest.raises(NoSuchFilesytemObjectError):
            store.duplicate(path, "/copy")
        with pytest.raises(StoreAutorizationError):
            put(store, path)
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)


def test_names_that_are_no_text_are_skipped(
    store: LocalStore, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, "/good")
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff")).touch()
    with caplog.at_level(logging.WARNING):
        assert names(store, "/") == {"good"}
    assert "not UTF-8" in caplog.text


def test_the_work_folder_is_out_of_reach(store: LocalStore, root: Path) -> None:
    put(store, "/file")
    assert (root / NAME).is_dir()
    assert names(store, "/") == {"file"}
    (root / "link").symlink_to(NAME)
    for path in (f"/{NAME}", f"/{NAME}/lock", "/link"):
        assert not store.exists(path)
        with pytest.raises(StoreAutorizationError):
            put(store, path)
    with pytest.raises(StoreAutorizationError):
        store.move("/file", f"/{NAME}/file")
    with pytest.raises(InvalidPathValueError):
        store.require_storable(f"/{NAME}/file")
    store.delete(f"/{NAME}", is_dir=True)
    assert (root / NAME).is_dir()


def test_reading_makes_no_work_folder(store: LocalStore, root: Path) -> None:
    store.get_directory_metadata("/")
    assert list(root.iterdir()) == []


def test_mode_of_a_replaced_file_is_kept(store: LocalStore, root: Path) -> None:
    umask = os.umask(0o027)
    try:
        put(store, "/file")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o640
    (root / "file").chmod(0o604)
    put(store, "/file", b"again")
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o604


def test_a_change_by_another_program_is_another_version(store: LocalStore, root: Path) -> None:
    etag = put(store, "/file", b"one")["etag"]
    times = (root / "file").stat()
    (root / "file").write_bytes(b"two")
    os.utime(root / "file", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.get_metadata("/file")["etag"] != etag
    with pytest.raises(ConflictError):
        put(store, "/file", b"three", if_etag=etag)


def test_below_a_file(store: LocalStore) -> None:
    put(store, "/file")
    assert not store.exists("/file/below")
    for call in (
        lambda: put(store, "/file/below"),
        lambda: put(store, "/file/deep/below"),
        lambda: store.create_directory("/file/below"),
    ):
        with pytest.raises(StoreAccessError) as caught:
            call()
        assert caught.value.status == 409


def test_a_name_that_is_too_long(store: LocalStore) -> None:
    for path in ("/" + "x" * 256, "/" + "é" * 128, "/12345678" * 1000):
        assert not store.exists(path)
        with pytest.raises(StoreAccessError) as caught:
            put(store, path)
        assert caught.value.status == 414
        with pytest.raises(InvalidPathValueError):
            store.require_storable(path)
    for name in ("x" * 255, "é" * 127):
        store.require_storable(f"/{name}")
        put(store, f"/{name}")


def test_a_folder_without_permission(store: LocalStore, root: Path) -> None:
    put_tree(store, "/tree")
    (root / "tree" / "sub").chmod(0o500)
    if os.access(root / "tree" / "sub", os.W_OK):
        pytest.skip("the superuser may do everything")
    try:
        with pytest.raises(StoreAutorizationError):
            put(store, "/tree/sub/new")
        with pytest.raises(PartialFailureError) as caught:
            store.delete("/tree", is_dir=True)
    finally:
        (root / "tree" / "sub").chmod(0o700)
    assert set(caught.value.failures) == {"/tree/sub/file", "/tree/sub/deep"}
    assert names(store, "/tree") == {"sub"}


def test_a_full_disk(store: LocalStore, root: Path) -> None:
    put(store, "/file", b"old")
    program = f"""
import io, resource, signal
from davfusion.stores.local import LocalStore
from davfusion.stores.store import StoreSpaceLimitError
store = LocalStore({str(root)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    store.store_fileobject(io.BytesIO(b"n" * 2_000_000), "/file")
except StoreSpaceLimitError as error:
    print(error.status)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "413\n"
    assert store.get_file("/file") == b"old"


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 507), (errno.EDQUOT, 507)])
def test_no_space_left(number: int, status: int) -> None:
    with pytest.raises(StoreSpaceLimitError) as caught, writing("/file"):
        raise OSError(number, os.strerror(number))
    assert caught.value.status == status


def test_the_root_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoSuchFilesytemObjectError):
        LocalStore(tmp_path / "none")
    with pytest.raises(StoreAccessError):
        LocalStore(tmp_path / "file")


def test_a_root_that_is_a_link(tmp_path: Path, root: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    store = LocalStore(str(tmp_path / "link"))
    put(store, "/file")
    assert (root / "file").read_bytes() == b"content"


def test_space_is_that_of_the_disk(store: LocalStore) -> None:
    assert 0 < store.get_used_space() <= store.get_overall_space()
    assert store.get_free_space() <= store.get_overall_space()


def forbid(monkeypatch: pytest.MonkeyPatch, *forbidden: Path) -> None:
    """Refuse to read these files and folders, which a superuser may read all the same."""
    scandir, copyfile = os.scandir, shutil.copyfile

    def refuse(path: Path) -> None:
        if path in forbidden:
            raise PermissionError(errno.EACCES, "no", str(path))

    def list_folder(path: Path) -> Iterator[os.DirEntry[str]]:
        refuse(path)
        return scandir(path)

    def copy(src: Path, dst: Path) -> Path:
        refuse(src)
        return copyfile(src, dst)

    def open_at_once(path: Path) -> BinaryIO:
        refuse(path)
        return path.open("rb")

    monkeypatch.setattr(os, "scandir", list_folder)
    monkeypatch.setattr(shutil, "copyfile", copy)
    monkeypatch.setattr(local_store, "open_file", open_at_once)


def test_a_walk_leaves_out_what_cannot_be_read(
    store: LocalStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for path in ("/a/file", "/secret/file", "/z/file"):
        put(store, path)
    forbid(monkeypatch, root / "secret")
    walked = {path for path, _ in store.walk_metadata("/")}
    assert walked == {"/a", "/a/file", "/secret", "/z", "/z/file"}
    assert "/secret" in caplog.text
    with pytest.raises(StoreAutorizationError):
        list(store.walk_metadata("/secret"))


def test_nobody_makes_a_folder_where_something_is_moving_to(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tree(store, "/dir")
    beside = LocalStore(root)
    with ThreadPoolExecutor(1) as other:

        def meanwhile(*ends: Any) -> None:
            made.append(other.submit(beside.create_directory, "/new"))
            with suppress(TimeoutError):  # it waits for the lock
                made[0].result(0.1)
            rename(*ends)

        made: list[Future[None]] = []
        monkeypatch.setattr(local_store, "rename", meanwhile)
        store.move("/dir", "/new", replace=False)
        with pytest.raises(AlreadyExistsError):
            made[0].result()
    assert contents(store, "/new") == TREE


def test_a_walk_goes_on_behind_what_vanishes(store: LocalStore) -> None:
    for path in ("/a/file", "/b/file", "/c/file"):
        put(store, path)
    walked = []
    for path, metadata in store.walk_metadata("/"):
        walked.append(path)
        if metadata["is_dir"]:
            store.delete(path, is_dir=True)
    assert sorted(walked) == ["/a", "/b", "/c"]
    with pytest.raises(NoSuchFilesytemObjectError):
        list(store.walk_metadata("/a"))


def test_a_copy_goes_on_past_a_member_that_cannot_be_read(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tree(store, "/src", {**TREE, "secret": b"new"})
    put_tree(store, "/dst", {"secret": b"old", "besides": b"old"})
    forbid(monkeypatch, root / "src" / "secret")
    with pytest.raises(PartialFailureError) as caught:
        store.duplicate("/src", "/dst")
    assert set(caught.value.failures) == {"/src/secret"}
    assert contents(store, "/dst") == {**TREE, "secret": b"old", "besides": b"old"}


def test_a_file_that_comes_while_its_folder_is_deleted_stays(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client may try again: that is no failure of the server."""
    put(store, "/folder/old")
    remove = Path.rmdir

    def rmdir(folder: Path) -> None:
        (folder / "new").write_bytes(b"new")
        remove(folder)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    with pytest.raises(PartialFailureError) as raised:
        store.delete("/folder", is_dir=True)
    assert {path: error.status for path, error in raised.value.failures.items()} == {"/folder": 409}
    assert contents(store, "/") == {"folder": None, "folder/new": b"new"}
