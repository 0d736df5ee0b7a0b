"""JunkStore: what systems and programs leave beside the user's files stays on this machine."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import translate
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, Unpack

from davfusion.platform import is_reserved_name
from davfusion.stamp import Stamp
from davfusion.stores import paths
from davfusion.stores.local import LocalStore
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    TransientStoreError,
    Upload,
    WriteOptions,
)
from davfusion.stores.wrapper import StoreWrapper

_LONGEST_NAME: Final = 255
_LONGEST_PATH: Final = 2_000
"""Bytes, of every common file system."""


class JunkStore(StoreWrapper):
    """`store`, but files of certain names lie in `folder`/junk, and `store` never gets them.

    `names` are patterns with * for anything; letters' case means nothing. To callers they are
    files like others, and go with their directory when that is moved, copied or deleted. What has
    such a name in `store` all the same is shown, until it is replaced or deleted.
    """

    def __init__(self, store: Store, folder: Path, names: Iterable[str]) -> None:
        super().__init__(store)
        self._matches = re.compile("|".join(map(translate, names)), re.IGNORECASE).fullmatch
        self._root = folder / "junk"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._junk = LocalStore(self._root)
        self._stamp = Stamp(folder)

    def get_metadata(self, path: str) -> Metadata:
        return self._kept(paths.check_path(path)) or self._store.get_metadata(path)

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        found = self._store.get_directory_metadata(paths.check_path(directory))
        kept = self._kept_in(directory)
        return found | kept if kept else found

    def get_directory_listing(self, directory: str) -> list[str]:
        return Store.get_directory_listing(self, directory)

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        walk = super().walk_metadata(directory)
        first = next(walk, None)  # raises where there is no such directory
        yield from self._kept_below(directory)
        for path, metadata in chain([first] if first else [], walk):
            if not self._kept(path):
                yield path, metadata
                if metadata["is_dir"]:
                    yield from self._kept_below(path)

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        store = self._junk if self._kept(paths.check_path(path)) else self._store
        return store.open_read(path, offset, length, etag)

    def get_file(self, path: str) -> bytes:
        return Store.get_file(self, path)

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        **options: Unpack[WriteOptions],
    ) -> Metadata:
        if not self._is_junk(paths.check_path(path)):
            return super().store_fileobject(fileobject, path, interrupt_event, **options)
        if self._kept(path) is None and (replaced := self._stored(path, strict=False)):
            if replaced["is_dir"]:
                raise AlreadyExistsError(f"{path} is a directory")
            if (etag := options.pop("if_etag", None)) not in (None, replaced.get("etag")):
                raise ConflictError(f"{path} is not version {etag or 'absent'}")
        with self._changing():
            stored = self._junk.store_fileobject(fileobject, path, interrupt_event, **options)
            if not self._has_parent(path):
                with suppress(AlreadyExistsError):  # another thread was quicker
                    super().create_directory(paths.parent(path))
        return stored

    def store_resumable(
        self, fileobject: BinaryIO, path: str, upload: Upload, **options: Unpack[WriteOptions]
    ) -> Metadata:
        store = StoreWrapper if not self._is_junk(paths.check_path(path)) else Store
        return store.store_resumable(self, fileobject, path, upload, **options)

    def delete(self, path: str, is_dir: bool = False) -> None:
        if is_dir or not self._is_junk(paths.check_path(path)) or self._stored(path):
            super().delete(path, is_dir)
        self._forget(path, is_dir=is_dir)

    def delete_many(self, files: Iterable[str]) -> None:
        listed = [paths.check_path(path) for path in files]
        junk = [path for path in listed if self._is_junk(path)]
        super().delete_many(path for path in listed if path not in junk)
        Store.delete_many(self, junk)

    def create_directory(self, directory: str) -> None:
        if self._kept(paths.check_path(directory)):
            raise AlreadyExistsError(f"{directory} is a file")
        if self._is_directory(directory) and not self._stored(directory):
            # Of an earlier directory of that name, which another program has removed.
            self._forget(directory, is_dir=True)
        super().create_directory(directory)

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        if self._concerns_junk(path_to_src, path_to_dest):
            Store.duplicate(self, path_to_src, path_to_dest, replace=replace)
            return
        super().duplicate(path_to_src, path_to_dest, replace=replace)
        self._follow(path_to_src, path_to_dest, self._junk.duplicate)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        if self._concerns_junk(path_to_src, path_to_dest):
            Store.move(self, path_to_src, path_to_dest, replace=replace)
            return
        super().move(path_to_src, path_to_dest, replace=replace)
        self._follow(path_to_src, path_to_dest, self._junk.move)

    def _concerns_junk(self, src: str, dst: str) -> bool:
        """Whether a file with such a name, before or after, is to be copied or moved."""
        paths.check_path(dst)
        if not (self._is_junk(paths.check_path(src)) or self._is_junk(dst)):
            return False
        if self._kept(src) or self._kept(dst):
            return True
        replaced = self._stored(dst)  # a directory there is the store's to replace
        return not (self.is_dir(src) or (replaced is not None and replaced["is_dir"]))

    def _follow(self, src: str, dst: str, relocate: Callable[[str, str], None]) -> None:
        """What is kept of a directory's files goes where the directory has gone."""
        self._forget(dst, is_dir=True)
        if self._is_directory(src):
            with self._changing():
                relocate(src, dst)

    def _forget(self, path: str, *, is_dir: bool) -> None:
        if os.path.exists(f"{self._root}{path}"):  # noqa: PTH110 - as _is_directory
            with self._changing():
                self._junk.delete(path, is_dir)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """No process answers any more what it knew before."""
        try:
            yield
        finally:
            self._stamp.renew()

    def _is_directory(self, path: str) -> bool:
        """Whether anything is kept below; False too for names that only the store can hold."""
        return os.path.isdir(f"{self._root}{path}")  # noqa: PTH112 - Path raises for long names

    def _is_junk(self, path: str) -> bool:
        """Whether that is for this disk, as far as it can hold the names."""
        if self._matches(paths.name(path)) is None or len(path.encode()) > _LONGEST_PATH:
            return False
        return not any(
            is_reserved_name(name) or len(name.encode()) > _LONGEST_NAME for name in path.split("/")
        )

    def _kept(self, path: str) -> Metadata | None:
        """What is here, in a directory that is still there."""
        if not self._is_junk(path):
            return None
        try:
            found = self._junk.get_metadata(path)
            return None if found["is_dir"] or not self._has_parent(path) else found
        except NoSuchFilesytemObjectError:
            return None

    def _has_parent(self, path: str) -> bool:
        try:
            return self._store.is_dir(paths.parent(path))
        except NoSuchFilesytemObjectError:
            return False
        except TransientStoreError:
            return True

    def _kept_in(self, directory: str) -> dict[str, Metadata]:
        if not self._is_directory(directory):
            return {}
        with suppress(NoSuchFilesytemObjectError):
            found = self._junk.get_directory_metadata(directory)
            return {name: metadata for name, metadata in found.items() if not metadata["is_dir"]}
        return {}

    def _kept_below(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        for name, metadata in self._kept_in(directory).items():
            yield paths.join(directory, name), metadata

    def _stored(self, path: str, *, strict: bool = True) -> Metadata | None:
        """If not `strict`, None too where the store cannot be asked."""
        try:
            return self._store.get_metadata(path)
        except NoSuchFilesytemObjectError:
            return None
        except TransientStoreError:
            if strict:
                raise
            return None
