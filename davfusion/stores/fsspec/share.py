"""Where a share lies in a service, and what of it is seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from davfusion.stores import paths
from davfusion.stores.errors import (
    AlreadyExistsError,
    ConflictError,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
)
from davfusion.stores.fsspec.backend import Backend
from davfusion.stores.fsspec.connections import Connections
from davfusion.stores.fsspec.errors import backend_errors
from davfusion.stores.store import ABSENT, UNDATED_DIRECTORY, Metadata

WORK: Final = ".davfusion-tmp"
"""The folder, below the share's root, of what is not yet or no longer in its place."""
KEEP: Final = ".davfusion-folder"
"""An empty file that keeps a folder where folders are no more than what their files' names say."""


class FsspecShare:
    """What lies below `root`, or `top` where that is empty, of what `connections` lead to."""

    def __init__(self, connections: Connections, root: str, top: str) -> None:
        self.connections = connections
        self._root = root
        self._top = top

    def at(self, path: str) -> str:
        """The service's name for a path of the store."""
        if not self._root:
            return self._top + path.removeprefix("/")
        return self._root if path == paths.ROOT else self._root + path

    @contextmanager
    def lent(self, path: str) -> Iterator[Backend]:
        """A backend for reading or changing `path`."""
        with self.connections.lent(path) as backend:
            yield backend

    def stat(self, backend: Backend, path: str) -> Metadata:
        """Metadata of what is shown under `path`."""
        if is_hidden(path):
            raise NoSuchFilesytemObjectError(path)
        try:
            with backend_errors(path):
                return backend.stat(self.at(path))
        except NoSuchFilesytemObjectError:
            if path != paths.ROOT:
                raise
            return self._missing_root(backend)

    def stat_or_none(self, backend: Backend, path: str) -> Metadata | None:
        """Metadata of what is stored under `path`, hidden or not; None where nothing is."""
        try:
            with backend_errors(path):
                return backend.stat(self.at(path))
        except NoSuchFilesytemObjectError:
            return None

    def listing(self, backend: Backend, directory: str) -> dict[str, Metadata]:
        """Name -> metadata of the members that are shown, and of no others."""
        members = self.listing_of_all(backend, directory)
        return {name: found for name, found in members.items() if name not in (WORK, KEEP)}

    def listing_of_all(self, backend: Backend, directory: str) -> dict[str, Metadata]:
        """As listing, with what is hidden."""
        try:
            with backend_errors(directory):
                return backend.listing(self.at(directory))
        except NoSuchFilesytemObjectError:
            if directory != paths.ROOT:
                raise
            self._missing_root(backend)
            return {}

    def _missing_root(self, backend: Backend) -> Metadata:
        if backend.renames:
            # Not 404: a client that keeps a copy in step would delete all of it.
            raise StoreAccessError(f"the folder {self.at(paths.ROOT)} is not there", 502)
        return UNDATED_DIRECTORY


def require_version(held: Metadata | None, path: str, if_etag: str | None) -> None:
    """Raise where `held`, what is at `path`, must not be replaced by a file."""
    if held is not None and held["is_dir"]:
        raise AlreadyExistsError(f"{path} is a directory")
    if if_etag not in (None, ABSENT if held is None else held.get("etag")):
        raise ConflictError(f"{path} is not version {if_etag or 'absent'}")


def require_whole(stored: Metadata, path: str, size: int) -> None:
    """Raise where another number of bytes is stored than was sent."""
    if stored["bytes"] != size:
        raise TransientStoreError(f"{path}: {stored['bytes']} of {size} bytes arrived")


def require_writable(path: str) -> str:
    """Return `path` unless it is the root or a name of ours."""
    if path == paths.ROOT or is_hidden(path):
        raise StoreAutorizationError(f"{path} is not for writing")
    return path


def is_hidden(path: str) -> bool:
    """Whether a segment of `path` is a name of ours."""
    return WORK in path.split("/") or KEEP in path.split("/")
