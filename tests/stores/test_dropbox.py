"""DropboxStore by the contract, on an emulator of its API: all of a Dropbox, and one folder."""

from collections.abc import Iterator
from typing import Any

import pytest

from davfusion.stores.dropbox import DropboxStore
from davfusion.stores.dropbox.content import MIB
from davfusion.stores.store import Store
from tests.conformance import NAMES, StoreConformance

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
