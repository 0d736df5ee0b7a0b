"""A server with write-back as its processes have it, on one folder and without the processes."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from davfusion.cache.block_caching_store import over_blocks
from davfusion.cache.folder import CacheFolder
from davfusion.cache.holds import Holds
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.mover import ROOM, Mover
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.cache.outbox import Outbox
from davfusion.provider.state import State
from davfusion.stores import paths
from davfusion.stores.observed import ObservedStore
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import Store
from tests.provider.client import DavClient

AGE = 60.0
DELAY = 1.0
MEGABYTES = 8
"""Contents up to 16 KiB lie in packs."""


class Server:
    """Two workers and a mover that is stepped by hand; they share only what is in `folder`.

    While a worker waits for the mover, that makes its steps, and `pass_time` is told the seconds.
    """

    def __init__(
        self,
        service: Store,
        folder: Path,
        clock: Callable[[], float],
        pass_time: Callable[[float], None],
    ) -> None:
        self._service = service
        self._folder = folder
        self._clock = clock
        self._pass_time = pass_time
        self._caches: list[CacheFolder] = []
        self.start()

    def start(self, *, recover: bool = True) -> None:
        """With `recover` all processes, else those that died while the others stayed."""
        cache = self._cache()
        cache.prepare()
        if recover:
            cache.recover()
        self.spool = cache.path / "spool"
        self.journal = cache.journal(0, self._clock)
        self.outbox = Outbox(self.journal, cache.spool)
        self.outbox.begin()
        Holds(self.journal, cache.path / "owners").remove_void(cache.doubt)
        self.clients = [self._worker() for _ in range(2)]
        self._mover = self._open_mover()

    def stop(self) -> None:
        """Close all that is open; nothing is sent any more."""
        for client in self.clients:
            client.state.close()
            client.store.close()  # type: ignore[attr-defined]
        self._mover_store.close()
        self._mover_journal.close()
        self.journal.close()
        for cache in self._caches:
            cache.release()
        self._caches = []

    def remove(self) -> None:
        """Stop, and leave nothing."""
        self.stop()
        shutil.rmtree(self._folder)

    def step(self, room: Mapping[str, int] = ROOM) -> int:
        """One step of the mover; how many rows it sent."""
        return self._mover.step(room)

    def drain(self) -> None:
        """Return when the store has all, which answers now."""
        for _ in range(1000):
            if not self.pending():
                return
            self.outbox.hurry()
            self.step()
        raise AssertionError(f"never sent: {self.journal.below(paths.ROOT)}")

    def pending(self) -> bool:
        """Whether the store has not got everything."""
        return self.journal.has_below(paths.ROOT)

    def _cache(self) -> CacheFolder:
        self._caches.append(CacheFolder(self._folder, "test"))
        return self._caches[-1]

    def _metadata(self, attempts: int) -> Store:
        policy = RetryPolicy(attempts=attempts, sleep=lambda _: None)
        store = RetryingStore(ObservedStore(self._service), policy)
        return MetadataCachingStore(store, AGE, listings=self._cache().listings, clock=self._clock)

    def _worker(self) -> DavClient:
        store = MultiprocessingCachingStore(
            self._metadata(2),
            AGE,
            MEGABYTES,
            "test",
            self._folder,
            write_back_delay=DELAY,
            owns_cache=False,
            clock=self._clock,
            wait=self._wait,
        )
        return DavClient(store, State(self._cache().path / "state.sqlite", self._clock))

    def _open_mover(self) -> Mover:
        cache = self._cache()
        self._mover_store = over_blocks(self._metadata(1), AGE, MEGABYTES, cache)
        self._mover_journal = cache.journal(0, self._clock)
        return Mover(self._mover_store, cache, self._mover_journal)

    def _wait(self, seconds: float) -> None:
        self._pass_time(seconds)
        self.step()
