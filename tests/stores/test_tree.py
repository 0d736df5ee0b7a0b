"""TreeStore: several shares as one tree."""

import io

import pytest

from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.observed import ObservedStore
from davfusion.stores.store import (
    AlreadyExistsError,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    Store,
    StoreAutorizationError,
    TransientStoreError,
)
from davfusion.stores.tree import TreeStore
from davfusion.stores.wrapper import StoreWrapper
from tests.conformance import MTIME, TREE, StoreConformance, contents, names, put, put_tree


class TestTreeOfOneShare(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return TreeStore({"/": MemoryStore()})


@pytest.fixture
def photos() -> ObservedStore:
    return ObservedStore(MemoryStore())


@pytest.fixture
def team() -> ObservedStore:
    return ObservedStore(MemoryStore())


@pytest.fixture
def tree(photos: ObservedStore, team: ObservedStore) -> TreeStore:
    return TreeStore({"/photos": photos, "/office/team": team}, clock=lambda: MTIME)


def test_directories_above_the_shares(tree: TreeStore, photos: ObservedStore) -> None:
    assert names(tree, "/") == {"photos", "office"}
    assert names(tree, "/office") == {"team"}
    for path in ("/", "/photos", "/office", "/office/team"):
        assert tree.get_metadata(path) == {"modified": MTIME, "bytes": 0, "is_dir": True}
    assert not photos.calls
    put(tree, "/photos/2024/a.jpg")
    put(tree, "/office/team/plan")
    assert {path for path, _ in tree.walk_metadata("/")} == {
        "/photos",
        "/photos/2024",
        "/photos/2024/a.jpg",
        "/office",
        "/office/team",
        "/office/team/plan",
    }
    assert tree.get_directory_listing("/photos") == ["/photos/2024"]


@pytest.mark.parametrize("path", ["/photos", "/office", "/office/team", "/", "/new", "/office/new"])
def test_what_holds_the_shares_cannot_be_changed(tree: TreeStore, path: str) -> None:
    put_tree(tree, "/photos/src")
    before = contents(tree, "/")
    with pytest.raises(StoreAutorizationError) as caught:
        put(tree, path)
    assert caught.value.status == 403
    for method in (tree.duplicate, tree.move):
        with pytest.raises(StoreAutorizationError):
            method("/photos/src", path)
    if "new" in path:
        tree.delete(path, is_dir=True)
        tree.delete_many([path])
        with pytest.raises(StoreAutorizationError):
            tree.create_directory(path)
        with pytest.raises(NoSuchFilesytemObjectError):
            tree.move(path, "/office/team/moved")
    else:
        with pytest.raises(StoreAutorizationError):
            tree.delete(path, is_dir=True)
        with pytest.raises(AlreadyExistsError):
            tree.create_directory(path)
        with pytest.raises(StoreAutorizationError):
            tree.move(path, "/office/team/moved")
    assert contents(tree, "/") == before


def test_a_share_does_its_own_copies(
    tree: TreeStore, photos: ObservedStore, team: ObservedStore
) -> None:
    put_tree(tree, "/photos/src")
    photos.reset()
    tree.duplicate("/photos/src", "/photos/copy")
    tree.move("/photos/src", "/photos/moved")
    assert photos.calls == {"duplicate": 1, "move": 1}
    assert not team.calls
    assert contents(tree, "/photos/moved") == contents(tree, "/photos/copy") == TREE


def test_copy_between_shares(tree: TreeStore) -> None:
    put_tree(tree, "/photos/src")
    tree.store_fileobject(
        io.BytesIO(b"dated"), "/photos/src/dated", modified=MTIME, content_type="image/png"
    )
    tree.duplicate("/photos/src", "/office/team/dst")
    assert contents(tree, "/office/team/dst") == {**TREE, "dated": b"dated"}
    assert contents(tree, "/photos/src") == {**TREE, "dated": b"dated"}
    copied = tree.get_metadata("/office/team/dst/dated")
    assert (copied["modified"], copied["content_type"]) == (MTIME, "image/png")


def test_move_between_shares(tree: TreeStore) -> None:
    put_tree(tree, "/photos/src")
    put(tree, "/office/team/dst", b"replaced")
    tree.move("/photos/src", "/office/team/dst")
    assert contents(tree, "/office/team/dst") == TREE
    assert names(tree, "/photos") == set()
    tree.move("/office/team/dst/top", "/photos/top")
    assert tree.get_file("/photos/top") == TREE["top"]
    assert not tree.exists("/office/team/dst/top")


def test_a_whole_share_and_what_is_above_can_be_copied(tree: TreeStore) -> None:
    put_tree(tree, "/photos/src")
    tree.duplicate("/photos", "/office/team/backup")
    assert contents(tree, "/office/team/backup/src") == TREE
    tree.duplicate("/office", "/photos/office")
    assert contents(tree, "/photos/office/team/backup/src") == TREE


def test_failures_carry_the_paths_of_the_tree(team: ObservedStore) -> None:
    class Stubborn(MemoryStore):
        def delete(self, path: str, is_dir: bool = False) -> None:
            if path == "/dir/b":
                raise TransientStoreError("busy")
            super().delete(path, is_dir)

    tree = TreeStore({"/photos": Stubborn(), "/team": team})
    for name in "abc":
        put(tree, f"/photos/dir/{name}")
    with pytest.raises(PartialFailureError) as caught:
        tree.delete_many(["/photos/dir/a", "/photos/dir/b", "/team/none"])
    assert set(caught.value.failures) == {"/photos/dir/b"}
    with pytest.raises(PartialFailureError) as caught:
        tree.move("/photos/dir", "/team/dir")
    assert set(caught.value.failures) == {"/photos/dir/b"}
    assert names(tree, "/photos/dir") == {"b"}
    assert names(tree, "/team/dir") == {"b", "c"}


def test_features_are_what_all_shares_have() -> None:
    small = MemoryStore(MemoryTree(largest_object=5))
    large = MemoryStore(MemoryTree(largest_object=9))
    plain = TreeStore({"/a": small, "/b": StoreWrapper(large)})
    assert plain.features.ranged_read
    assert plain.features.one_process
    assert plain.get_max_filesize() == 9
    assert TreeStore({"/a": small, "/b": MemoryStore()}).get_max_filesize() is None
    assert plain.get_free_space() is plain.get_used_space() is None


def test_mounts_that_make_no_tree() -> None:
    with pytest.raises(ValueError, match="inside"):
        TreeStore({"/a": MemoryStore(), "/a/b/c": MemoryStore()})
    with pytest.raises(ValueError, match="share"):
        TreeStore({})
