"""How many calls of the store each request costs (rows M1 to M3; docs/semantics.md says them)."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.share import warm_up
from davfusion.stores.errors import StoreAccessError, UnreachableError
from davfusion.stores.observed import ObservedStore
from tests.cache import writeback
from tests.provider.client import DavClient, Reply
from tests.remote import RemoteStore, UndatedStore

SAFE_SAVE = 5
"""Calls; one uploads, the others copy the old version, look at the copy and delete it again."""


class Budget:
    """A share whose calls of the store are counted."""

    def __init__(self, folder: Path, truth: RemoteStore | None = None) -> None:
        self.truth = truth or RemoteStore()
        self.store = ObservedStore(self.truth)
        caching = CachingStore(MetadataCachingStore(self.store), cache_id="b", cache_dir=folder)
        self.client = DavClient(caching)

    def of(self, request: Callable[[], Reply]) -> Counter[str]:
        """The calls that one request makes; it must succeed."""
        self.store.reset()
        reply = request()
        assert reply.status < 300, reply
        return Counter(self.store.calls)


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    return filled(Budget(tmp_path))


@pytest.fixture
def undated(tmp_path: Path) -> Budget:
    return filled(Budget(tmp_path, UndatedStore()))


def filled(budget: Budget) -> Budget:
    budget.truth.create_directory("/d")
    for number in range(1000):
        budget.truth.store_fileobject(io.BytesIO(b"x"), f"/d/f{number}")
    return budget


def test_listing_a_folder(budget: Budget) -> None:
    client = budget.client
    cold = budget.of(lambda: client.propfind("/d", depth="1"))
    assert cold["get_directory_metadata"] == 1
    assert cold.total() <= 2
    assert budget.of(lambda: client.propfind("/d", depth="1")) == {}
    assert budget.of(lambda: client.propfind("/d/f1")) == {}
    assert budget.of(lambda: client.propfind("/d")) == {}


def test_listing_a_folder_that_has_no_date(undated: Budget) -> None:
    client = undated.client
    assert undated.of(lambda: client.propfind("/d/", depth="1")) == {"get_directory_metadata": 1}
    assert undated.of(lambda: client.propfind("/d/")) == {}
    assert undated.of(lambda: client.propfind("/", depth="1")) == {"get_directory_metadata": 1}


def test_a_folder_that_is_none(undated: Budget) -> None:
    assert undated.client.propfind("/none/", depth="1").status == 404
    assert undated.client.propfind("/d/f1/", depth="1").status == 207
    undated.client.propfind("/d/", depth="1")
    assert undated.of(lambda: undated.client.propfind("/d/f2/", depth="1")) == {}


def test_a_report_of_changes(budget: Budget) -> None:
    def report() -> Reply:
        query = b"<sync-level>infinite</sync-level><prop><getetag/></prop>"
        body = b'<sync-collection xmlns="DAV:">%s</sync-collection>' % query
        return budget.client("REPORT", "/d", body)

    assert budget.of(report) == {"get_metadata": 1, "get_directory_metadata": 1}
    assert budget.of(report) == {}
    budget.client.put("/d/f1", b"new")
    assert budget.of(report) == {}


class WarmStore(UndatedStore):
    """One whose root is worth listing, or that is away, at the start."""

    def __init__(self, error: StoreAccessError | None = None) -> None:
        super().__init__()
        self.error = error

    def warm_up(self, connections: int) -> bool:
        if self.error:
            raise self.error
        return connections > 0


def test_the_root_is_known_from_the_start_on(tmp_path: Path) -> None:
    budget = filled(Budget(tmp_path, WarmStore()))
    warm_up(budget.truth, budget.client.tree.store)
    assert budget.of(lambda: budget.client.propfind("/", depth="1")) == {}
    assert budget.of(lambda: budget.client.put("/new", b"content")) == {"store_fileobject": 1}


@pytest.mark.parametrize("truth", [UndatedStore(), WarmStore(UnreachableError("away"))])
def test_a_start_lists_nothing_that_is_not_worth_it(tmp_path: Path, truth: RemoteStore) -> None:
    budget = Budget(tmp_path, truth)
    warm_up(budget.truth, budget.client.tree.store)
    assert budget.store.calls == {}


def test_an_absent_name_in_a_known_folder(budget: Budget) -> None:
    budget.client.propfind("/d", depth="1")
    budget.store.reset()
    assert budget.client.get("/d/none").status == 404
    assert budget.store.calls == {}


def test_reading_a_file(budget: Budget) -> None:
    client = budget.client
    assert budget.of(lambda: client.get("/d/f1")) == {"get_metadata": 1, "open_read": 1}
    assert budget.of(lambda: client.get("/d/f1")) == {}
    assert budget.of(lambda: client("HEAD", "/d/f1")) == {}


def test_reading_what_was_written(budget: Budget) -> None:
    budget.client.put("/d/new", b"content")
    assert budget.of(lambda: budget.client.get("/d/new")) == {}


def test_writing_a_file(budget: Budget) -> None:
    client = budget.client
    client.propfind("/d", depth="1")
    assert budget.of(lambda: client.put("/d/new", b"1")) == {"store_fileobject": 1}
    assert budget.of(lambda: client.put("/d/new", b"2")) == {"store_fileobject": 1}
    assert budget.of(lambda: client.propfind("/d", depth="1")) == {}


def test_writing_a_file_cold(budget: Budget) -> None:
    cold = budget.of(lambda: budget.client.put("/d/new", b"1"))
    assert cold == {"get_metadata": 2, "store_fileobject": 1}


def test_moving_a_file(budget: Budget) -> None:
    client = budget.client
    client.propfind("/d", depth="1")
    move = {"Destination": "/d/moved"}
    assert budget.of(lambda: client("MOVE", "/d/f1", headers=move)) == {"move": 1}


@pytest.mark.parametrize("overwrite", ["T", "F"])
def test_copying_a_file(budget: Budget, overwrite: str) -> None:
    budget.client.propfind("/d", depth="1")
    copy = {"Destination": "/d/copied", "Overwrite": overwrite}
    assert budget.of(lambda: budget.client("COPY", "/d/f2", headers=copy)) == {"duplicate": 1}


@pytest.mark.parametrize("overwrite", ["T", "F"])
def test_moving_a_file_cold(budget: Budget, overwrite: str) -> None:
    headers = {"Destination": "/d/moved", "Overwrite": overwrite}
    cold = budget.of(lambda: budget.client("MOVE", "/d/f1", headers=headers))
    assert cold == {"get_metadata": 3, "move": 1}


def test_deleting_and_making_folders(budget: Budget) -> None:
    client = budget.client
    client.propfind("/", depth="1")
    assert budget.of(lambda: client("MKCOL", "/new")) == {"create_directory": 1}
    assert budget.of(lambda: client("DELETE", "/new")) == {"delete": 1}


class WriteBackBudget(Budget):
    """A share with write-back; drain() is what its mover does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "unused")
        self.caching = writeback.share(self.store, folder, delay=0)
        self.client = DavClient(self.caching)
        self.mover = writeback.mover(self.store, folder)

    def drain(self) -> Counter[str]:
        """The calls that it takes until the store has everything."""
        self.store.reset()
        while self.mover.step():
            pass
        return Counter(self.store.calls)


@pytest.fixture
def write_back(tmp_path: Path) -> Iterator[WriteBackBudget]:
    budget = WriteBackBudget(tmp_path)
    budget.truth.create_directory("/d")
    for number in range(1000):
        budget.truth.store_fileobject(io.BytesIO(b"x"), f"/d/f{number}")
    budget.client.propfind("/", depth="1")
    budget.client.propfind("/d", depth="1")
    yield budget
    budget.mover.close()
    budget.caching.close()


def test_writes_wait_for_nothing(write_back: WriteBackBudget) -> None:
    client = write_back.client
    move = {"Destination": "/new/moved"}
    move_back = {"Destination": "/new/back", "Overwrite": "F"}
    for request in (
        lambda: client.put("/d/new", b"1"),
        lambda: client.put("/d/f1", b"2"),
        lambda: client("MKCOL", "/new"),
        lambda: client("MOVE", "/d/new", headers=move),
        lambda: client("MOVE", "/new/moved", headers=move_back),
        lambda: client("MOVE", "/new/back", headers=move),
        lambda: client("DELETE", "/d/f2"),
        lambda: client("DELETE", "/d"),
        lambda: client.propfind("/", depth="1"),
        lambda: client.get("/new/moved"),
    ):
        assert write_back.of(request) == {}


def test_written_and_deleted_costs_nothing(write_back: WriteBackBudget) -> None:
    write_back.client.put("/d/new", b"content")
    write_back.client("DELETE", "/d/new")
    write_back.client("MKCOL", "/d/folder")
    write_back.client.put("/d/folder/new", b"content")
    write_back.client("DELETE", "/d/folder")
    assert write_back.drain() == {}


def test_rewriting_costs_one_upload(write_back: WriteBackBudget) -> None:
    for number in range(10):
        write_back.client.put("/d/f1", b"%d" % number)
    assert write_back.drain() == {"store_resumable": 1}
    assert write_back.of(lambda: write_back.client.get("/d/f1")) == {}


@pytest.mark.parametrize("overwrite", ["T", "F"])
def test_a_safe_save_costs_one_upload(write_back: WriteBackBudget, overwrite: str) -> None:
    """Write beside, move the old away, move in, delete the old."""
    client, content = write_back.client, bytes(200_000)
    write_back.store.reset()
    client.put("/d/new", content)
    client("MOVE", "/d/f1", headers={"Destination": "/d/old", "Overwrite": overwrite})
    client("MOVE", "/d/new", headers={"Destination": "/d/f1", "Overwrite": overwrite})
    client("DELETE", "/d/old")
    assert write_back.store.calls["store_fileobject"] == 0
    calls = Counter(write_back.store.calls) + write_back.drain()
    assert calls["store_resumable"] == 1
    assert write_back.truth.get_file("/d/f1") == content
    assert not write_back.truth.exists("/d/old")
    assert calls.total() <= SAFE_SAVE


def test_deletions_go_together(write_back: WriteBackBudget) -> None:
    for number in range(1000):
        write_back.client("DELETE", f"/d/f{number}")
    assert write_back.drain() == {"get_directory_metadata": 1, "delete_many": 1}
    assert write_back.truth.get_directory_metadata("/d") == {}
