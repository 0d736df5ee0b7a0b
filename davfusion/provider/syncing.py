"""Looking for changes of a tree: what the log of changes compares, and the tokens of folders."""

import hashlib
import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

from wsgidav.dav_error import DAVError

from davfusion.provider.errors import RETRY_SECONDS, translated
from davfusion.provider.state import State
from davfusion.provider.sync_log import FILE, FOLDER, Scope
from davfusion.stores import paths
from davfusion.stores.store import Metadata, Store, StoreAutorizationError
from davfusion.stores.walking import depth_first

_log = logging.getLogger(__name__)


@contextmanager
def available() -> Iterator[None]:
    """503 where another request's look at the share lasts too long."""
    try:
        yield
    except sqlite3.OperationalError as error:
        wait = [("Retry-After", str(RETRY_SECONDS))]
        raise DAVError(503, f"Changes are being looked for: {error}", add_headers=wait) from error


def look(store: Store, state: State, scope: Scope) -> None:
    """Number what has changed by now."""

    def versions() -> Iterator[tuple[str, str]]:
        for path, metadata in _members(store, scope, unseen):
            yield path, _version(metadata, dead_of(paths.parent(path)).get(paths.name(path)))

    # A walk goes back to no more folders than lie above the one where it is.
    dead_of = lru_cache(maxsize=256)(state.properties.of_members)
    unseen: set[str] = set()
    with translated(), state.sync.look() as found:
        found.through(scope, versions(), unseen)


def _members(store: Store, scope: Scope, unseen: set[str]) -> Iterator[tuple[str, Metadata]]:
    """All in the scope; folders that may not be read are noted, for their members are not gone."""

    def listing(directory: str) -> Mapping[str, Metadata]:
        try:
            return store.get_directory_metadata(directory)
        except StoreAutorizationError as error:
            if directory == scope.folder:
                raise
            _log.warning("left out of the changes of %s: %s", scope.folder, error)
            unseen.add(directory)
            return {}

    if scope.deep and store.features.flat_listing:
        return store.walk_metadata(scope.folder)
    if scope.deep:
        return depth_first(scope.folder, listing)
    members = listing(scope.folder)
    return ((paths.join(scope.folder, name), metadata) for name, metadata in members.items())


def _version(metadata: Metadata, dead: Mapping[str, str] | None) -> str:
    """What differs whenever content or dead properties do."""
    if metadata["is_dir"]:
        version = FOLDER
    else:
        version = FILE + (metadata.get("etag") or f"{metadata['modified']} {metadata['bytes']}")
    if not dead:
        return version
    return f"{version} {hashlib.sha256(repr(sorted(dead.items())).encode()).hexdigest()}"


class SyncTokens:
    """Tells the token of `top` and of folders below it; all of it is looked at, once."""

    def __init__(self, store: Store, state: State, top: str) -> None:
        self._store = store
        self._state = state
        self._top = top
        self._has_looked = False

    def __call__(self, folder: str) -> str:
        with available():
            if not self._has_looked:
                look(self._store, self._state, Scope(self._top, deep=True))
                self._has_looked = True
            return self._state.sync.token(folder)
