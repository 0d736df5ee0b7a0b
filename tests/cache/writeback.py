"""Shares with write-back, for tests: the mover is one that is stepped by hand."""

import time
from collections.abc import Callable
from pathlib import Path

from davfusion.cache.block_caching_store import over_blocks
from davfusion.cache.folder import CacheFolder
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.mover import Mover
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.stores.store import Store


def share(
    store: Store,
    folder: Path,
    *,
    delay: float = 1.0,
    age: float = 60.0,
    megabytes: int = 2000,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> MultiprocessingCachingStore:
    """As a worker has it: somebody else owns the cache folder and sends."""
    listings = CacheFolder(folder, "test").listings
    return MultiprocessingCachingStore(
        MetadataCachingStore(store, age, listings=listings, clock=clock),
        age,
        megabytes,
        "test",
        folder,
        write_back_delay=delay,
        owns_cache=False,
        clock=clock,
        wait=wait,
    )


def mover(
    store: Store, folder: Path, *, age: float = 60.0, clock: Callable[[], float] = time.time
) -> Mover:
    """The mover of such shares."""
    cache = CacheFolder(folder, "test")
    metadata = MetadataCachingStore(store, age, listings=cache.listings, clock=clock)
    return Mover(over_blocks(metadata, age, 2000, cache), cache, cache.journal(0, clock=clock))
