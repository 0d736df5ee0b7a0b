"""Copying between stores: what fails leaves the old content, and memory stays small."""

import io
import tracemalloc
from pathlib import Path
from typing import BinaryIO, Unpack

import pytest

from davfusion.stores import source
from davfusion.stores.fsspec import gathering
from davfusion.stores.local import LocalStore
from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    InterruptEvent,
    InvalidPathValueError,
    Metadata,
    PartialFailureError,
    ReadableStream,
    SourceStream,
    Store,
    StoreSpaceLimitError,
    TransientStoreError,
    WriteOptions,
)
from davfusion.stores.transfer import copy_between, move_between
from tests.cache import writeback
from tests.conformance import TREE, contents, names, put, put_tree


class Unreadable(MemoryStore):
    """Cannot read files called `bad`."""

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        if path.endswith("/bad"):
            raise TransientStoreError("cannot be read")
        return super().open_read(path, offset, length, etag)


class Stream(io.BytesIO):
    """As a connection: it cannot seek."""

    def seekable(self) -> bool:
        return False


class Remote(MemoryStore):
    """Gives streams that cannot seek, `cut` bytes short, and takes only sources that can."""

    cut = 0

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        with super().open_read(path, offset, length, etag) as stream:
            content = stream.read()
        return Stream(content[: len(content) - self.cut])

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,
    ) -> Metadata:
        assert fileobject.seekable()  # type: ignore[attr-defined]
        return super().store_fileobject(
            fileobject,
            path,
            interrupt_event,
            if_etag=if_etag,
            modified=modified,
            content_type=content_type,
        )


@pytest.fixture
def target() -> Store:
    return MemoryStore()


def test_a_tree_replaces_a_tree(target: Store) -> None:
    source = Remote()
    put_tree(source, "/src")
    put_tree(target, "/dst", {"old": b"old", "sub": b"file", "top": None, "top/x": b"x"})
    copy_between(source, "/src", target, "/dst")
    assert contents(target, "/dst") == contents(source, "/src") == TREE
    assert names(target, "/") == {"dst"}


def test_failures_are_gathered_and_the_source_stays(target: Store) -> None:
    source = Unreadable()
    put_tree(source, "/src", {**TREE, "bad": b"1", "sub/bad": b"2"})
    before = {path for path, _ in source.walk_metadata("/src")}
    put_tree(target, "/dst", {"bad": b"old", "gone": b""})
    with pytest.raises(PartialFailureError) as caught:
        move_between(source, "/src", target, "/dst")
    assert set(caught.value.failures) == {"/src/bad", "/src/sub/bad"}
    assert contents(target, "/dst") == {**TREE, "bad": b"old", "gone": b""}
    assert {path for path, _ in source.walk_metadata("/src")} == before


def test_a_file_stands_until_the_whole_directory_can_replace_it(target: Store) -> None:
    source = Unreadable()
    put_tree(source, "/src", {**TREE, "sub/bad": b"1"})
    put(target, "/dst", b"old")
    with pytest.raises(PartialFailureError) as caught:
        move_between(source, "/src", target, "/dst")
    assert set(caught.value.failures) == {"/src/sub/bad"}
    assert contents(target, "/") == {"dst": b"old"}
    assert {path for path, _ in source.walk_metadata("/src")} == {
        f"/src/{name}" for name in (*TREE, "sub/bad")
    }


def test_a_directory_stands_until_the_file_can_replace_it() -> None:
    source, target = MemoryStore(), MemoryStore(MemoryTree(capacity=10_000))
    put(source, "/src", b"x" * 9_000)
    put_tree(target, "/dst")
    with pytest.raises(StoreSpaceLimitError):
        copy_between(source, "/src", target, "/dst")
    assert contents(target, "/") == {"dst": None, **{f"dst/{k}": v for k, v in TREE.items()}}


def test_a_stream_that_ends_early_is_an_error(target: Store) -> None:
    source = Remote()
    put(source, "/src", b"complete")
    put(target, "/dst", b"old")
    source.cut = 1
    with pytest.raises(TransientStoreError, match="7 of 8"):
        copy_between(source, "/src", target, "/dst")
    assert target.get_file("/dst") == b"old"


def test_what_arrives_during_a_move_is_not_deleted(target: Store) -> None:
    class Busy(MemoryStore):
        def open_read(
            self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
        ) -> ReadableStream:
            put(self, "/src/late", b"late")
            return super().open_read(path, offset, length, etag)

    source = Busy()
    put(source, "/src/early")
    move_between(source, "/src", target, "/dst")
    assert names(source, "/src") == {"late"}
    assert names(target, "/dst") == {"early"}


def test_what_changes_during_a_move_is_not_deleted(target: Store) -> None:
    class Editing(MemoryStore):
        def open_read(
            self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
        ) -> ReadableStream:
            stream = super().open_read(path, offset, length, etag)
            if path == "/src/edited":
                put(self, path, b"edited")
            return stream

    source = Editing()
    put_tree(source, "/src", {"edited": b"old", "file": b"1"})
    with pytest.raises(PartialFailureError) as caught:
        move_between(source, "/src", target, "/dst")
    assert caught.value.failures.keys() == {"/src/edited"}
    assert contents(source, "/src") == {"edited": b"edited", "file": b"1"}
    Editing.open_read = MemoryStore.open_read  # type: ignore[method-assign]
    move_between(source, "/src", target, "/dst")
    assert contents(source, "/") == {}
    assert contents(target, "/dst") == {"edited": b"edited", "file": b"1"}


def test_memory_stays_the_same_whatever_the_size(tmp_path: Path) -> None:
    class Slow(LocalStore):
        """Its streams cannot seek."""

        def open_read(
            self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
        ) -> ReadableStream:
            return super().open_read(path, offset, length or 1 << 40, etag)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (tmp_path / "a" / "big").open("wb") as big:
        big.truncate(64_000_000)
    source, target = Slow(tmp_path / "a"), LocalStore(tmp_path / "b")
    tracemalloc.start()
    try:
        copy_between(source, "/big", target, "/big")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert target.get_bytes("/big") == 64_000_000


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_full_disk_of_temporary_files_is_no_error_of_the_server(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Wherever it shows: what is small is written when the file is rewound, or closed."""

    def full() -> BinaryIO:
        return Path("/dev/full").open("r+b")

    monkeypatch.setattr(source, "TemporaryFile", full)
    monkeypatch.setattr(gathering, "NamedTemporaryFile", full)
    passing = source.opened(Stream(bytes(size)), None, size, 0)
    with pytest.raises(StoreSpaceLimitError):
        next(passing.parts([(1, 0, source.IN_MEMORY + 1)]))
    with pytest.raises(StoreSpaceLimitError), gathering.gathered(Stream(bytes(size)), None):
        pass


def test_names_that_only_the_source_takes_stop_no_others(tmp_path: Path) -> None:
    class Picky(MemoryStore):
        def require_storable(self, path: str) -> None:
            if path.endswith("/bad"):
                raise InvalidPathValueError(path)

    source, target = MemoryStore(), Picky()
    for name in ("a", "bad", "z"):
        put(source, f"/dir/{name}")
    share = writeback.share(target, tmp_path)
    with pytest.raises(PartialFailureError) as caught:
        move_between(source, "/dir", share, "/dir")
    assert {path: error.status for path, error in caught.value.failures.items()} == {
        "/dir/bad": 400
    }
    assert names(source, "/dir") == {"a", "bad", "z"}
    assert names(share, "/dir") == {"a", "z"}


@pytest.mark.parametrize("src", ["/file", "/dir"])
def test_what_another_has_just_made_is_not_replaced(src: str) -> None:
    class Overtaken(MemoryStore):
        def store_fileobject(
            self,
            fileobject: SourceStream,
            path: str,
            interrupt_event: InterruptEvent | None = None,
            **options: Unpack[WriteOptions],
        ) -> Metadata:
            super().store_fileobject(io.BytesIO(b"quicker"), "/new")
            return super().store_fileobject(fileobject, path, interrupt_event, **options)

        def create_directory(self, directory: str) -> None:
            super().create_directory("/new")
            super().create_directory(directory)

    source, target = MemoryStore(), Overtaken()
    put(source, "/file")
    put(source, "/dir/file")
    for transfer in (copy_between, move_between):
        with pytest.raises(AlreadyExistsError):
            transfer(source, src, target, "/new", replace=False)
        assert contents(target, "/") == {"new": b"quicker" if src == "/file" else None}
        assert contents(source, "/").keys() == {"file", "dir", "dir/file"}
        target.delete("/new", src == "/dir")


def test_what_others_put_into_a_new_directory_meanwhile_stays() -> None:
    class Shared(MemoryStore):
        def create_directory(self, directory: str) -> None:
            super().create_directory(directory)
            put(self, f"{directory}/of another", b"new")

    source, target = MemoryStore(), Shared()
    put(source, "/dir/file", b"content")
    copy_between(source, "/dir", target, "/new", replace=False)
    assert contents(target, "/new") == {"file": b"content", "of another": b"new"}


def test_a_file_that_changes_while_it_is_copied_to_be_moved_stays() -> None:
    class Editing(MemoryStore):
        move = Store.move

        def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
            super().duplicate(path_to_src, path_to_dest, replace=replace)
            put(self, path_to_src, b"edited")

    store = Editing()
    put(store, "/file", b"old")
    with pytest.raises(ConflictError):
        store.move("/file", "/moved")
    assert contents(store, "/") == {"file": b"edited", "moved": b"old"}
