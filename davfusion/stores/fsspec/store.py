"""FsspecStore: a service that fsspec reaches, as a Store.

What fsspec's interface leaves open (whether a put replaces at once, what tells versions apart,
whether threads may share a connection) is said by a Backend for each kind of service.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

from davfusion.stores import paths
from davfusion.stores.aside import Asides, UnnotedAsides
from davfusion.stores.errors import InvalidPathValueError
from davfusion.stores.fsspec.address import Address, parse
from davfusion.stores.fsspec.backend import Backend
from davfusion.stores.fsspec.connections import Connections
from davfusion.stores.fsspec.putting import Putting
from davfusion.stores.fsspec.renaming import Renaming
from davfusion.stores.fsspec.share import FsspecShare, is_hidden, require_writable
from davfusion.stores.store import (
    AlreadyExistsError,
    Features,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    StoreAutorizationError,
)
from davfusion.stores.transfer import copy_between, require_apart


class FsspecStore(Store):
    """What lies below `url`; `options` are those of fsspec's class for its scheme.

    No service compares versions for us: with `if_etag` that is done just before the write. Raises
    ValueError for a URL that cannot be used, ImportError where a package is missing.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time, **options: Any) -> None:
        self._address: Address = parse(url, options)
        self._connections = Connections(self._address.connect)
        self._share = FsspecShare(self._connections, self._address.root, self._address.top)
        self._clock = clock
        self._asides: Asides = UnnotedAsides()
        self._changes = _changes(self._address.backend)(self._share)

    @property
    def features(self) -> Features:
        return self._address.backend.features

    @property
    def asides(self) -> Asides:
        return self._asides

    def note_asides(self, asides: Asides) -> None:
        self._asides = asides
        if isinstance(self._changes, Renaming):
            self._changes.asides = asides

    def require_storable(self, path: str) -> None:
        if is_hidden(paths.check_path(path)):
            raise InvalidPathValueError(f"{path}: davfusion keeps that name for itself")
        for name in path.split("/"):
            if reason := self._address.backend.why_refused(name):
                raise InvalidPathValueError(
                    f"{self._address.name} takes no name {reason}: {name!r}"
                )

    def _require_target(self, path: str) -> None:
        self._require_writable(path)
        self.require_storable(path)

    def _require_writable(self, path: str) -> str:
        if not self.features.writable:
            raise StoreAutorizationError(f"{self._address.name} can only be read")
        return require_writable(path)

    def check_access(self) -> None:
        """List the root; then remove what uploads left that broke off a day ago or earlier."""
        self.get_directory_metadata(paths.ROOT)
        if isinstance(self._changes, Renaming):
            self._changes.sweep(self._clock())

    def get_metadata(self, path: str) -> Metadata:
        with self._share.lent(paths.check_path(path)) as backend:
            return self._share.stat(backend, path)

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        with self._share.lent(paths.check_path(directory)) as backend:
            return self._share.listing(backend, directory)

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        paths.check_path(path)
        if is_hidden(path):
            raise NoSuchFilesytemObjectError(path)
        place = self._share.at(path)
        return self._connections.opened(path, lambda b: b.open(place, offset, length, etag))

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,  # noqa: ARG002 - not a property that all services have
    ) -> Metadata:
        if paths.check_path(path) == paths.ROOT:
            raise AlreadyExistsError("the root is a directory")
        self._require_target(path)
        return self._changes.write(fileobject, path, interrupt_event, if_etag, modified)

    def abandon(self, path: str, token: str | None, since: float) -> None:
        super().abandon(path, token, since)
        if token is not None and isinstance(self._changes, Renaming):
            self._changes.put_right(token)

    def delete(self, path: str, is_dir: bool = False) -> None:
        self._changes.delete(self._require_writable(paths.check_path(path)), is_dir)

    def delete_many(self, files: Iterable[str]) -> None:
        """As the contract says; over several connections."""
        self._changes.delete_many([self._require_writable(paths.check_path(f)) for f in files])

    def create_directory(self, directory: str) -> None:
        if paths.check_path(directory) == paths.ROOT:
            raise AlreadyExistsError("the root exists")
        self._require_target(directory)
        self._changes.create_directory(directory)

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        """As the contract says; on the server where that copies files."""
        require_apart(paths.check_path(path_to_src), paths.check_path(path_to_dest))
        self._require_target(path_to_dest)
        copy_file = self._changes.copy if self.features.server_side_copy else None
        copy_between(self, path_to_src, self, path_to_dest, copy_file, replace=replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        require_apart(paths.check_path(path_to_src), paths.check_path(path_to_dest))
        self._require_writable(path_to_src)
        self._require_target(path_to_dest)
        if isinstance(self._changes, Renaming):
            self._changes.move(path_to_src, path_to_dest, replace=replace)
        else:
            super().move(path_to_src, path_to_dest, replace=replace)

    def get_free_space(self) -> int | None:
        with self._share.lent(paths.ROOT) as backend:
            return backend.space()[0]

    def get_used_space(self) -> int | None:
        with self._share.lent(paths.ROOT) as backend:
            return backend.space()[1]

    def get_overall_space(self) -> int | None:
        with self._share.lent(paths.ROOT) as backend:
            free, used = backend.space()
        return None if free is None or used is None else free + used

    def get_name(self) -> str:
        return self._address.name

    def location(self, path: str) -> str:
        """As the contract says; one address is another place to who has other options."""
        account = hash(repr(sorted(self._address.options.items())))
        return paths.under(f"{account} {unquote(self._address.name)}", path)

    def reconnect(self) -> None:
        self._connections.close()


def _changes(backend: type[Backend]) -> type[Renaming] | type[Putting]:
    if backend.uploads:
        from davfusion.stores.fsspec.uploading import Uploading  # noqa: PLC0415

        return Uploading
    return Renaming if backend.renames else Putting
