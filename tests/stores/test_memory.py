"""MemoryStore, in this process and behind a proxy."""

from collections.abc import Iterator

import pytest

from davfusion.stores.memory import MemoryStore, MemoryTree, MemoryTreeManager
from davfusion.stores.store import Store, StoreSpaceLimitError
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
