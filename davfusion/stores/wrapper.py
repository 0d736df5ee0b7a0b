"""StoreWrapper: the layer that changes nothing, from which every other layer starts."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, ParamSpec, TypeVar, Unpack

from davfusion.memo import Validity
from davfusion.stores import paths
from davfusion.stores.aside import Asides
from davfusion.stores.feed import Feed
from davfusion.stores.store import (
    Features,
    InterruptEvent,
    Metadata,
    ReadableStream,
    SourceStream,
    Store,
    Upload,
    WriteOptions,
)
from davfusion.stores.streams import transfer_options

P = ParamSpec("P")
R = TypeVar("R")


class StoreWrapper(Store):
    """A Store that passes every call to the Store it wraps.

    A layer that treats all calls alike overrides `_call`; one that treats some of them its own
    way overrides those methods.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Every method that may reach the service goes through here."""
        return method(*args, **kwargs)

    @property
    def features(self) -> Features:
        return self._store.features

    @property
    def validity(self) -> Validity | None:
        return self._store.validity

    @property
    def asides(self) -> Asides:
        return self._store.asides

    def feed(self, position: str | None) -> Feed | None:
        return self._store.feed(position)

    def canonical_path(self, path: str) -> str:
        return self._store.canonical_path(path)

    def location(self, path: str) -> str:
        return self._store.location(path)

    def require_storable(self, path: str) -> None:
        self._store.require_storable(path)

    def get_metadata(self, path: str) -> Metadata:
        return self._call(self._store.get_metadata, paths.check_path(path))

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        return self._call(self._store.get_directory_metadata, paths.check_path(directory))

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        return self._call(self._store.walk_metadata, paths.check_path(directory))

    def get_directory_listing(self, directory: str) -> list[str]:
        return self._call(self._store.get_directory_listing, paths.check_path(directory))

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        return self._call(self._store.open_read, paths.check_path(path), offset, length, etag)

    def get_file(self, path: str) -> bytes:
        return self._call(self._store.get_file, paths.check_path(path))

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        **options: Unpack[WriteOptions],
    ) -> Metadata:
        return self._call(
            self._store.store_fileobject,
            fileobject,
            paths.check_path(path),
            interrupt_event,
            **options,
        )

    def store_resumable(
        self, fileobject: BinaryIO, path: str, upload: Upload, **options: Unpack[WriteOptions]
    ) -> Metadata:
        return self._call(
            self._store.store_resumable, fileobject, paths.check_path(path), upload, **options
        )

    def abandon(self, path: str, token: str | None, since: float) -> None:
        self._call(self._store.abandon, paths.check_path(path), token, since)

    def delete(self, path: str, is_dir: bool = False) -> None:
        self._call(self._store.delete, paths.check_path(path), is_dir)

    def delete_many(self, files: Iterable[str]) -> None:
        self._call(self._store.delete_many, [paths.check_path(path) for path in files])

    def create_directory(self, directory: str) -> None:
        self._call(self._store.create_directory, paths.check_path(directory))

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        paths.check_path(path_to_dest)
        src = paths.check_path(path_to_src)
        self._call(self._store.duplicate, src, path_to_dest, **transfer_options(replace=replace))

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        paths.check_path(path_to_dest)
        src = paths.check_path(path_to_src)
        self._call(self._store.move, src, path_to_dest, **transfer_options(replace=replace))

    def get_free_space(self) -> int | None:
        return self._call(self._store.get_free_space)

    def get_used_space(self) -> int | None:
        return self._call(self._store.get_used_space)

    def get_overall_space(self) -> int | None:
        return self._call(self._store.get_overall_space)

    def get_max_filesize(self) -> int | None:
        return self._store.get_max_filesize()

    def get_name(self) -> str:
        return self._store.get_name()

    def account_info(self) -> str:
        return self._call(self._store.account_info)

    def get_logging_handler(self) -> logging.Logger:
        return self._store.get_logging_handler()

    def check_access(self) -> None:
        self._call(self._store.check_access)

    def warm_up(self, connections: int) -> bool:
        return self._call(self._store.warm_up, connections)

    def forget(self, path: str) -> None:
        self._store.forget(path)

    def reconnect(self) -> None:
        self._store.reconnect()

    def flush(self) -> None:
        self._call(self._store.flush)
