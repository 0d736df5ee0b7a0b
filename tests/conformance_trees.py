"""The part of the conformance suite about directories: making, deleting, copying, moving."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from davfusion.stores.store import (
    AlreadyExistsError,
    Store,
    StoreAccessError,
)
from tests.samples import (
    BINARY,
    TREE,
    contents,
    names,
    put,
    put_all,
    put_tree,
)


class TreeConformance:
    """What StoreConformance includes."""

    def test_deleting_by_the_wrong_kind_removes_no_tree(self, store: Store) -> None:
        put_tree(store, "/tree")
        with suppress(StoreAccessError):
            store.delete("/tree")
        assert contents(store, "/tree") == TREE

    def test_missing_parents_are_made(self, store: Store) -> None:
        put(store, "/a/b/file")
        store.create_directory("/c/d")
        assert store.is_dir("/a")
        assert store.is_dir("/a/b")
        assert names(store, "/c") == {"d"}
        assert names(store, "/") == {"a", "c"}

    def test_create_directory(self, store: Store) -> None:
        store.create_directory("/dir")
        put(store, "/file")
        for taken in ("/dir", "/file", "/"):
            with pytest.raises(AlreadyExistsError) as caught:
                store.create_directory(taken)
            assert caught.value.status == 405
        assert store.get_directory_metadata("/dir") == {}

    def test_an_emptied_directory_stays(self, store: Store) -> None:
        put(store, "/dir/file")
        store.delete("/dir/file")
        assert not store.exists("/dir/file")
        store.create_directory("/made")
        put(store, "/made/file")
        store.delete("/made/file")
        assert store.is_dir("/made")
        assert store.get_directory_metadata("/made") == {}

    def test_delete_at_all_depths(self, store: Store) -> None:
        put_tree(store, "/tree")
        put(store, "/tree2")
        store.delete("/tree", is_dir=True)
        assert names(store, "/") == {"tree2"}
        assert not store.exists("/tree/sub/deep/nothing")
        assert not store.exists("/tree/sub")
        store.create_directory("/tree")
        assert store.get_directory_metadata("/tree") == {}

    def test_delete_many(self, store: Store) -> None:
        put_all(store, ["/a", "/b", "/dir/c", "/keep"])
        store.delete_many(iter(["/a", "/b", "/dir/c", "/none"]))
        assert "keep" in names(store, "/")
        assert not names(store, "/") & {"a", "b"}
        store.delete_many([])

    @pytest.mark.parametrize("method", ["duplicate", "move"])
    def test_transfer_of_a_file(self, store: Store, method: str) -> None:
        put(store, "/src", BINARY)
        put(store, "/dst", b"replaced")
        for dst in ("/dst", "/new", "/parent/of/new"):
            getattr(store, method)("/src", dst)
            assert store.get_file(dst) == BINARY
            assert store.exists("/src") == (method == "duplicate")
            put(store, "/src", BINARY)

    @pytest.mark.parametrize("method", ["duplicate", "move"])
    @pytest.mark.parametrize("dst", ["/new", "/dst", "/file", "/parent/new"])
    def test_transfer_of_a_tree(self, store: Store, method: str, dst: str) -> None:
        put_tree(store, "/src")
        old = {"sub": b"a file", "top": None, "top/x": b"x", "old": b"old", "gone/in/x": b"x"}
        put_tree(store, "/dst", old)
        put(store, "/file")
        store.create_directory("/parent")
        getattr(store, method)("/src", dst)
        assert contents(store, dst) == TREE
        assert not store.exists(f"{dst}/gone")
        assert store.exists("/src") == (method == "duplicate")
        assert store.exists("/src/sub/deep") == (method == "duplicate")

    @pytest.mark.parametrize("method", ["duplicate", "move"])
    def test_transfer_of_a_file_over_a_tree(self, store: Store, method: str) -> None:
        put(store, "/src", BINARY)
        put_tree(store, "/dst")
        getattr(store, method)("/src", "/dst")
        assert store.get_file("/dst") == BINARY
        assert not store.is_dir("/dst")
        assert not store.exists("/dst/sub")
        assert names(store, "/") == ({"src", "dst"} if method == "duplicate" else {"dst"})

    @pytest.mark.parametrize("method", ["duplicate", "move"])
    def test_transfer_that_may_not_replace(self, store: Store, method: str) -> None:
        put_tree(store, "/tree")
        put_all(store, ["/file", "/other/file"])
        store.create_directory("/empty")
        before = contents(store, "/")
        for src in ("/file", "/tree"):
            for dst in ("/other", "/other/file", "/empty"):
                with pytest.raises(AlreadyExistsError):
                    getattr(store, method)(src, dst, replace=False)
        assert contents(store, "/") == before
        for src, dst in (("/file", "/other/new"), ("/tree", "/new")):
            getattr(store, method)(src, dst, replace=False)
            assert store.exists(src) == (method == "duplicate")
        assert contents(store, "/new") == TREE
        assert store.get_file("/other/new") == b"/file"

    @pytest.mark.parametrize("is_dir", [False, True])
    def test_of_those_who_may_not_replace_one_wins(self, store: Store, is_dir: bool) -> None:
        if not store.features.exclusive_transfer:
            pytest.skip("the service cannot refuse")
        file = "/file" if is_dir else ""
        sources = {f"/{number}": f"of {number}".encode() for number in range(6)}
        for src, content in sources.items():
            put(store, src + file, content)

        def transfer(src: str) -> bool:
            method = store.move if int(src[1:]) % 2 else store.duplicate
            with suppress(AlreadyExistsError):
                method(src, "/dst", replace=False)
                return True
            return False

        with ThreadPoolExecutor(len(sources)) as pool:
            answers = dict(zip(sources, pool.map(transfer, sources), strict=True))
        (winner,) = (src for src, is_won in answers.items() if is_won)
        assert store.get_file(f"/dst{file}") == sources[winner]
        for src in sources.keys() - {winner}:
            assert store.get_file(src + file) == sources[src]

    @pytest.mark.parametrize("method", ["duplicate", "move"])
    @pytest.mark.parametrize(("src", "dst"), [("/t", "/t"), ("/t", "/t/sub/in"), ("/t/sub", "/t")])
    def test_transfer_into_itself(self, store: Store, method: str, src: str, dst: str) -> None:
        put_tree(store, "/t")
        with pytest.raises(StoreAccessError):
            getattr(store, method)(src, dst)
        assert contents(store, "/t") == TREE

    def test_a_copy_is_of_its_own(self, store: Store) -> None:
        put_tree(store, "/tree")
        store.duplicate("/tree", "/copy")
        put(store, "/copy/top", b"changed")
        store.delete("/copy/sub", is_dir=True)
        assert contents(store, "/tree") == TREE

    def test_moving_back_and_forth(self, store: Store) -> None:
        put_tree(store, "/a")
        for src, dst in (("/a", "/b"), ("/b", "/c/d"), ("/c/d", "/a")):
            store.move(src, dst)
            assert not store.exists(src)
            assert contents(store, dst) == TREE

    def test_renaming_the_case_only(self, store: Store) -> None:
        put(store, "/dir/name")
        store.move("/dir/name", "/dir/NAME", replace=False)
        assert names(store, "/dir") == {"NAME"}
        store.move("/dir", "/DIR")
        assert names(store, "/") == {"DIR"}
        assert store.get_file("/DIR/NAME") == b"content"
