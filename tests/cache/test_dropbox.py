"""A Dropbox behind the caches: the contract, spellings, and what other devices change."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from davfusion.cache.following import Follower
from davfusion.cache.listings import ListingTable
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores.dropbox import DropboxStore
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import Store
from tests.conformance import names, put, read
from tests.stores.test_dropbox import DropboxConformance

pytestmark = pytest.mark.live


def behind_caches(target: Store, folder: Path, delay: float) -> MultiprocessingCachingStore:
    """As share.py has it."""
    known = MetadataCachingStore(RetryingStore(target), listings=ListingTable(folder / "l.sqlite"))
    return MultiprocessingCachingStore(known, cache_dir=folder, write_back_delay=delay)


class TestKept(DropboxConformance):
    """All that is to be seen is in the journal: nothing is sent."""

    delay = 3600.0

    @pytest.fixture
    def store(self, dropbox: Any, tmp_path: Path) -> Iterator[Store]:
        del dropbox
        target = DropboxStore()
        store = behind_caches(target, tmp_path, self.delay)
        yield store
        store.close()
        target.reconnect()


class TestSent(TestKept):
    """All is sent at once, beside what the tests do."""

    delay = 0.0
