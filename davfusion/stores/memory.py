"""MemoryStore: a store that forgets, for tests and for trying things out.

What is stored lives in a MemoryTree: in this process, or behind MemoryTreeManager in a process
of its own that several workers share.
"""

import io
import itertools
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.managers import BaseManager
from typing import Final, TypeAlias, cast

from davfusion.stores import paths
from davfusion.stores.store import (
    ABSENT,
    AlreadyExistsError,
    ConflictError,
    Features,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
)
from davfusion.stores.transfer import blocks, require_apart

AT_ONCE: Final = 1 << 20
"""Bytes of a file that a reader has from its beginning, whatever is written later."""


@dataclass(frozen=True)
class _File:
    content: bytes
    etag: str
    modified: float
    content_type: str | None

    def metadata(self) -> Metadata:
        metadata = Metadata(
            modified=self.modified, bytes=len(self.content), is_dir=False, etag=self.etag
        )
        if self.content_type is not None:
            metadata["content_type"] = self.content_type
        return metadata


@dataclass
class _Folder:
    modified: float
    members: "dict[str, _Node]" = field(default_factory=dict)

    def metadata(self) -> Metadata:
        return Metadata(modified=self.modified, bytes=0, is_dir=True)


_Node: TypeAlias = _File | _Folder


class MemoryTree:
    """Files and directories in memory, by the Store contract but with bytes for streams.

    Arguments and results can be pickled; every method is atomic. `capacity` is the space for
    all contents in bytes, `largest_object` that for one; None: no limit.
    """

    def __init__(
        self,
        capacity: int | None = None,
        largest_object: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lock = threading.RLock()
        self._capacity = capacity
        self._largest_object = largest_object
        self._clock = clock
        self._used = 0
        self._versions = itertools.count(1)
        self._epoch = f"{time.time_ns():x}"
        self._root = _Folder(clock())

    def stat(self, path: str) -> Metadata:
        """Metadata of `path`."""
        with self._lock:
            return self._find(path).metadata()

    def listing(self, directory: str) -> dict[str, Metadata]:
        """Name -> metadata of the members of `directory`."""
        with self._lock:
            folder = self._find(directory)
            if isinstance(folder, _File):
                raise NoSuchFilesytemObjectError(f"{directory} is a file")
            return {name: node.metadata() for name, node in folder.members.items()}

    def read(self, path: str, offset: int, length: int, etag: str | None) -> tuple[bytes, str, int]:
        """At most `length` bytes from `offset`, the ETag of their version and its size in bytes."""
        with self._lock:
            file = self._find(path)
        if isinstance(file, _Folder):
            raise NoSuchFilesytemObjectError(f"{path} is a directory")
        if etag not in (None, file.etag):
            raise ConflictError(f"{path} is no longer version {etag}")
        return file.content[offset : offset + length], file.etag, len(file.content)

    def write(
        self,
        path: str,
        content: bytes,
        if_etag: str | None,
        modified: float | None,
        content_type: str | None,
    ) -> Metadata:
        """Replace the file `path`."""
        with self._lock:
            old = self._find_or_none(path)
            if isinstance(old, _Folder):
                raise AlreadyExistsError(f"{path} is a directory")
            if if_etag not in (None, ABSENT if old is None else old.etag):
                raise ConflictError(f"{path} is not version {if_etag or 'absent'}")
            self._require_space(len(content), _size(old))
            etag = f"{self._epoch}-{next(self._versions):x}"
            when = self._clock() if modified is None else modified
            file = _File(content, etag, when, content_type)
            self._attach(path, file)
            return file.metadata()

    def delete(self, path: str, is_dir: bool) -> None:
        """Remove a file or directory; one of the other kind, or none, stays as it is."""
        with self._lock:
            node = self._find_or_none(path)
            if node is not None and isinstance(node, _Folder) == is_dir:
                self._detach(path)

    def create_directory(self, directory: str) -> None:
        """Make a directory and its missing parents."""
        with self._lock:
            if self._find_or_none(directory) is not None:
                raise AlreadyExistsError(f"{directory} exists")
            self._attach(directory, _Folder(self._clock()))

    def duplicate(self, src: str, dst: str, replace: bool) -> None:
        """Copy a file or tree; AlreadyExistsError if it may not replace what is at `dst`."""
        with self._lock:
            node = self._find_transferable(src, dst, replace)
            self._require_space(_size(node), _size(self._find_or_none(dst)))
            self._attach(dst, _copy(node))

    def move(self, src: str, dst: str, replace: bool) -> None:
        """Move a file or tree; AlreadyExistsError if it may not replace what is at `dst`."""
        with self._lock:
            node = self._find_transferable(src, dst, replace)
            self._folder_for(dst)
            self._detach(src)
            self._attach(dst, node)

    def used(self) -> int:
        """Bytes of all contents."""
        return self._used

    def capacity(self) -> int | None:
        """Bytes that all contents may have."""
        return self._capacity

    def largest_object(self) -> int | None:
        """Bytes that one file may have."""
        return self._largest_object

    def _find_or_none(self, path: str) -> _Node | None:
        node: _Node | None = self._root
        for name in path.split("/")[1:] if path != paths.ROOT else ():
            node = node.members.get(name) if isinstance(node, _Folder) else None
        return node

    def _find(self, path: str) -> _Node:
        node = self._find_or_none(path)
        if node is None:
            raise NoSuchFilesytemObjectError(path)
        return node

    def _find_transferable(self, src: str, dst: str, replace: bool) -> _Node:
        node = self._find(src)
        if not replace and self._find_or_none(dst) is not None:
            raise AlreadyExistsError(f"{dst} exists")
        return node

    def _folder_for(self, path: str) -> _Folder:
        """The directory that holds `path`, made if missing."""
        if path == paths.ROOT:
            raise StoreAutorizationError("the root cannot be replaced or removed")
        directory = paths.parent(path)
        node = self._find_or_none(directory)
        if isinstance(node, _File):
            raise StoreAccessError(f"{directory} is a file", 409)
        if node is None:
            node = _Folder(self._clock())
            self._attach(directory, node)
        return node

    def _attach(self, path: str, node: _Node) -> None:
        folder = self._folder_for(path)
        name = paths.name(path)
        self._used += _size(node) - _size(folder.members.pop(name, None))
        folder.members[name] = node
        folder.modified = self._clock()

    def _detach(self, path: str) -> None:
        folder = self._folder_for(path)
        self._used -= _size(folder.members.pop(paths.name(path)))
        folder.modified = self._clock()

    def _require_space(self, size: int, freed: int) -> None:
        if self._capacity is not None and self._used - freed + size > self._capacity:
            raise StoreSpaceLimitError(f"{size} bytes do not fit in {self._capacity}")


def _size(node: _Node | None) -> int:
    if isinstance(node, _Folder):
        return sum(map(_size, node.members.values()))
    return 0 if node is None else len(node.content)


def _copy(node: _Node) -> _Node:
    if isinstance(node, _File):
        return node
    return replace(node, members={name: _copy(member) for name, member in node.members.items()})


class _Content(io.RawIOBase):
    """Part of one version of a file; only what is read comes from the tree's process.

    What is not in the first AT_ONCE bytes is a ConflictError once the file was replaced.
    """

    def __init__(
        self, tree: MemoryTree, path: str, offset: int, length: int, etag: str | None
    ) -> None:
        first, self._etag, size = tree.read(path, offset, min(length, AT_ONCE), etag)
        self._tree = tree
        self._path = path
        self._first = io.BytesIO(first)
        self._offset = offset
        self._end = min(offset + length, size)

    def read(self, size: int = -1, /) -> bytes:
        left = max(self._end - self._offset, 0)
        most = left if size < 0 else min(size, left)
        content = self._first.read(most)
        if missing := most - len(content):
            offset = self._offset + len(content)
            content += self._tree.read(self._path, offset, missing, self._etag)[0]
        self._offset += most
        return content


class MemoryTreeManager(BaseManager):
    """A process that holds MemoryTrees for others: start() it, then hand out what tree() gives.

    The tree lives as long as the manager and one of its proxies.
    """

    def tree(self, capacity: int | None = None, largest_object: int | None = None) -> MemoryTree:
        """A new, empty tree in the manager's process, as a proxy that may be pickled."""
        return cast("MemoryTree", vars(type(self))["_tree"](self, capacity, largest_object))


MemoryTreeManager.register("_tree", MemoryTree)


class MemoryStore(Store):
    """A MemoryTree, or a proxy of one in another process, as a Store."""

    def __init__(self, tree: MemoryTree | None = None) -> None:
        self._tree = MemoryTree() if tree is None else tree
        self._features = Features(
            server_side_copy=True,
            server_side_move=True,
            exclusive_transfer=True,
            atomic_replace=True,
            conditional_write=True,
            ranged_read=True,
            largest_object=self._tree.largest_object(),
            cheap_metadata=True,
            modified_times=True,
            one_process=isinstance(self._tree, MemoryTree),
        )

    @property
    def features(self) -> Features:
        return self._features

    def get_metadata(self, path: str) -> Metadata:
        return self._tree.stat(paths.check_path(path))

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        return self._tree.listing(paths.check_path(directory))

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        most = sys.maxsize if length is None else length
        return _Content(self._tree, paths.check_path(path), offset, most, etag)

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,
    ) -> Metadata:
        paths.check_path(path)
        content = bytearray()
        for block in blocks(fileobject, interrupt_event):
            content += block
            self._require_storable(len(content), path)
        return self._tree.write(path, bytes(content), if_etag, modified, content_type)

    def delete(self, path: str, is_dir: bool = False) -> None:
        self._tree.delete(paths.check_path(path), is_dir)

    def create_directory(self, directory: str) -> None:
        self._tree.create_directory(paths.check_path(directory))

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        require_apart(paths.check_path(path_to_src), paths.check_path(path_to_dest))
        self._tree.duplicate(path_to_src, path_to_dest, replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        require_apart(paths.check_path(path_to_src), paths.check_path(path_to_dest))
        self._tree.move(path_to_src, path_to_dest, replace)

    def get_used_space(self) -> int:
        return self._tree.used()

    def get_overall_space(self) -> int | None:
        return self._tree.capacity()

    def get_free_space(self) -> int | None:
        capacity = self._tree.capacity()
        return None if capacity is None else capacity - self._tree.used()

    def _require_storable(self, size: int, path: str) -> None:
        limit = self._features.largest_object
        if limit is not None and size > limit:
            raise StoreSpaceLimitError(f"{path} is larger than {limit} bytes", 413)
