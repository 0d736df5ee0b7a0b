"""How many calls of the store each request costs (rows M1 to M3; docs/semantics.md says them)."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.stores.observed import ObservedStore
from tests.provider.client import DavClient, Reply
from tests.remote import RemoteStore


class Budget:
    """A share whose calls of the store are counted."""

    def __init__(self, folder: Path) -> None:
        self.truth = RemoteStore()
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
    budget = Budget(tmp_path)
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


def test_moving_and_copying_a_file(budget: Budget) -> None:
    client = budget.client
    client.propfind("/d", depth="1")
    move = {"Destination": "/d/moved"}
    assert budget.of(lambda: client("MOVE", "/d/f1", headers=move)) == {"move": 1}
    copy = {"Destination": "/d/copied"}
    assert budget.of(lambda: client("COPY", "/d/f2", headers=copy)) == {"duplicate": 1}


def test_moving_a_file_cold(budget: Budget) -> None:
    headers = {"Destination": "/d/moved"}
    cold = budget.of(lambda: budget.client("MOVE", "/d/f1", headers=headers))
    assert cold == {"get_metadata": 3, "move": 1}


def test_deleting_and_making_folders(budget: Budget) -> None:
    client = budget.client
    client.propfind("/", depth="1")
    assert budget.of(lambda: client("MKCOL", "/new")) == {"create_directory": 1}
    assert budget.of(lambda: client("DELETE", "/new")) == {"delete": 1}
