"""The layers and the tree around a MemoryStore change nothing of the contract."""

import io

import pytest

from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.observed import ObservedStore
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import ABSENT, ConflictError, NoSuchFilesytemObjectError, Store
from davfusion.stores.wrapper import StoreWrapper
from tests.conformance import BINARY, StoreConformance, put, read
from tests.conformance_uploads import KeptUpload

LAYERS = [StoreWrapper, RetryingStore, ObservedStore]


class TestStoreWrapper(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return StoreWrapper(MemoryStore())


class TestRetryingStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return RetryingStore(MemoryStore(MemoryTree(largest_object=4_000_000)))


class TestObservedStore(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return ObservedStore(MemoryStore())


@pytest.mark.parametrize("layer", LAYERS)
def test_figures_and_lifecycle_reach_the_innermost_store(layer: type[StoreWrapper]) -> None:
    class Innermost(MemoryStore):
        seen: tuple[str, ...] = ()

        def forget(self, path: str) -> None:
            self.seen += (f"forget {path}",)

        def reconnect(self) -> None:
            self.seen += ("reconnect",)

        def flush(self) -> None:
            self.seen += ("flush",)

    inner = Innermost(MemoryTree(capacity=1_000, largest_object=500))
    store = layer(inner)
    put(store, "/file", b"x" * 100)
    store.forget("/file")
    store.reconnect()
    store.flush()
    assert inner.seen == ("forget /file", "reconnect", "flush")
    assert store.get_free_space() == 900
    assert store.get_used_space() == 100
    assert store.get_overall_space() == 1_000
    assert store.get_max_filesize() == 500
    assert store.get_name() == inner.get_name()
    assert store.account_info() == inner.account_info()
    assert store.get_logging_handler() is inner.get_logging_handler()
    assert store.features == inner.features


def test_observed_store_counts() -> None:
    store = ObservedStore(MemoryStore())
    put(store, "/dir/file", BINARY)
    assert (store.calls, store.bytes_written) == ({"store_fileobject": 1}, len(BINARY))
    store.reset()
    store.store_resumable(io.BytesIO(BINARY), "/dir/file", KeptUpload())
    with pytest.raises(ConflictError):
        store.store_resumable(io.BytesIO(BINARY), "/dir/file", KeptUpload(), if_etag=ABSENT)
    assert (store.calls, store.errors) == ({"store_resumable": 2}, {"store_resumable": 1})
    assert store.bytes_written == len(BINARY)
    store.reset()
    assert not store.calls
    store.get_directory_metadata("/dir")
    list(store.walk_metadata("/"))
    read(store, "/dir/file", 10, 20)
    store.get_file("/dir/file")
    with pytest.raises(NoSuchFilesytemObjectError):
        store.get_bytes("/none")
    with pytest.raises(NoSuchFilesytemObjectError):
        list(store.walk_metadata("/none"))
    assert store.calls == {
        "get_directory_metadata": 1,
        "walk_metadata": 2,
        "open_read": 1,
        "get_file": 1,
        "get_metadata": 1,
    }
    assert store.errors == {"get_metadata": 1, "walk_metadata": 1}
    assert (store.bytes_read, store.bytes_written) == (20 + len(BINARY), 0)
