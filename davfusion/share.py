"""The stack of one share, in reading order."""

import logging
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from davfusion.cache.block_caching_store import over_blocks
from davfusion.cache.caching_store import CachingStore
from davfusion.cache.folder import CacheFolder, cache_id_for
from davfusion.cache.following import Follower
from davfusion.cache.junk_store import JunkStore
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.mover import Mover
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.cache.room import Room
from davfusion.cache.spool import left_behind
from davfusion.config import MB, ROOT, ShareConfig
from davfusion.cures import cure
from davfusion.stamp import Stamp
from davfusion.stores import paths
from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.observed import ObservedStore
from davfusion.stores.prompt import PromptStore
from davfusion.stores.registry import TargetError, open_store
from davfusion.stores.retry import DEFAULT_POLICY, RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import (
    NoSuchFilesytemObjectError,
    Store,
    StoreAccessError,
)

_log = logging.getLogger(__name__)

DEFAULT_EXPIRATION: Final = 60.0
FOLLOWED_EXPIRATION: Final = 900.0
"""Seconds: without a change feed, and with one."""

_CONNECTIONS: Final = 4
"""To the service, of each worker, that its start makes."""
_IMPATIENT: Final = RetryPolicy(attempts=4, total=3)
"""For what a client waits for, where writes do not need the store."""
_PERSISTENT: Final = RetryPolicy(attempts=3, total=10)
"""For the mover, which itself tries again for ever."""
_LONGEST_PAUSE: Final = 30.0


class ShareError(Exception):
    """The share cannot be served; the text names the cause and the cure."""


@dataclass(frozen=True)
class PreparedShare:
    """A share that can be served; can be pickled."""

    name: str
    """In the tree; see ServerConfig."""
    config: ShareConfig
    store: str
    """The store's name, from which another login differs."""
    folder: Path
    """The cache folder, which stays claimed until the server ends."""
    memory: MemoryTree | None
    """What all workers of `memory:` share; it lives in a process of its own."""
    sends: bool
    """Whether writes are sent later, by Movers in a process of its own."""
    started: float
    """UTC seconds."""
    warning: str | None
    """What the user should know though the share can be served."""

    def open_target(self) -> Store:
        """The store itself; ShareError, also for that of another login: the cache is not its."""
        if self.memory is not None:
            return MemoryStore(self.memory)
        store = open_target(self.config)
        if store.get_name() != self.store:
            raise ShareError(f"{self.store} is now {store.get_name()}: start the server again")
        return store

    def cache_folder(self) -> CacheFolder:
        """As this process sees it."""
        return CacheFolder(self.folder.parent, self.folder.name)

    def count_pending(self) -> int:
        """How many changes the store has not got yet."""
        if not self.sends:
            return 0
        journal = self.cache_folder().journal(0)
        try:
            return journal.count()
        finally:
            journal.close()


@dataclass(frozen=True)
class OpenShare:
    """What one worker has of a share."""

    name: str
    config: ShareConfig
    store: Store
    """All that stands between the DAV side and the service."""
    state_path: Path
    """The database of locks and properties."""
    warming: threading.Thread
    """Ends when what a client will want first is known, and it has been tried to bring in order
    what a crash has left, however long that takes."""


def open_share(prepared: PreparedShare) -> OpenShare:
    """Called in each worker: clients of a service do not survive a fork."""
    target, folder, config = prepared.open_target(), prepared.cache_folder(), prepared.config
    target.note_asides(folder.asides)
    age = _expiration(config, target)
    policy = _IMPATIENT if prepared.sends else DEFAULT_POLICY
    observed = ObservedStore(target)
    store: Store = RetryingStore(observed, policy)
    if not target.features.cheap_metadata:
        store = PromptStore(store, folder.unsettled, observed, tell=folder.note_away)
    if age:
        listings, started = folder.listings, prepared.started
        store = MetadataCachingStore(store, age, listings=listings, started=started)
    Stamp(folder.path).renew()  # a killed worker may have changed something without doing it
    megabytes, name, parent = config.cache_size // MB, folder.path.name, folder.path.parent
    if prepared.sends:
        delay = config.write_back_delay
        store = MultiprocessingCachingStore(
            store, age, megabytes, name, parent, write_back_delay=delay, owns_cache=False
        )
    else:
        for file in left_behind(folder.spool):  # by a killed worker, and no mover sweeps here
            file.unlink(missing_ok=True)
        store = CachingStore(store, age, megabytes, name, parent)
    if config.junk:
        store = JunkStore(store, folder.path, config.junk)
    warming = threading.Thread(target=_begin, args=(config, target, store, folder), daemon=True)
    warming.start()
    return OpenShare(prepared.name, config, store, folder.path / "state.sqlite", warming)


def _begin(config: ShareConfig, target: Store, store: Store, folder: CacheFolder) -> None:
    if _expiration(config, target):
        warm_up(target, store)
    if not config.read_only:
        folder.asides.settle(store, target)
        threading.Thread(target=_keep_in_order, args=(target, store, folder), daemon=True).start()


def _keep_in_order(target: Store, store: Store, folder: CacheFolder) -> None:
    """Settle what could not be settled, and what fails from now on; never returns."""
    while True:
        time.sleep(_LONGEST_PAUSE)
        folder.asides.settle(store, target)


def warm_up(target: Store, store: Store) -> None:
    """Have `target` connected, and the root known to `store`, by the time a client comes.

    The target is asked past what makes clients wait, and takes a store for away.
    """
    try:
        if target.warm_up(_CONNECTIONS):
            store.get_directory_metadata(paths.ROOT)
    except (StoreAccessError, sqlite3.Error, OSError) as error:
        _log.debug("not warmed up: %s", error)


def open_mover(config: ShareConfig, prepared: PreparedShare | None = None) -> Mover:
    """What sends the writes that open_share's stores keep; called in a process of its own.

    `prepared` None: nobody serves the share just now.
    """
    target = prepared.open_target() if prepared else open_target(config)
    folder = prepared.cache_folder() if prepared else cache_folder(config, target)
    age = _expiration(config, target)
    store: Store = RetryingStore(ObservedStore(target), _PERSISTENT)
    if age:
        store = MetadataCachingStore(store, age, listings=folder.listings)
    Stamp(folder.path).renew()
    journal = folder.journal(config.write_back_delay)
    room = Room(config.cache_size, journal, folder.spool)
    clean = over_blocks(store, age, config.cache_size // MB, folder, room.spooled)
    return Mover(clean, folder, journal)


@dataclass(frozen=True)
class Movers:
    """Sends the writes of several shares in one process, each in a thread; can be pickled."""

    shares: tuple[PreparedShare, ...]

    def __call__(self, stop: threading.Event) -> None:
        """Return when `stop` is set."""
        threads = [
            threading.Thread(target=_send, args=(share, stop), name=f"mover {share.name}")
            for share in self.shares
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _send(prepared: PreparedShare, stop: threading.Event) -> None:
    """One share's failure holds up no other's; a mover that fails is made anew."""
    pause, is_followed = 0.5, False
    while not stop.is_set():
        begun = time.monotonic()
        try:
            if not is_followed:
                follow(prepared, stop)
                is_followed = True
            open_mover(prepared.config, prepared).run(stop)
        except Exception:
            if time.monotonic() > begun + _LONGEST_PAUSE:
                pause = 0.5
            _log.exception("%s: sending failed; it goes on in %gs", prepared.name, pause)
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def follow(prepared: PreparedShare, stop: threading.Event) -> None:
    """Forget what others change as the service tells it, in a thread that ends with the process."""
    target = prepared.open_target()
    if not (target.features.change_feed and _expiration(prepared.config, target)):
        return
    feed = prepared.folder / "feed"
    follower = Follower(target, prepared.cache_folder().listings, feed, stop.wait)
    threading.Thread(target=follower.run, args=[stop], name="follow", daemon=True).start()


def open_target(config: ShareConfig) -> Store:
    """The store that the share shows, which knows whose it is; ShareError."""
    try:
        store = open_store(config.target, config.options)
        store.get_name()
    except NoSuchFilesytemObjectError as error:
        raise ShareError(f"{config.target} does not exist: make it, or check its name") from error
    except StoreAccessError as error:
        raise ShareError(f"{error}; {cure(config, error)}") from error
    except TargetError as error:
        raise ShareError(str(error)) from error
    return store


def cache_folder(config: ShareConfig, store: Store, name: str = ROOT) -> CacheFolder:
    """The folder of the share's cache, whether it is there or not; ShareError.

    By default it follows from the store, but that of a `memory:` also from the share's name: each
    is a store of its own.
    """
    own = f" {name}" if store.features.one_process and name != ROOT else ""
    cache_id = config.cache_id or cache_id_for(store.get_name() + own)
    try:
        return CacheFolder(config.cache_dir and config.cache_dir.absolute(), cache_id)
    except ValueError as error:
        raise ShareError(f"--cache-id: {error}") from error


def writes_back(config: ShareConfig, store: Store) -> bool:
    """Whether writes are answered before the store has them."""
    if config.write_mode is None:
        return not store.features.cheap_metadata
    return config.write_mode == "back"


def _expiration(config: ShareConfig, store: Store) -> float:
    """Seconds; 0 where asking the store costs no more, so that outside changes show at once."""
    if config.cache_expiration is not None:
        return config.cache_expiration
    if store.features.cheap_metadata:
        return 0.0
    is_followed = store.features.change_feed and writes_back(config, store)
    return FOLLOWED_EXPIRATION if is_followed else DEFAULT_EXPIRATION
