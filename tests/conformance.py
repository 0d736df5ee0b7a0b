"""The Store contract as code: what every store and every layer around one must do.

A store's test module derives a class whose name begins with `Test` from StoreConformance and
overrides the `store` fixture with an empty store. Stores differ only by what `store.features`
says.
"""

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from davfusion.stores import paths
from davfusion.stores.store import (
    UNDATED_DIRECTORY,
    AlreadyExistsError,
    InvalidPathValueError,
    NoSuchFilesytemObjectError,
    Store,
)
from tests.conformance_trees import TreeConformance
from tests.conformance_uploads import UploadConformance
from tests.conformance_versions import VersionConformance
from tests.samples import (
    BAD_PATHS,
    BINARY,
    LARGE,
    MTIME,
    NAMES,
    TREE,
    Source,
    SourceError,
    contents,
    fail,
    names,
    put,
    put_all,
    put_tree,
    read,
)

__all__ = [
    "BAD_PATHS",
    "BINARY",
    "LARGE",
    "MTIME",
    "NAMES",
    "TREE",
    "Source",
    "SourceError",
    "StoreConformance",
    "contents",
    "fail",
    "names",
    "put",
    "put_all",
    "put_tree",
    "read",
]


class StoreConformance(TreeConformance, VersionConformance, UploadConformance):
    """Every test of this class holds for every store."""

    many = 1_050
    """Entries that are more than a page of the service has; S3 gives 1,000."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        raise NotImplementedError

    def test_root_of_an_empty_store(self, store: Store) -> None:
        root = store.get_metadata("/")
        assert (root["is_dir"], root["bytes"]) == (True, 0)
        assert store.get_directory_metadata("/") == {}
        assert store.get_directory_listing("/") == []
        assert list(store.walk_metadata("/")) == []
        assert store.exists("/")
        assert store.is_dir("/")

    @pytest.mark.parametrize("path", BAD_PATHS)
    def test_bad_paths_are_refused(self, store: Store, path: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.get_metadata(path),
            lambda: store.get_directory_metadata(path),
            lambda: store.get_directory_listing(path),
            lambda: list(store.walk_metadata(path)),
            lambda: store.open_read(path),
            lambda: store.get_file(path),
            lambda: put(store, path),
            lambda: store.delete(path),
            lambda: store.delete(path, is_dir=True),
            lambda: store.delete_many([path]),
            lambda: store.create_directory(path),
            lambda: store.duplicate(path, "/new"),
            lambda: store.duplicate("/old", path),
            lambda: store.move(path, "/new"),
            lambda: store.move("/old", path),
            lambda: store.exists(path),
            lambda: store.is_dir(path),
            lambda: store.get_bytes(path),
            lambda: store.get_modified(path),
        ]
        for call in calls:
            with pytest.raises(InvalidPathValueError):
                call()
        assert names(store, "/") == set()

    @pytest.mark.parametrize("content", [b"", b"text", BINARY, LARGE], ids=len)
    def test_content_round_trip(self, store: Store, content: bytes) -> None:
        stored = put(store, "/file", content)
        assert (stored["is_dir"], stored["bytes"]) == (False, len(content))
        assert store.get_file("/file") == content
        assert read(store, "/file") == content
        assert store.get_bytes("/file") == len(content)
        assert not store.is_dir("/file")

    @pytest.mark.parametrize("content", [b"", BINARY, LARGE], ids=len)
    def test_source_that_cannot_seek(self, store: Store, content: bytes) -> None:
        store.store_fileobject(Source(content), "/file")
        assert store.get_file("/file") == content

    def test_source_is_stored_from_where_it_stands(self, store: Store) -> None:
        source = io.BytesIO(b"skipped, stored")
        source.seek(9)
        store.store_fileobject(source, "/file")
        assert store.get_file("/file") == b"stored"

    @pytest.mark.parametrize("name", NAMES, ids=ascii)
    def test_names(self, store: Store, name: str) -> None:
        put(store, f"/{name}", b"file")
        assert names(store, "/") == {name}
        assert store.get_file(f"/{name}") == b"file"
        store.create_directory("/dir")
        store.move(f"/{name}", f"/dir/{name}")
        assert store.get_directory_listing("/dir") == [f"/dir/{name}"]
        store.delete(f"/dir/{name}")
        store.create_directory(f"/{name}")
        put(store, f"/{name}/{name}", b"below")
        store.duplicate(f"/{name}", "/copy")
        assert read(store, f"/copy/{name}") == b"below"
        store.delete(f"/{name}", is_dir=True)
        assert names(store, "/") == {"dir", "copy"}

    def test_similar_names_are_different_files(self, store: Store) -> None:
        twins = ["caf\u00e9", "cafe\u0301", "a%20b", "a b", "a+b", "Case", "case"]
        if store.features.case_insensitive_names:
            twins = twins[2:-1]
        for name in twins:
            put(store, f"/{name}", name.encode())
        assert names(store, "/") == set(twins)
        assert [store.get_file(f"/{name}") for name in twins] == [n.encode() for n in twins]

    def test_a_name_that_begins_another(self, store: Store) -> None:
        put_all(store, ["/a/file", "/a.txt", "/a-b/file", "/ab/file", "/a0"])
        assert names(store, "/a") == {"file"}
        store.move("/a", "/z")
        store.delete("/a-b", is_dir=True)
        assert names(store, "/") == {"z", "a.txt", "ab", "a0"}

    def test_twenty_levels(self, store: Store) -> None:
        deep = "".join(f"/level {n}" for n in range(20))
        put(store, f"{deep}/file")
        assert sum(1 for _ in store.walk_metadata("/")) == 21
        store.move("/level 0", "/moved")
        moved = deep.replace("/level 0", "/moved")
        assert store.get_file(f"{moved}/file") == b"content"
        store.delete("/moved", is_dir=True)
        assert names(store, "/") == set()

    def test_more_entries_than_a_page(self, store: Store) -> None:
        files = [f"/many/{n:04}" for n in range(self.many)]
        put_all(store, files)
        store.create_directory("/many/zz")
        listing = store.get_directory_metadata("/many")
        assert set(listing) == {*map(paths.name, files), "zz"}
        assert listing["zz"]["is_dir"]
        assert sorted(store.get_directory_listing("/many")) == [*files, "/many/zz"]
        store.duplicate("/many", "/copy")
        assert names(store, "/copy") == names(store, "/many")
        store.delete_many([*files, "/many/missing"])
        assert names(store, "/many") == {"zz"}
        store.delete("/copy", is_dir=True)
        assert names(store, "/") == {"many"}

    def test_metadata_of_a_directory(self, store: Store) -> None:
        before = time.time()
        store.create_directory("/dir")
        put(store, "/dir/file", BINARY)
        metadata = store.get_metadata("/dir")
        assert (metadata["is_dir"], metadata["bytes"]) == (True, 0)
        assert store.get_bytes("/dir") == 0
        listed = store.get_directory_metadata("/")["dir"]
        assert (listed["is_dir"], listed["bytes"]) == (True, 0)
        assert isinstance(listed["modified"], float)
        assert metadata["modified"] < before + 60

    def test_a_directory_that_has_no_date(self, store: Store) -> None:
        if not store.features.undated_directories:
            pytest.skip("the service may date directories")
        put(store, "/dir/sub/file")
        assert store.get_metadata("/dir") == UNDATED_DIRECTORY
        assert store.get_directory_metadata("/dir") == {"sub": UNDATED_DIRECTORY}
        assert dict(store.walk_metadata("/"))["/dir"] == UNDATED_DIRECTORY
        assert store.get_metadata("/") == UNDATED_DIRECTORY

    def test_listing_tells_what_a_stat_tells(self, store: Store) -> None:
        stored = put(store, "/dir/file", BINARY)
        stat = store.get_metadata("/dir/file")
        listed = store.get_directory_metadata("/dir")["file"]
        assert stored["etag"] == stat["etag"] == listed["etag"]
        assert stored["bytes"] == stat["bytes"] == listed["bytes"] == len(BINARY)
        assert not stat["is_dir"]
        assert not listed["is_dir"]
        assert not {'"', "\\"} & set(stat["etag"])
        assert stored["etag"]
        assert not stored["etag"].startswith("W/")

    def test_walk_names_directories_before_their_members(self, store: Store) -> None:
        put_tree(store, "/tree")
        walked = [path for path, _ in store.walk_metadata("/tree")]
        assert sorted(walked) == sorted(f"/tree/{name}" for name in TREE)
        for index, path in enumerate(walked):
            assert paths.parent(path) in ["/tree", *walked[:index]]

    @pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
    def test_times_are_utc(self, store: Store, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            stored = put(store, "/dir/file")
            now = time.time()
            for modified in (
                stored["modified"],
                store.get_modified("/dir/file"),
                store.get_directory_metadata("/dir")["file"]["modified"],
            ):
                assert abs(modified - now) < 60
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_a_given_time_and_type_are_kept(self, store: Store) -> None:
        stored = store.store_fileobject(
            io.BytesIO(b"png"), "/file", modified=MTIME, content_type="image/png"
        )
        is_kept = store.features.modified_times
        when = pytest.approx(MTIME, abs=1) if is_kept else pytest.approx(time.time(), abs=60)
        for metadata in (stored, store.get_metadata("/file")):
            assert metadata["modified"] == when
            assert metadata.get("content_type") in (None, "image/png")
        store.duplicate("/file", "/copy")
        assert store.get_modified("/copy") == when
        store.move("/file", "/moved")
        assert store.get_modified("/moved") == when

    def test_overwriting_shows_everywhere(self, store: Store) -> None:
        first = put(store, "/dir/file", b"old content")
        for content in (b"new content", b"longer than it was before", b"short", b""):
            second = put(store, "/dir/file", content)
            assert second["etag"] != first["etag"]
            assert store.get_file("/dir/file") == content
            assert store.get_directory_metadata("/dir")["file"]["bytes"] == len(content)
            assert store.get_directory_metadata("/dir")["file"]["etag"] == second["etag"]
            first = second

    def test_same_size_and_time_but_another_version(self, store: Store) -> None:
        etags = {
            store.store_fileobject(io.BytesIO(b"%04d" % n), "/file", modified=MTIME)["etag"]
            for n in range(5)
        }
        assert len(etags) == 5

    @pytest.mark.parametrize("path", ["/missing", "/missing/below"])
    def test_what_is_missing(self, store: Store, path: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: store.get_metadata(path),
            lambda: store.get_directory_metadata(path),
            lambda: store.get_directory_listing(path),
            lambda: list(store.walk_metadata(path)),
            lambda: store.open_read(path).read(),
            lambda: store.get_file(path),
            lambda: store.is_dir(path),
            lambda: store.get_bytes(path),
            lambda: store.get_modified(path),
            lambda: store.duplicate(path, "/new"),
            lambda: store.move(path, "/new"),
        ]
        for call in calls:
            with pytest.raises(NoSuchFilesytemObjectError) as caught:
                call()
            assert caught.value.status == 404
        assert not store.exists(path)
        store.delete(path)
        store.delete(path, is_dir=True)
        store.delete_many([path])
        assert names(store, "/") == set()

    def test_file_is_no_directory_and_the_other_way_round(self, store: Store) -> None:
        put(store, "/file")
        store.create_directory("/dir")
        with pytest.raises(NoSuchFilesytemObjectError):
            store.get_directory_metadata("/file")
        with pytest.raises(NoSuchFilesytemObjectError):
            store.open_read("/dir").read()
        with pytest.raises(NoSuchFilesytemObjectError):
            store.get_file("/dir")
        with pytest.raises(AlreadyExistsError):
            put(store, "/dir")
        assert store.is_dir("/dir")

    def test_store_file(self, store: Store, tmp_path: Path) -> None:
        local = tmp_path / "local.bin"
        local.write_bytes(BINARY)
        stored = store.store_file(str(local))
        assert stored["bytes"] == len(BINARY)
        store.store_file(str(local), "/dir", "other")
        store.store_file(str(local), dest_dir="/dir")
        assert store.get_file("/local.bin") == BINARY
        assert contents(store, "/dir") == {"other": BINARY, "local.bin": BINARY}
        assert local.read_bytes() == BINARY

    def test_space(self, store: Store) -> None:
        figures = (store.get_free_space(), store.get_used_space(), store.get_overall_space())
        assert all(figure is None or figure >= 0 for figure in figures)
        free, _, overall = figures
        if free is not None and overall is not None:
            assert free <= overall

    def test_about_the_store(self, store: Store) -> None:
        assert store.get_name()
        assert store.account_info()
        assert store.get_logging_handler().name
        limit = store.get_max_filesize()
        assert limit is None or limit > 0

    def test_reconnect_and_flush_keep_everything(self, store: Store) -> None:
        put(store, "/file", BINARY)
        store.flush()
        store.reconnect()
        assert store.get_file("/file") == BINARY
