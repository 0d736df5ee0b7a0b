"""MemoryStore, in this process and behind a proxy."""

from collections.abc import Iterator

import pytest

from davfusion.stores.memory import AT_ONCE, MemoryStore, MemoryTree, MemoryTreeManager
from davfusion.stores.store import ConflictError, Store, StoreSpaceLimitError
from tests.conformance import StoreConformance, put


@pytest.fixture(scope="module")
def manager() -> Iterator[MemoryTreeManager]:
    with MemoryTreeManager() as manager:
        yield manager


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestMemoryStoreWithALimit(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore(MemoryTree(capacity=20_000_000, largest_object=4_000_000))


class TestMemoryStoreOfAnotherProcess(StoreConformance):
    @pytest.fixture
    def store(self, manager: MemoryTreeManager) -> Store:
        return MemoryStore(manager.tree())

    def test_several_stores_show_one_tree(self, manager: MemoryTreeManager) -> None:
        tree = manager.tree()
        put(MemoryStore(tree), "/file", b"seen")
        assert MemoryStore(tree).get_file("/file") == b"seen"
        assert not MemoryStore(tree).features.one_process
        assert MemoryStore().features.one_process

    def test_a_large_file_is_not_read_before_its_reader_wants_it(
        self, manager: MemoryTreeManager
    ) -> None:
        store = MemoryStore(manager.tree())
        put(store, "/file", b"1" * (2 * AT_ONCE))
        with store.open_read("/file", 1) as old:
            put(store, "/file", b"2" * (2 * AT_ONCE))
            assert old.read(AT_ONCE) == b"1" * AT_ONCE
            with pytest.raises(ConflictError):
                old.read(1)


def test_used_space_is_the_sum_of_all_contents() -> None:
    store = MemoryStore(MemoryTree(capacity=100))
    put(store, "/dir/a", b"x" * 30)
    put(store, "/dir/a", b"x" * 40)
    store.duplicate("/dir", "/copy")
    assert (store.get_used_space(), store.get_free_space()) == (80, 20)
    with pytest.raises(StoreSpaceLimitError) as caught:
        put(store, "/new", b"x" * 21)
    assert caught.value.status == 507
    with pytest.raises(StoreSpaceLimitError):
        store.duplicate("/dir", "/again")
    store.delete("/dir", is_dir=True)
    assert store.get_used_space() == 40
