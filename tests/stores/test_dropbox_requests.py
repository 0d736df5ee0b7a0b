"""DropboxStore: the requests that an operation costs, by the log of the emulator."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from davfusion.stores.dropbox import DropboxStore
from davfusion.stores.dropbox.content import MIB
from tests import servers
from tests.conformance import names, put, put_all, put_tree

pytestmark = pytest.mark.live


@pytest.fixture
def store(dropbox: Any) -> Iterator[DropboxStore]:
    """A store with a connection."""
    store = DropboxStore(part_size=4 * MIB)
    store.check_access()
    yield store
    store.reconnect()


@pytest.fixture
def requests(store: DropboxStore, dropbox: Any) -> Callable[[], Counter[str]]:
    """The requests since it was called last, by their kind."""

    def counted() -> Counter[str]:
        return Counter(servers.requests_of(dropbox))

    del store
    counted()
    return counted


def fill(dropbox: Any, folder: str, count: int) -> list[str]:
    """Files of another device, and their names."""
    files = [f"{folder}/{number:04}" for number in range(count)]
    for path in files:
        dropbox.other.put(path, path.encode())
    return files


def test_listing_5000_entries(store: DropboxStore, dropbox: Any, requests: Any) -> None:
    fill(dropbox, "/dir", 5000)
    assert len(store.get_directory_metadata("/dir")) == 5000
    assert requests() == {"list_folder": 1, "list_folder/continue": 2}
    for number in range(100):
        dropbox.other.mkdir(f"/dir/folder {number}/below")
    assert sum(1 for _ in store.walk_metadata("/")) == 5201
    assert requests() == {"list_folder": 1, "list_folder/continue": 2}


def test_uploading_500_small_files(store: DropboxStore, dropbox: Any, requests: Any) -> None:
    put_all(store, [f"/dir/{number}" for number in range(500)])
    cost = requests()
    assert cost["upload"] + cost["upload_session/start"] == 500
    assert cost["upload_session/finish_batch_v2"] < 250
    assert set(cost) <= {"upload", "upload_session/start", "upload_session/finish_batch_v2"}
    assert len(dropbox.other.tree()) == 501


def test_renaming_a_folder_of_500(store: DropboxStore, dropbox: Any, requests: Any) -> None:
    fill(dropbox, "/dir", 500)
    store.move("/dir", "/renamed")
    assert requests() == {"get_metadata": 1, "move_v2": 1}
    assert len(names(store, "/renamed")) == 500
    requests()
    store.duplicate("/renamed", "/copy")
    assert requests() == {"copy_v2": 1}
    store.move("/copy", "/COPY")
    assert requests() == {"get_metadata": 2, "move_v2": 2, "delete_v2": 1}
    store.delete("/COPY", is_dir=True)
    assert requests() == {"get_metadata": 1, "delete_v2": 1}


def test_deleting_500_files(store: DropboxStore, dropbox: Any, requests: Any) -> None:
    files = fill(dropbox, "/dir", 500)
    store.delete_many(files)
    cost = requests()
    assert cost.pop("delete_batch/check") < 20
    assert cost == {"list_folder": 1, "delete_batch": 1}
    assert names(store, "/dir") == set()


def test_one_file(store: DropboxStore, requests: Any) -> None:
    in_parts = DropboxStore(threshold=12 * MIB, part_size=4 * MIB)
    first = put(store, "/file", b"first")
    assert requests() == {"upload": 1}
    put(store, "/file", b"second", if_etag=first["etag"])
    assert requests() == {"upload": 1}
    store.get_metadata("/file")
    assert requests() == {"get_metadata": 1}
    with store.open_read("/file", 2, 3) as stream:
        assert stream.read() == b"con"
    assert requests() == {"download": 1}
    store.move("/file", "/new/name")
    assert requests() == {"get_metadata": 1, "move_v2": 1}
    put(store, "/file")
    requests()
    store.move("/file", "/new/name")
    over = {"move_v2": 1, "get_metadata": 2, "download": 1, "upload": 1, "delete_v2": 1}
    assert requests() == over
    store.delete("/new/name")
    assert requests() == {"get_metadata": 1, "delete_v2": 1}
    put(store, "/large", b"x" * (12 * MIB))
    assert requests() == {"upload": 1}
    put(in_parts, "/large", b"x" * (12 * MIB))
    sent = {"start": 1, "append_v2": 3, "finish_batch_v2": 1}
    assert requests() == {f"upload_session/{step}": count for step, count in sent.items()}
    in_parts.reconnect()


def test_replacing_a_folder(store: DropboxStore, requests: Any) -> None:
    put_tree(store, "/src")
    put_tree(store, "/dst")
    requests()
    store.move("/src", "/dst")
    assert requests() == {"get_metadata": 4, "move_v2": 3, "delete_v2": 1}


def test_a_feed_costs_one_request_while_nothing_changes(
    store: DropboxStore, dropbox: Any, requests: Any
) -> None:
    dropbox.control(settings={"longpoll_scale": 0.001})
    feed = store.feed(None)
    assert feed.wait()
    assert feed.read() is None
    assert requests() == {"list_folder/get_latest_cursor": 1}
    assert not feed.wait()
    assert requests() == {"list_folder/longpoll": 1}
    dropbox.other.put("/file", b"content")
    assert feed.wait()
    assert list(feed.read() or {}) == ["/file"]
    assert requests() == {"list_folder/longpoll": 1, "list_folder/continue": 1}
