"""FsspecStore by the contract: on fsspec's local files and memory, and on an object store."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.registry import _registry

from davfusion.stores.errors import InvalidPathValueError
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.fsspec.address import parse
from davfusion.stores.fsspec.connections import Connections
from davfusion.stores.fsspec.share import KEEP, WORK
from davfusion.stores.store import Store, StoreAccessError, StoreAutorizationError
from tests.conformance import StoreConformance, names, put
from tests.flat_filesystem import FlatFileSystem


class TestLocal(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        (tmp_path / "root").mkdir()
        return FsspecStore(f"file://{tmp_path}/root")


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return FsspecStore(f"memory://{uuid4().hex}")


class TestObjectStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return FsspecStore("flat://bucket/a root", objects={})


def test_an_object_store_shows_only_what_a_path_can_name() -> None:
    objects = {"bucket/share/a//b": b"", "bucket/share/../c": b"", "bucket/other": b""}
    store = FsspecStore("flat://bucket/share", objects=objects)
    put(store, "/dir/file")
    store.delete("/dir/file")
    assert names(store, "/") == {"dir", "a"}
    assert store.get_directory_metadata("/dir") == {}
    store.delete("/dir", is_dir=True)
    assert not [key for key in objects if "dir" in key]


def test_a_folder_that_an_empty_object_stands_for() -> None:
    """So do the console of AWS and other programs."""
    objects = dict.fromkeys(("bucket/dir/", "bucket/dir/empty/", "bucket/dir/file"), b"")
    store = FsspecStore("flat://bucket", objects=objects)
    assert names(store, "/dir") == {"empty", "file"}
    assert store.get_directory_metadata("/dir/empty") == {}
    store.delete("/dir", is_dir=True)
    assert objects == {}


def test_names_are_no_patterns() -> None:
    """fsspec's own rm(), cp() and mv() take `*` and `[` in names for patterns."""
    objects: dict[str, bytes] = {}
    store = FsspecStore("flat://bucket/share", objects=objects)
    for name in ("/*", "/[a]", "/a", "/dir*/x", "/dir2/x"):
        put(store, name)
    store.duplicate("/dir*", "/copy")
    store.move("/[a]", "/b")
    store.delete("/*")
    store.delete("/dir*", is_dir=True)
    assert names(store, "/") == {"a", "b", "copy", "dir2"}


def test_all_that_a_service_has_can_be_served() -> None:
    """Names of an object store begin with no slash."""
    store = FsspecStore("flat://", objects={"bucket/dir/file": b"content"})
    assert names(store, "/") == {"bucket"}
    assert names(store, "/bucket/dir") == {"file"}
    assert store.get_file("/bucket/dir/file") == b"content"
    put(store, "/bucket/new")
    assert names(store, "/bucket") == {"dir", "new"}


def test_a_backend_that_cannot_write_says_so() -> None:
    class ReadOnly(FlatFileSystem):
        protocol = "readonly"
        put_file = fsspec.AbstractFileSystem.put_file

        def _open(self, *_: object, **__: object) -> None:
            raise NotImplementedError

    fsspec.register_implementation("readonly", ReadOnly, clobber=True)
    store = FsspecStore("readonly://bucket", objects={"bucket/file": b"content"})
    assert store.get_file("/file") == b"content"
    with pytest.raises(StoreAccessError) as caught:
        put(store, "/new")
    assert caught.value.status == 501


@pytest.mark.parametrize("scheme", ["gdrive", "github"])
def test_what_fsspec_cannot_write_well_is_only_read(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's class for Google Drive makes a second file of the same name by each write."""
    monkeypatch.setitem(_registry, scheme, FlatFileSystem)
    objects = {f"{scheme}://folder/file": b"content"}
    store = FsspecStore(f"{scheme}://folder", objects=objects)
    assert store.get_file("/file") == b"content"
    assert not store.features.writable
    changes: list[Callable[[], object]] = [
        lambda: put(store, "/new"),
        lambda: store.create_directory("/new"),
        lambda: store.duplicate("/file", "/new"),
        lambda: store.move("/file", "/new"),
        lambda: store.delete("/file"),
        lambda: store.delete_many(["/file"]),
    ]
    for change in changes:
        with pytest.raises(StoreAutorizationError, match="can only be read"):
            change()
    assert objects == {f"{scheme}://folder/file": b"content"}


def test_threads_share_no_connection_to_google_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry, "gdrive", FlatFileSystem)
    connections = Connections(parse("gdrive://folder", {"objects": {}}).connect)
    with connections.lent("/a") as one, connections.lent("/b") as other:
        assert one.filesystem is not other.filesystem


@pytest.mark.parametrize("name", [WORK, KEEP])
def test_names_of_its_own_are_refused_before_a_write_is_answered(name: str) -> None:
    store = FsspecStore("flat://bucket", objects={})
    for path in (f"/{name}", f"/dir/{name}/file"):
        with pytest.raises(InvalidPathValueError):
            store.require_storable(path)
    store.require_storable(f"/dir/{name}.txt")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\\b", "a?versionid=1", "a "], ids=ascii)
def test_names_that_azure_would_confuse_are_refused(name: str) -> None:
    class Azure(FlatFileSystem):
        protocol = "az"

    fsspec.register_implementation("az", Azure, clobber=True)
    store = FsspecStore("az://container", objects={})
    with pytest.raises(InvalidPathValueError, match="takes no name"):
        put(store, f"/dir/{name}/file")
    put(store, "/ a?b#c%09")
    assert names(store, "/") == {" a?b#c%09"}
