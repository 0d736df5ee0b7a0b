"""The stack of one share, in reading order, and what must be true before it is served."""

import dataclasses
import multiprocessing
import os
import threading
from pathlib import Path

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.folder import CacheFolder, CacheInUseError, cache_id_for
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.config import MB, ServeConfig
from davfusion.platform import START_METHOD
from davfusion.stores.memory import MemoryStore, MemoryTree, MemoryTreeManager
from davfusion.stores.observed import ObservedStore
from davfusion.stores.registry import TargetError, open_store
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import (
    NoSuchFilesytemObjectError,
    Store,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
)

DEFAULT_EXPIRATION = 60.0
"""Seconds."""


class ShareError(Exception):
    """The share cannot be served; the text names the cause and the cure."""


@dataclasses.dataclass(frozen=True)
class PreparedShare:
    """A share that can be served; its cache folder stays claimed while this is kept."""

    folder: CacheFolder
    memory: MemoryTree | None
    """What all workers of `memory:` share; it lives in a process of its own."""


def prepare(config: ServeConfig) -> PreparedShare:
    """Ask the store whether it can be used, and claim and recover the cache folder.

    Called once, before the workers start. Raises ShareError.
    """
    store = _open_target(config)
    folder = _cache_folder(config, store)
    _check_outside(folder, config.target)
    try:
        folder.claim()
        folder.recover()
    except CacheInUseError as error:
        raise ShareError(f"{error}: stop it, or give this one another --cache-id") from error
    except OSError as error:
        raise ShareError(
            f"the cache folder {folder.path} cannot be written ({error.strerror}): "
            "choose another with --cache-dir"
        ) from error
    try:
        store.check_access()
    except StoreAccessError as error:
        raise ShareError(f"{error}; {_cure(config, error)}") from error
    return PreparedShare(folder, _shared_memory() if store.features.one_process else None)


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
    if isinstance(error, TransientStoreError):
        return "check the network and the address (--s3-endpoint-url, AWS_ENDPOINT_URL)"
    if not isinstance(error, StoreAutorizationError):
        return "check the name and the settings of the store"
    if _is_s3(config):
        return "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and their rights"
    return "give this user the permission to read it, or start as another"


def open_share(config: ServeConfig, memory: MemoryTree | None = None) -> tuple[Store, Path]:
    """All that stands between the DAV side and the service, and the database of locks.

    Called in each worker: clients of a service do not survive a fork.
    """
    target = _open_target(config) if memory is None else MemoryStore(memory)
    folder = _cache_folder(config, target)
    expiration = _expiration(config, target)
    store: Store = RetryingStore(ObservedStore(target))
    if expiration:
        store = MetadataCachingStore(store, expiration, listings=folder.listings)
    megabytes = config.cache_size // MB
    store = CachingStore(store, expiration, megabytes, folder.path.name, folder.path.parent)
    return store, folder.path / "state.sqlite"


def _open_target(config: ServeConfig) -> Store:
    try:
        return open_store(config.target, config.s3)
    except NoSuchFilesytemObjectError as error:
        raise ShareError(f"{config.target} does not exist: make it, or check its name") from error
    except StoreAutorizationError as error:
        raise ShareError(f"{error}; {_cure(config, error)}") from error
    except (TargetError, StoreAccessError) as error:
        raise ShareError(str(error)) from error


def _cache_folder(config: ServeConfig, store: Store) -> CacheFolder:
    cache_id = config.cache_id or cache_id_for(store.get_name())
    try:
        return CacheFolder(config.cache_dir and config.cache_dir.absolute(), cache_id)
    except ValueError as error:
        raise ShareError(f"--cache-id: {error}") from error


def _is_s3(config: ServeConfig) -> bool:
    return config.target.lower().startswith("s3:")


def _expiration(config: ServeConfig, store: Store) -> float:
    """Seconds; 0 where asking the store costs no more, so that outside changes show at once."""
    if config.cache_expiration is not None:
        return config.cache_expiration
    return 0.0 if store.features.cheap_metadata else DEFAULT_EXPIRATION
