"""TreeStore: several shares as one tree.

Above the shares stand read-only directories that no store holds. Inside one share everything is
done by its own store; between two the content streams through this machine.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from davfusion.stores import paths
from davfusion.stores.store import (
    AlreadyExistsError,
    Features,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    ReadableStream,
    SourceStream,
    Store,
    StoreAccessError,
    StoreAutorizationError,
)
from davfusion.stores.transfer import copy_between, move_between


class _Place(NamedTuple):
    """Where a path of the tree lies: in which share, and under which path there."""

    mount: str
    store: Store
    path: str


class TreeStore(Store):
    """`mounts`: path -> the Store shown there; no share lies inside another."""

    def __init__(self, mounts: Mapping[str, Store], clock: Callable[[], float] = time.time) -> None:
        self._mounts = {paths.check_path(mount): store for mount, store in mounts.items()}
        self._above = {above for mount in mounts for above in paths.ancestors(mount)}
        if not mounts:
            raise ValueError("a tree needs a share")
        inside = self._above & self._mounts.keys()
        if inside:
            raise ValueError(f"a share lies inside the share {', '.join(sorted(inside))}")
        self._started = clock()

    @property
    def features(self) -> Features:
        """What holds for every share; the largest object is that of the most generous one."""
        shares = [store.features for store in self._mounts.values()]
        limits = [share.largest_object for share in shares if share.largest_object is not None]
        return Features(
            server_side_copy=all(share.server_side_copy for share in shares),
            server_side_move=all(share.server_side_move for share in shares),
            atomic_replace=all(share.atomic_replace for share in shares),
            conditional_write=all(share.conditional_write for share in shares),
            ranged_read=all(share.ranged_read for share in shares),
            change_feed=all(share.change_feed for share in shares),
            cheap_metadata=all(share.cheap_metadata for share in shares),
            case_insensitive_names=any(share.case_insensitive_names for share in shares),
            one_process=any(share.one_process for share in shares),
            hash_kinds=frozenset.intersection(*(share.hash_kinds for share in shares)),
            largest_object=max(limits) if len(limits) == len(shares) else None,
        )

    def canonical_path(self, path: str) -> str:
        place = self._place_or_none(path)
        if place is None:
            return path
        return paths.rebase(place.store.canonical_path(place.path), paths.ROOT, place.mount)

    def require_storable(self, path: str) -> None:
        place = self._place_or_none(path)
        if place is not None:
            place.store.require_storable(place.path)

    def get_metadata(self, path: str) -> Metadata:
        if self._is_fixed(paths.check_path(path)):
            return self._fixed_metadata()
        place = self._place(path)
        return place.store.get_metadata(place.path)

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        if paths.check_path(directory) in self._above:
            fixed = self._fixed_members(directory)
            return {paths.name(path): metadata for path, metadata in fixed.items()}
        place = self._place(directory)
        return place.store.get_directory_metadata(place.path)

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        if paths.check_path(directory) in self._above:
            for path, metadata in self._fixed_members(directory).items():
                yield path, metadata
                yield from self.walk_metadata(path)
            return
        mount, store, inner = self._place(directory)
        for path, metadata in store.walk_metadata(inner):
            yield paths.rebase(path, paths.ROOT, mount), metadata

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        place = self._place(path)
        return place.store.open_read(place.path, offset, length, etag)

    def get_file(self, path: str) -> bytes:
        place = self._place(path)
        return place.store.get_file(place.path)

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
        place = self._writable_place(path)
        return place.store.store_fileobject(
            fileobject,
            place.path,
            interrupt_event,
            if_etag=if_etag,
            modified=modified,
            content_type=content_type,
        )

    def delete(self, path: str, is_dir: bool = False) -> None:
        if not self._is_fixed(paths.check_path(path)) and self._place_or_none(path) is None:
            return
        place = self._writable_place(path)
        with _failures_below(place.mount):
            place.store.delete(place.path, is_dir)

    def delete_many(self, files: Iterable[str]) -> None:
        failures: dict[str, StoreAccessError] = {}
        shares: dict[str, list[str]] = {}
        for path in [paths.check_path(path) for path in files]:
            place = self._place_or_none(path)
            if place is not None:
                shares.setdefault(place.mount, []).append(place.path)
        for mount, inner_paths in shares.items():
            try:
                with _failures_below(mount):
                    self._mounts[mount].delete_many(inner_paths)
            except PartialFailureError as error:
                failures |= error.failures
        if failures:
            raise PartialFailureError(f"{len(failures)} files not deleted", failures=failures)

    def create_directory(self, directory: str) -> None:
        if self._is_fixed(paths.check_path(directory)):
            raise AlreadyExistsError(f"{directory} exists")
        place = self._writable_place(directory)
        place.store.create_directory(place.path)

    def duplicate(self, path_to_src: str, path_to_dest: str) -> None:
        src, dst = self._ends(path_to_src, path_to_dest)
        if src is not None and src.store is dst.store:
            with _failures_below(src.mount):
                src.store.duplicate(src.path, dst.path)
        else:
            copy_between(self, path_to_src, self, path_to_dest)

    def move(self, path_to_src: str, path_to_dest: str) -> None:
        src, dst = self._ends(path_to_src, path_to_dest)
        if self._is_fixed(path_to_src):
            raise StoreAutorizationError(f"{path_to_src} is a share or stands above one")
        if src is not None and src.store is dst.store:
            with _failures_below(src.mount):
                src.store.move(src.path, dst.path)
        else:
            move_between(self, path_to_src, self, path_to_dest)

    def get_name(self) -> str:
        return ", ".join(f"{mount}: {store.get_name()}" for mount, store in self._mounts.items())

    def check_access(self) -> None:
        for store in self._mounts.values():
            store.check_access()

    def forget(self, path: str) -> None:
        place = self._place_or_none(path)
        if place is not None:
            place.store.forget(place.path)

    def reconnect(self) -> None:
        for store in self._mounts.values():
            store.reconnect()

    def flush(self) -> None:
        for store in self._mounts.values():
            store.flush()

    def _is_fixed(self, path: str) -> bool:
        """Whether `path` is a share or a directory above one: never written, moved or removed."""
        return path in self._mounts or path in self._above

    def _fixed_metadata(self) -> Metadata:
        """The same for all and without a call: a share that is down does not hide the others."""
        return Metadata(modified=self._started, bytes=0, is_dir=True)

    def _fixed_members(self, directory: str) -> dict[str, Metadata]:
        fixed = (self._mounts.keys() | self._above) - {paths.ROOT}
        return {p: self._fixed_metadata() for p in fixed if paths.parent(p) == directory}

    def _place_or_none(self, path: str) -> _Place | None:
        paths.check_path(path)
        for mount in (path, *paths.ancestors(path)):
            if mount in self._mounts:
                inner = paths.rebase(path, mount, paths.ROOT)
                return _Place(mount, self._mounts[mount], inner)
        return None

    def _place(self, path: str) -> _Place:
        place = self._place_or_none(path)
        if place is None:
            raise NoSuchFilesytemObjectError(path)
        return place

    def _writable_place(self, path: str) -> _Place:
        place = self._place_or_none(path)
        if place is None or place.path == paths.ROOT:
            raise StoreAutorizationError(f"{path} is not inside a share")
        return place

    def _ends(self, src: str, dst: str) -> tuple[_Place | None, _Place]:
        """Where a copy begins, None if above the shares, and where it ends."""
        paths.check_path(dst)
        source = None if paths.check_path(src) in self._above else self._place(src)
        return source, self._writable_place(dst)


@contextmanager
def _failures_below(mount: str) -> Iterator[None]:
    """Name the paths of a share's PartialFailureError as the tree does."""
    try:
        yield
    except PartialFailureError as error:
        failures = {
            paths.rebase(path, paths.ROOT, mount): failure
            for path, failure in error.failures.items()
        }
        raise PartialFailureError(str(error), error.status, failures) from error
