"""The stack of one share, in reading order, and what must be true before it is served."""

import dataclasses
import logging
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from davfusion.access_log import configure_logging
from davfusion.cache.block_caching_store import over_blocks
from davfusion.cache.caching_store import CachingStore
from davfusion.cache.folder import CacheFolder, CacheInUseError, cache_id_for
from davfusion.cache.following import Follower
from davfusion.cache.junk_store import JunkStore
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.cache.mover import Mover
from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.cache.room import Room
from davfusion.config import MB, DropboxOptions, S3Options, ServeConfig
from davfusion.platform import START_METHOD
from davfusion.share_note import note_share, read_note
from davfusion.stamp import Stamp
from davfusion.stores import paths
from davfusion.stores.errors import UnreachableError
from davfusion.stores.memory import MemoryStore, MemoryTree, MemoryTreeManager
from davfusion.stores.observed import ObservedStore
from davfusion.stores.prompt import PromptStore
from davfusion.stores.registry import TargetError, open_store
from davfusion.stores.retry import DEFAULT_POLICY, RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import (
    NoSuchFilesytemObjectError,
    Store,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
)

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_log = logging.getLogger(__name__)

DEFAULT_EXPIRATION: Final = 60.0
FOLLOWED_EXPIRATION: Final = 900.0
"""Seconds: without a change feed, and with one."""

_PATIENCE: Final = 1.0
"""Seconds that a start waits for the store's first answer."""
_PATIENCE_AGAIN: Final = 0.6
"""The same for a share that has been served from this cache before."""
_CONNECTIONS: Final = 4
"""To the service, of each worker, that its start makes."""
_WARMING: Final = 0.15
"""Seconds that a worker's start waits for these connections; longer than that they take alone."""
_OFFLINE: Final = "Until it answers, what is cached is served, and writes are kept and sent later."
_IMPATIENT: Final = RetryPolicy(attempts=4, total=3)
"""For what a client waits for, where writes do not need the store."""
_PERSISTENT: Final = RetryPolicy(attempts=3, total=10)
"""For the mover, which itself tries again for ever."""


class ShareError(Exception):
    """The share cannot be served; the text names the cause and the cure."""


@dataclasses.dataclass(frozen=True)
class PreparedShare:
    """A share that can be served; can be pickled."""

    folder: Path
    """The cache folder, which stays claimed until this process ends."""
    memory: MemoryTree | None
    """What all workers of `memory:` share; it lives in a process of its own."""
    sends: bool
    """Whether writes are sent later, by run_mover in a process of its own."""
    started: float
    """UTC seconds."""
    warning: str | None
    """What the user should know though the share can be served."""


def prepare(config: ServeConfig) -> PreparedShare:
    """Ask the store whether it can be used, and claim and recover the cache folder.

    Called once, before the workers start. Raises ShareError. A store that does not answer is no
    error: what is cached is served, and writes are kept, until it does.
    """
    store = _open_target(config)
    folder = _cache_folder(config, store)
    _check_outside(folder, config.target)
    sends = _writes_back(config, store)
    patience = _PATIENCE_AGAIN if read_note(folder.path) else _PATIENCE
    warning = _check_access(config, store, patience)
    try:
        folder.claim()
        folder.recover()
        note_share(folder, config)
    except CacheInUseError as error:
        raise ShareError(f"{error}: stop it, or give this one another --cache-id") from error
    except OSError as error:
        raise ShareError(
            f"the cache folder {folder.path} cannot be written ({error.strerror}): "
            "choose another with --cache-dir"
        ) from error
    _claimed.append(folder)
    if not sends:
        _require_nothing_pending(folder)
    memory = _shared_memory() if store.features.one_process else None
    return PreparedShare(folder.path, memory, sends, time.time(), warning)


_claimed: list[CacheFolder] = []
"""Folders of this process; the claim lasts as long as the object."""


def _check_access(config: ServeConfig, store: Store, patience: float = _PATIENCE) -> str | None:
    """A warning where nobody answers, ShareError where the answer is no.

    It is asked in a process of its own: a thread that is in the middle of something, if only of
    its end, when the workers are forked may leave them a lock of OpenSSL's that nobody opens. What
    is late goes on there.
    """
    context: Any = multiprocessing.get_context(START_METHOD)
    receiver, sender = context.Pipe(duplex=False)
    with receiver, sender:
        process = context.Process(target=_report_access, args=(config, sender), daemon=True)
        process.start()
        if not receiver.poll(patience):
            return f"{store.get_name()} has not answered yet. {_OFFLINE}"
        error: StoreAccessError | None = receiver.recv()
        process.join()
    if isinstance(error, UnreachableError):
        return f"{error}; {_cure(config, error)}. {_OFFLINE}"
    if error is not None:
        raise ShareError(f"{error}; {_cure(config, error)}") from error
    return None


def _report_access(config: ServeConfig, answer: "Connection") -> None:
    """Send the error of the store's check_access, or None."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    configure_logging(config.log_level)
    try:
        _open_target(config).check_access()
    except StoreAccessError as error:
        answer.send(error)
    else:
        answer.send(None)


def _require_nothing_pending(folder: CacheFolder) -> None:
    journal = folder.journal(0)
    try:
        if journal.has_below(paths.ROOT):
            raise ShareError(
                "changes of an earlier run have not been sent yet: run `davfusion drain`, or serve "
                "with --write-mode back"
            )
    finally:
        journal.close()


def count_pending(prepared: PreparedShare) -> int:
    """How many changes the store has not got yet."""
    if not prepared.sends:
        return 0
    journal = CacheFolder(prepared.folder.parent, prepared.folder.name).journal(0)
    try:
        return journal.count()
    finally:
        journal.close()


def _writes_back(config: ServeConfig, store: Store) -> bool:
    if config.write_mode is None:
        return not store.features.cheap_metadata
    return config.write_mode == "back"


def _check_outside(folder: CacheFolder, target: str) -> None:
    """A cache that is served could be listed and deleted by every client."""
    served = Path(target.removeprefix("local:")).expanduser().resolve()
    if folder.path.resolve().is_relative_to(served):
        raise ShareError(
            f"the cache folder {folder.path} lies inside of what is served: "
            "choose another with --cache-dir"
        )


def _shared_memory() -> MemoryTree:
    manager = MemoryTreeManager(ctx=multiprocessing.get_context(START_METHOD))
    manager.start(_end_with_parent)
    return manager.tree()


def _end_with_parent() -> None:
    """Nobody would stop the process of a manager whose parent was killed."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _cure(config: ServeConfig, error: StoreAccessError) -> str:
    if _is_dropbox(config):
        return "docs/dropbox.md says how Dropbox is served"
    if isinstance(error, TransientStoreError):
        return "check the network and the address (--s3-endpoint-url, AWS_ENDPOINT_URL)"
    if not isinstance(error, StoreAutorizationError):
        return "check the name and the settings of the store"
    if _is_s3(config):
        return "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and their rights"
    return "give this user the permission to read it, or start as another"


def open_share(config: ServeConfig, prepared: PreparedShare) -> tuple[Store, Path]:
    """All that stands between the DAV side and the service, and the database of locks.

    Called in each worker: clients of a service do not survive a fork.
    """
    target = _open_target(config) if prepared.memory is None else MemoryStore(prepared.memory)
    folder = CacheFolder(prepared.folder.parent, prepared.folder.name)
    age = _expiration(config, target)
    policy = _IMPATIENT if prepared.sends else DEFAULT_POLICY
    store: Store = RetryingStore(ObservedStore(target), policy)
    if not target.features.cheap_metadata:
        store = PromptStore(store, tell=folder.note_away)
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
        store = CachingStore(store, age, megabytes, name, parent)
    if config.junk:
        store = JunkStore(store, folder.path, config.junk)
    if age:
        warming = threading.Thread(target=warm_up, args=(target, store), daemon=True)
        warming.start()
        warming.join(_WARMING)
    return store, folder.path / "state.sqlite"


def warm_up(target: Store, store: Store) -> None:
    """Have `target` connected, and the root known to `store`, by the time a client comes.

    The target is asked past what makes clients wait, and takes a store for away.
    """
    try:
        if target.warm_up(_CONNECTIONS):
            store.get_directory_metadata(paths.ROOT)
    except (StoreAccessError, sqlite3.Error, OSError) as error:
        _log.debug("not warmed up: %s", error)


def open_mover(config: ServeConfig, prepared: PreparedShare | None = None) -> Mover:
    """What sends the writes that open_share's stores keep; called in a process of its own.

    `prepared` None: nobody serves the share just now.
    """
    memory = prepared.memory if prepared else None
    target = _open_target(config) if memory is None else MemoryStore(memory)
    if prepared:
        folder = CacheFolder(prepared.folder.parent, prepared.folder.name)
    else:
        folder = _cache_folder(config, target)
    age = _expiration(config, target)
    store: Store = RetryingStore(ObservedStore(target), _PERSISTENT)
    if age:
        store = MetadataCachingStore(store, age, listings=folder.listings)
    Stamp(folder.path).renew()
    journal = folder.journal(config.write_back_delay)
    room = Room(config.cache_size, journal, folder.spool)
    clean = over_blocks(store, age, config.cache_size // MB, folder, room.spooled)
    return Mover(clean, folder, journal)


def run_mover(config: ServeConfig, prepared: PreparedShare, stop: threading.Event) -> None:
    """Send writes, and follow what others change, until `stop` is set."""
    follow(config, prepared, stop)
    open_mover(config, prepared).run(stop)


def follow(config: ServeConfig, prepared: PreparedShare, stop: threading.Event) -> None:
    """Forget what others change as the service tells it, in a thread that ends with the process."""
    target = _open_target(config)
    if not (target.features.change_feed and _expiration(config, target)):
        return
    folder = CacheFolder(prepared.folder.parent, prepared.folder.name)
    follower = Follower(target, folder.listings, folder.path / "feed", stop.wait)
    threading.Thread(target=follower.run, args=[stop], name="follow", daemon=True).start()


def _open_target(config: ServeConfig) -> Store:
    try:
        return open_store(config.target, _options(config))
    except NoSuchFilesytemObjectError as error:
        raise ShareError(f"{config.target} does not exist: make it, or check its name") from error
    except StoreAutorizationError as error:
        raise ShareError(f"{error}; {_cure(config, error)}") from error
    except (TargetError, StoreAccessError) as error:
        raise ShareError(str(error)) from error


def cache_folder(config: ServeConfig) -> CacheFolder:
    """The folder of the share's cache, whether it is there or not; ShareError."""
    return _cache_folder(config, _open_target(config))


def check_access(config: ServeConfig) -> bool:
    """Whether the store answers; ShareError where it refuses."""
    return _check_access(config, _open_target(config)) is None


def _cache_folder(config: ServeConfig, store: Store) -> CacheFolder:
    cache_id = config.cache_id or cache_id_for(store.get_name())
    try:
        return CacheFolder(config.cache_dir and config.cache_dir.absolute(), cache_id)
    except ValueError as error:
        raise ShareError(f"--cache-id: {error}") from error


def _options(config: ServeConfig) -> S3Options | DropboxOptions | None:
    if _is_s3(config):
        return config.s3
    return config.dropbox if _is_dropbox(config) else None


def _is_s3(config: ServeConfig) -> bool:
    return config.target.lower().startswith("s3:")


def _is_dropbox(config: ServeConfig) -> bool:
    return config.target.lower().startswith("dropbox:")


def _expiration(config: ServeConfig, store: Store) -> float:
    """Seconds; 0 where asking the store costs no more, so that outside changes show at once."""
    if config.cache_expiration is not None:
        return config.cache_expiration
    if store.features.cheap_metadata:
        return 0.0
    is_followed = store.features.change_feed and _writes_back(config, store)
    return FOLLOWED_EXPIRATION if is_followed else DEFAULT_EXPIRATION
