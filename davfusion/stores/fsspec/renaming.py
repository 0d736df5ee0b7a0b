"""Changes where a rename is what replaces a file at once: a broken upload leaves the old one."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar
from uuid import uuid4

from davfusion.stores import paths
from davfusion.stores.aside import Asides, UnnotedAsides
from davfusion.stores.errors import (
    AlreadyExistsError,
    ConflictError,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
)
from davfusion.stores.fsspec.backend import Backend
from davfusion.stores.fsspec.errors import backend_errors, from_source
from davfusion.stores.fsspec.removal import Removal
from davfusion.stores.fsspec.share import WORK, FsspecShare, require_version, require_whole
from davfusion.stores.store import InterruptEvent, Metadata, SourceStream
from davfusion.stores.transfer import blocks

DAY: Final = 24 * 3600.0
"""Seconds after which an unfinished upload belongs to nobody any more."""
_TELLING: Final = 60.0
"""Seconds; see apart()."""
_WORK: Final = f"/{WORK}"
_UPLOAD: Final = "upload-"
_REMOVED: Final = "removed-"
_REPLACED: Final = re.compile("replaced-([0-9]+)-[0-9a-f]{32}")
"""What is out of the way lies in it at the path where it belongs, so many names deep."""
_BEGUN: Final = re.compile(rf"({re.escape(_WORK)}/{_REPLACED.pattern})(/.*)", re.DOTALL)
"""Where something is out of the way, and the path of what is to have its place."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Renaming:
    """Writes are prepared in the work folder, and renamed into place.

    `asides` are told what goes out of the way there meanwhile.
    """

    asides: Asides = UnnotedAsides()

    def __init__(self, share: FsspecShare) -> None:
        self._share = share
        self._removal = Removal(share)

    def write(
        self,
        source: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None,
        if_etag: str | None,
        modified: float | None,
    ) -> Metadata:
        """As store_fileobject of the contract."""
        with self._share.lent(path) as backend, self._prepared(backend) as temporary:
            size = self._receive(backend, source, temporary, interrupt_event)
            if modified is not None:
                backend.set_modified(self._share.at(temporary), modified)
            held = self._share.stat_or_none(backend, path)
            require_version(held, path, if_etag)
            stored = self._told_apart(backend, temporary, held)
            require_whole(stored, path, size)
            self._replace(backend, temporary, path, stored, held)
            return stored

    def create_directory(self, directory: str) -> None:
        """As the contract says."""
        with self._share.lent(directory) as backend:
            if self._share.stat_or_none(backend, directory) is not None:
                raise AlreadyExistsError(f"{directory} exists")
            self._make_directory(backend, directory)

    def move(self, src: str, dst: str, *, replace: bool) -> None:
        """As the contract says."""
        with self._share.lent(src) as backend:
            moved = self._share.stat(backend, src)
            is_respelled = backend.features.case_insensitive_names and src.lower() == dst.lower()
            held = None if is_respelled else self._share.stat_or_none(backend, dst)
            if held is not None and not replace:
                raise AlreadyExistsError(f"{dst} exists")
            if held is not None and held.get("etag", "") == moved.get("etag"):
                self._told_apart(backend, src, held)
            self._replace(backend, src, dst, moved, held)

    def copy(self, src: str, dst: str) -> None:
        """Copy a file over nothing or another file, where the server does that."""
        with self._share.lent(src) as backend:
            source, target = self._share.at(src), self._share.at(dst)
            self._in(backend, paths.parent(dst), lambda: backend.copy(source, target))

    def delete(self, path: str, is_dir: bool) -> None:
        """As the contract says; a file on SFTP, FTP or SMB costs one call."""
        with self._share.lent(path) as backend:
            if not (is_dir or backend.removes_trees) and self._is_removed(backend, path):
                return
            found = self._share.stat_or_none(backend, path)
            if found is not None and found["is_dir"] == is_dir:
                self._delete(backend, path, is_dir)

    def delete_many(self, files: Iterable[str]) -> None:
        """As the contract says."""
        self._removal.each(lambda path: self.delete(path, is_dir=False), files)

    def _is_removed(self, backend: Backend, path: str) -> bool:
        """Whether a file is gone now; that it is not may mean that it is a directory."""
        try:
            with suppress(NoSuchFilesytemObjectError), backend_errors(path):
                backend.remove(self._share.at(path))
        except TransientStoreError:
            raise
        except StoreAccessError:
            return False
        return True

    def sweep(self, now: float) -> None:
        """Put right what a crash has left; `now` in UTC seconds.

        What was out of the way comes back, unless the new stood already; uploads that began a day
        ago or earlier are removed.
        """
        with self._share.lent(paths.ROOT) as backend:
            if self._share.stat_or_none(backend, _WORK) is None:
                return
            for name, found in self._share.listing_of_all(backend, _WORK).items():
                if replaced := _REPLACED.fullmatch(name):
                    try:
                        self._bring_back(backend, paths.join(_WORK, name), int(replaced[1]))
                    except ConflictError as error:
                        _log.warning("%s", error)
                elif name.startswith(_REMOVED):
                    self._delete(backend, paths.join(_WORK, name), is_dir=True)
                elif name.startswith(_UPLOAD) and found["modified"] < now - DAY:
                    backend.remove(self._share.at(paths.join(_WORK, name)))

    @contextmanager
    def _prepared(self, backend: Backend) -> Iterator[str]:
        """A name in the work folder; what is still there at the end is removed."""
        temporary = paths.join(_WORK, _UPLOAD + uuid4().hex)
        try:
            yield temporary
        except BaseException:
            with suppress(Exception):  # sweep() does it later
                self._discard(backend, temporary)
            raise

    def _discard(self, backend: Backend, temporary: str) -> None:
        backend.remove(self._share.at(temporary))

    def _receive(
        self,
        backend: Backend,
        source: SourceStream,
        temporary: str,
        interrupt_event: InterruptEvent | None,
    ) -> int:
        """The size of what has been written to `temporary`."""
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for block in from_source(blocks(source, interrupt_event)):
                size += len(block)
                yield block

        content = counted()
        self._in(backend, _WORK, lambda: backend.write(self._share.at(temporary), content))
        return size

    def _told_apart(self, backend: Backend, path: str, held: Metadata | None) -> Metadata:
        """The metadata of `path`, dated apart from `held`, which it will replace."""
        found = backend.stat(self._share.at(path))
        if held is None or held["is_dir"] or found["is_dir"]:
            return found
        when = apart(found["modified"], held)
        if when == found["modified"]:
            return found
        backend.set_modified(self._share.at(path), when)
        return backend.stat(self._share.at(path))

    def _replace(
        self, backend: Backend, src: str, dst: str, moved: Metadata, held: Metadata | None
    ) -> None:
        """Rename `src` to `dst`, where `held` is."""
        if held is None:
            with self._noticing_another(backend, dst):
                self._rename(backend, src, dst)
        elif held["is_dir"] or moved["is_dir"]:
            self._rename_aside(backend, src, dst)
        else:
            try:
                self._rename(backend, src, dst)
            except StoreAccessError as error:
                if isinstance(error, TransientStoreError):
                    raise
                self._rename_aside(backend, src, dst)

    def _rename_aside(self, backend: Backend, src: str, dst: str) -> None:
        """Rename `src` to `dst`; what is there is taken away, and comes back if that fails."""
        aside, is_left = paths.join(_WORK, f"replaced-{dst.count('/')}-{uuid4().hex}"), True
        end = self.asides.unfinished(dst, aside + src)
        try:
            self._rename_there(backend, dst, aside + dst)
            try:
                with self._noticing_another(backend, dst):
                    self._rename(backend, src, dst)
            except _OvertakenError:
                self._delete_replaced(backend, aside)
                raise
            except BaseException:
                self._rename_there(backend, aside + dst, dst)
                raise
            is_left = not self._delete_replaced(backend, aside)
        finally:
            end(is_left)

    def _rename_there(self, backend: Backend, src: str, dst: str) -> None:
        """Rename what has just been there."""
        try:
            self._rename(backend, src, dst)
        except NoSuchFilesytemObjectError as error:
            raise _OvertakenError(f"{src} is being changed") from error

    @contextmanager
    def _noticing_another(self, backend: Backend, dst: str) -> Iterator[None]:
        """SMB refuses to rename over a file that is open, as one is that another has just put."""
        try:
            yield
        except StoreAutorizationError as error:
            if self._share.stat_or_none(backend, dst) is None:
                raise
            raise _OvertakenError(f"{dst} is being changed") from error

    def _delete_replaced(self, backend: Backend, aside: str) -> bool:
        """The new stands; a name of its own says so after a crash. Whether nothing is left."""
        removed = _once_removed(aside)
        try:
            with suppress(StoreAutorizationError):  # SMB: there is a file open in it
                self._rename(backend, aside, removed)
                aside = removed
            self._delete(backend, aside, is_dir=True)
        except PartialFailureError:
            raise
        except StoreAccessError as error:
            # SMB: a file that is gone but open keeps its folder.
            _log.debug("left for later: %s", error)
            return False
        return True

    def put_right(self, token: str) -> None:
        """Have nothing out of the way of what `asides` were told of by `token`; see sweep().

        ConflictError where something else is in its place by now: it must not come back later,
        should that be removed.
        """
        begun = _BEGUN.fullmatch(token)
        if begun is None:
            return
        aside, depth, src = begun[1], int(begun[2]), begun[3]
        with self._share.lent(paths.ROOT) as backend:
            with suppress(NoSuchFilesytemObjectError):  # others may be at it
                self._bring_back(backend, aside, depth, src)
            with suppress(NoSuchFilesytemObjectError):
                self._delete(backend, _once_removed(aside), is_dir=True)

    def _bring_back(self, backend: Backend, aside: str, depth: int, src: str | None = None) -> None:
        """Rename what is out of the way to where it was; ConflictError if something is there.

        If that has come from `src`, what is out of the way is removed.
        """
        path = ""
        while path.count("/") < depth:
            members = list(self._share.listing_of_all(backend, aside + path))
            if not members:  # it is back
                self._delete(backend, aside, is_dir=True)
                return
            path = f"{path}/{members[0]}"
        if self._share.stat_or_none(backend, path) is None:
            self._rename(backend, aside + path, path)
            self._delete(backend, aside, is_dir=True)
            _log.warning("%s was being replaced when that broke off, and is back", path)
        elif src is not None and self._share.stat_or_none(backend, src) is None:
            self._delete_replaced(backend, aside)
        else:
            raise ConflictError(f"a crash has left what was replaced in {aside + path}")

    def _rename(self, backend: Backend, src: str, dst: str) -> None:
        """Rename, where nothing or a file is; parents are made if they turn out to be missing."""
        source, target = self._share.at(src), self._share.at(dst)
        self._in(backend, paths.parent(dst), lambda: backend.rename(source, target))

    def _in(self, backend: Backend, directory: str, change: Callable[[], T]) -> T:
        """Make a change in `directory`; if that turns out to be missing, it is made first."""
        try:
            with backend_errors(directory):
                return change()
        except TransientStoreError:
            raise
        except StoreAccessError as error:
            was_made = self._ensure(backend, directory)
            if not was_made and not isinstance(error, NoSuchFilesytemObjectError):
                raise
            with backend_errors(directory):
                return change()

    def _ensure(self, backend: Backend, directory: str) -> bool:
        """Make `directory` unless it is there; whether it was made."""
        held = self._share.stat_or_none(backend, directory)
        if held is None:
            self._make_directory(backend, directory)
        elif not held["is_dir"]:
            raise StoreAccessError(f"{directory} is a file", 409)
        return held is None

    def _make_directory(self, backend: Backend, directory: str) -> None:
        """Make `directory` and its missing parents; others may be making them, too."""
        missing = [directory]
        while self._share.stat_or_none(backend, paths.parent(missing[-1])) is None:
            missing.append(paths.parent(missing[-1]))
        for step in reversed(missing):
            try:
                with backend_errors(step):
                    backend.make_directory(self._share.at(step))
            except StoreAccessError:
                found = self._share.stat_or_none(backend, step)
                if found is None or not found["is_dir"]:
                    raise

    def _delete(self, backend: Backend, path: str, is_dir: bool) -> None:
        if is_dir and not backend.removes_trees:
            self._removal.tree(path)
        else:
            backend.remove(self._share.at(path))


def _once_removed(aside: str) -> str:
    """The name of what is aside when the new stands."""
    return paths.join(_WORK, _REMOVED + aside.rpartition("-")[2])


class _OvertakenError(TransientStoreError):
    """Another has put or taken away something just now."""


def apart(when: float, held: Metadata) -> float:
    """The time for a file of `when` that replaces `held`, both in UTC seconds.

    Where a version is told by its size and a time in seconds, one that replaces another within the
    same second, or with the same given time, would pass for it. So it is dated a second later than
    that one; unless it is older by more than a minute.
    """
    return held["modified"] + 1 if 0 <= held["modified"] - when <= _TELLING else when
