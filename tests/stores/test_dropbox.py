"""DropboxStore by the contract, on an emulator of its API: all of a Dropbox, and one folder."""

from collections.abc import Iterator
from typing import Any

import pytest

from davfusion.stores.dropbox import DropboxStore
from davfusion.stores.dropbox.content import MIB
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import PartialFailureError, Store
from davfusion.stores.transfer import move_between
from tests.conformance import NAMES, StoreConformance, contents, put

pytestmark = pytest.mark.live

DROPBOX_NAMES = [name for name in NAMES if "\\" not in name and name != "cafe\u0301"]
DROPBOX_NAMES.remove(" leading and trailing ")
"""It refuses a backslash and a space at the end, and takes composed letters for the others."""


class DropboxConformance(StoreConformance):
    @pytest.mark.parametrize("name", DROPBOX_NAMES, ids=ascii)
    def test_names(self, store: Store, name: str) -> None:
        super().test_names(store, name)


class TestWhole(DropboxConformance):
    @pytest.fixture
    def store(self, dropbox: Any) -> Iterator[Store]:
        del dropbox
        store = DropboxStore()
        yield store
        store.reconnect()


class TestFolderInParts(DropboxConformance):
    """Below a folder; whatever can go in parts does."""

    @pytest.fixture
    def store(self, dropbox: Any) -> Iterator[Store]:
        dropbox.other.mkdir("/Some Folder/below")
        store = DropboxStore("/some folder/Below/", threshold=1, part_size=4 * MIB)
        yield store
        store.reconnect()
        assert set(dropbox.other.tree()) <= {"/Some Folder", "/Some Folder/below"} | {
            path for path in dropbox.other.tree() if path.startswith("/Some Folder/below/")
        }


def test_of_names_that_are_one_there_none_is_lost(dropbox: Any) -> None:
    """A share that tells case apart may hold both; the first goes, and the source stays."""
    del dropbox
    source, target = MemoryStore(), DropboxStore()
    for path in ("/d/A", "/d/a", "/d/Sub/x", "/d/sub/x", "/d/caf\u00e9", "/d/cafe\u0301"):
        put(source, path, path.encode())
    before = contents(source, "/")
    with pytest.raises(PartialFailureError) as caught:
        move_between(source, "/d", target, "/d")
    assert len(caught.value.failures) == 3
    assert contents(source, "/") == before
    stored = set(contents(target, "/").values()) - {None}
    assert len(stored) == 3
    assert stored <= set(before.values())


def test_a_folder_replaces_names_in_another_case(dropbox: Any) -> None:
    del dropbox
    source, target = MemoryStore(), DropboxStore()
    for path in ("/d/OLD", "/d/Gone", "/d/Sub/File", "/d/Sub/gone"):
        put(target, path, b"old")
    for path in ("/d/old", "/d/sub/file"):
        put(source, path, b"new")
    move_between(source, "/d", target, "/d")
    files = {
        path: content for path, content in contents(target, "/").items() if content is not None
    }
    assert files == {"d/OLD": b"new", "d/Sub/File": b"new"}
    assert not source.exists("/d")
