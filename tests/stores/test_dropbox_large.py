"""DropboxStore: folders of more entries than Dropbox copies or moves at once (here: 10)."""

from collections.abc import Iterator
from typing import Any

import pytest

from davfusion.stores.dropbox import DropboxStore
from davfusion.stores.dropbox.large import LargeFolder
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.store import ConflictError, StoreAccessError, StoreSpaceLimitError
from tests import servers
from tests.conformance import contents, put, put_all, put_tree

pytestmark = pytest.mark.live

FILES = [f"/src/{number % 2}/Sub {number % 3}/{number}" for number in range(40)]


@pytest.fixture
def store(dropbox: Any) -> Iterator[DropboxStore]:
    """With a large folder, /src."""
    store = DropboxStore(retry=RetryPolicy(first=0, sleep=lambda _: None))
    put_all(store, [*FILES, *(f"/src/0/{number}" for number in range(15))])
    put_tree(store, "/src/Small", {"empty": None, "file": b"x"})
    dropbox.control(settings={"max_relocation": 10})
    yield store
    store.reconnect()


FAULTS = [
    {},
    {"status": 503},
    {"status": 429, "reason": "too_many_write_operations", "retry_after": 0},
    {"drop_response_after": -1},
    {"drop_request_after": 0},
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("method", ["duplicate", "move"])
def test_it_is_copied_and_moved(
    store: DropboxStore, dropbox: Any, method: str, fault: dict[str, Any]
) -> None:
    before = contents(store, "/src")
    kinds = ("copy_batch.*", "list_folder.*", "delete_.*")
    faults = [{"endpoint": f"files/{kind}", "skip": 1, "times": 2, **fault} for kind in kinds]
    dropbox.control(faults=faults if fault else [])
    getattr(store, method)("/src", "/to/dst")
    assert contents(store, "/to/dst") == before
    assert store.exists("/src") == (method == "duplicate")


def test_refusals_for_a_moment_are_not_the_end(store: DropboxStore, dropbox: Any) -> None:
    before = contents(store, "/src")
    dropbox.control(settings={"contention_rate": 0.1, "contention_as": "mixed"}, seed=3)
    store.duplicate("/src", "/dst")
    assert contents(store, "/dst") == before


@pytest.mark.parametrize("method", ["duplicate", "move"])
def test_what_fails_leaves_the_source_alone(store: DropboxStore, dropbox: Any, method: str) -> None:
    before = contents(store, "/")
    used = store.get_used_space()
    assert used is not None
    dropbox.control(settings={"quota": used + 100})
    with pytest.raises(StoreSpaceLimitError):
        getattr(store, method)("/src", "/dst")
    assert contents(store, "/") == before


def test_what_changes_meanwhile_stays(
    store: DropboxStore, dropbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = LargeFolder.copy

    def slow(large: LargeFolder, source: str, target: str) -> None:
        copied(large, source, target)
        dropbox.other.put("/src/0/7", b"changed")

    monkeypatch.setattr(LargeFolder, "copy", slow)
    with pytest.raises(ConflictError):
        store.move("/src", "/dst")
    assert store.get_file("/src/0/7") == b"changed"
    assert not store.exists("/dst")


def test_what_it_would_replace_stays(store: DropboxStore) -> None:
    put(store, "/dst/file", b"kept")
    with pytest.raises(StoreAccessError) as caught:
        store.move("/src", "/dst")
    assert caught.value.status == 502
    assert "remove it first" in str(caught.value)
    assert store.get_file("/dst/file") == b"kept"
    assert store.exists(FILES[0])


def test_what_it_costs(store: DropboxStore, dropbox: Any) -> None:
    dropbox.control(settings={"max_relocation": 50})
    servers.requests_of(dropbox)
    store.duplicate("/src", "/copy")
    cost = servers.requests_of(dropbox)
    assert cost.count("copy_batch_v2") == 1
    assert len(cost) - cost.count("copy_batch/check_v2") == 4  # a try, a folder, a listing, a job
