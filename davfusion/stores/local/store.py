"""LocalStore: a folder of this machine as a Store.

Everything is prepared in a hidden work folder on the same file system, made durable there, and
renamed into place under a lock that all davfusion processes on that folder share. Other programs
may change the folder at any time; they are seen at once, but do not take part in the lock.
"""

import errno
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from davfusion.flushing import Flushing
from davfusion.platform import CASE_INSENSITIVE_NAMES, fsync_directory
from davfusion.stores import paths
from davfusion.stores.local.disk import (
    Range,
    copy_file,
    etag_of,
    make_folder,
    metadata_of,
    open_file,
    remove_tree,
    rename,
    status_or_none,
)
from davfusion.stores.local.errors import reading, store_error, writing
from davfusion.stores.local.paths import LocalPaths, is_shown
from davfusion.stores.local.workfolder import WorkFolder, discard
from davfusion.stores.spelling import fold
from davfusion.stores.store import (
    ABSENT,
    AlreadyExistsError,
    ConflictError,
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
    StoreSpaceLimitError,
    TransientStoreError,
)
from davfusion.stores.transfer import blocks, require_apart
from davfusion.stores.walking import depth_first

_FEATURES = Features(
    server_side_copy=True,
    server_side_move=True,
    exclusive_transfer=True,
    atomic_replace=True,
    conditional_write=True,
    ranged_read=True,
    case_insensitive_names=CASE_INSENSITIVE_NAMES,
    cheap_metadata=True,
    modified_times=True,
    receives_first=True,
)

_log = logging.getLogger(__name__)

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What file systems without hard links answer to link()."""


class LocalStore(Store):
    """The files below `root`, an existing folder."""

    def __init__(self, root: str | Path) -> None:
        with reading(str(root)):
            real_root = Path(root).resolve(strict=True)
        if not real_root.is_dir():
            raise StoreAccessError(f"{root} is not a folder", 409)
        self._paths = LocalPaths(real_root)
        with reading(str(root)):
            self._work = WorkFolder(real_root)

    @property
    def features(self) -> Features:
        return _FEATURES

    def require_storable(self, path: str) -> None:
        self._paths.require_storable(paths.check_path(path))

    def get_metadata(self, path: str) -> Metadata:
        paths.check_path(path)
        with reading(path):
            return metadata_of(self._shown(path)[1])

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        paths.check_path(directory)
        with reading(directory):
            listing = self._paths.listing(directory)
            return {name: metadata_of(status) for name, status in listing}

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """As the contract says; what may not be read below `directory` is left out, and logged."""

        def listing(below: str) -> dict[str, Metadata]:
            try:
                return self.get_directory_metadata(below)
            except (NoSuchFilesytemObjectError, StoreAutorizationError) as error:
                if below == directory:
                    raise
                _log.warning("left out of the walk of %s: %s", directory, error)
                return {}

        return depth_first(directory, listing)

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        paths.check_path(path)
        with reading(path):
            file = open_file(self._shown(path)[0])
        status = os.fstat(file.fileno())
        if etag not in (None, etag_of(status)):
            file.close()
            raise ConflictError(f"{path} is no longer version {etag}")
        file.seek(offset)
        return file if length is None else Range(file, min(length, status.st_size))

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,  # noqa: ARG002 - a folder keeps none
    ) -> Metadata:
        paths.check_path(path)
        with writing(path):
            target = self._paths.written(path)
            temporary = self._work.new_path()
        try:
            self._receive(blocks(fileobject, interrupt_event), path, temporary, modified)
            with writing(path), self._work.lock():
                held = _require_version(target, path, if_etag)
                if held is not None:
                    temporary.chmod(stat.S_IMODE(held.st_mode))
                put = _create if if_etag == ABSENT else rename
                self._place(temporary, target, put)
                stored = metadata_of(target.stat())
            with writing(path):
                fsync_directory(target.parent)
            return stored
        finally:
            discard(temporary)

    def delete(self, path: str, is_dir: bool = False) -> None:
        paths.check_path(path)
        with suppress(NoSuchFilesytemObjectError), reading(path):
            self._paths.existing(path)
            entry = self._paths.entry(path)
            if entry.is_dir() != is_dir:
                return
            if is_dir and not entry.is_symlink():
                self._delete_tree(path, entry)
            else:
                with self._work.lock():
                    entry.unlink()
            fsync_directory(entry.parent)

    def create_directory(self, directory: str) -> None:
        paths.check_path(directory)
        if directory == paths.ROOT:
            raise AlreadyExistsError("the root exists")
        with writing(directory):
            target = self._paths.entry(directory)
            make_folder(target.parent)
            with self._work.lock():
                target.mkdir()
            fsync_directory(target.parent)

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        require_apart(paths.check_path(path_to_src), paths.check_path(path_to_dest))
        with reading(path_to_src):
            source = self._shown(path_to_src)[0]
        with writing(path_to_dest):
            target = self._paths.entry(path_to_dest)
        try:
            self._duplicate_whole(path_to_src, path_to_dest, target, replace)
        except (StoreSpaceLimitError, TransientStoreError):
            raise
        except StoreAccessError:
            if not source.is_dir():
                raise
            # Something of it cannot be read or replaced, say: by members, past failures.
            super().duplicate(path_to_src, path_to_dest, replace=replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        require_apart(paths.check_path(path_to_src), paths.check_path(path_to_dest))
        with reading(path_to_src):
            self._shown(path_to_src)
            source = self._paths.entry(path_to_src)
        is_respelled = CASE_INSENSITIVE_NAMES and fold(path_to_src) == fold(path_to_dest)
        with writing(path_to_dest):
            target = self._paths.entry(path_to_dest)
            try:
                with self._work.lock():
                    if not (replace or is_respelled):
                        _require_nothing(target, path_to_dest)
                    rename(source, target, self._work)
                fsync_directory(target.parent)
                fsync_directory(source.parent)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                super().move(path_to_src, path_to_dest, replace=replace)

    def check_access(self) -> None:
        with reading(str(self._paths.root)), os.scandir(self._paths.root):
            if not os.access(self._paths.root, os.W_OK):
                _log.warning("%s: no permission to write; changes will fail", self._paths.root)

    def get_free_space(self) -> int:
        return self._usage().free

    def get_used_space(self) -> int:
        return self._usage().used

    def get_overall_space(self) -> int:
        return self._usage().total

    def _usage(self) -> "shutil._ntuple_diskusage":
        with reading(paths.ROOT):
            return shutil.disk_usage(self._paths.root)

    def get_name(self) -> str:
        return f"local:{self._paths.root}"

    def location(self, path: str) -> str:
        return paths.under(f"local:{self._paths.root.as_posix()}", path)

    def _shown(self, path: str) -> tuple[Path, os.stat_result]:
        real = self._paths.existing(path)
        status = real.stat()
        if not is_shown(status):
            raise NoSuchFilesytemObjectError(path)
        return real, status

    @staticmethod
    def _receive(
        content: Iterator[bytes], path: str, temporary: Path, modified: float | None
    ) -> None:
        """Write `content`; an error of its source is not taken for one of the disk."""
        with writing(path):
            file = temporary.open("xb")
        try:
            flushing = Flushing(file)
            for block in content:
                with writing(path):
                    file.write(block)
                    flushing.wrote(len(block))
            with writing(path):
                file.flush()
                if modified is not None:
                    os.utime(temporary, (modified, modified))
                flushing.end()
        finally:
            with suppress(OSError):
                file.close()

    def _duplicate_whole(self, src: str, dst: str, target: Path, replace: bool) -> None:
        with writing(dst):
            temporary = self._work.new_path()
        try:
            with writing(src):
                self._copy(src, temporary)
            with writing(dst):
                with self._work.lock():
                    if not replace:
                        _require_nothing(target, dst)
                    self._place(temporary, target, rename)
                fsync_directory(target.parent)
        finally:
            discard(temporary)

    def _copy(self, path: str, temporary: Path) -> None:
        """Copy what a client sees at `path`."""
        source, status = self._shown(path)
        if not stat.S_ISDIR(status.st_mode):
            copy_file(source, temporary)
            return
        temporary.mkdir()
        for name, _ in self._paths.listing(path):
            self._copy(paths.join(path, name), temporary / name)
        shutil.copystat(source, temporary)

    def _place(
        self, temporary: Path, target: Path, put: Callable[[Path, Path, WorkFolder], None]
    ) -> None:
        """`put` what stands in `temporary` at `target`, by way of the target's file system."""
        try:
            put(temporary, target, self._work)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            work = WorkFolder(target.parent)
            nearby = work.new_path()
            try:
                copy = shutil.copytree if temporary.is_dir() else copy_file
                copy(temporary, nearby)
                put(nearby, target, work)
            finally:
                discard(nearby)

    @staticmethod
    def _delete_tree(path: str, folder: Path) -> None:
        failures = {
            paths.join(path, failed.relative_to(folder).as_posix())
            if failed != folder
            else path: store_error(error, path)
            for failed, error in remove_tree(folder).items()
        }
        if failures:
            raise PartialFailureError(f"{len(failures)} paths not deleted", failures=failures)


def _require_version(target: Path, path: str, if_etag: str | None) -> os.stat_result | None:
    held = status_or_none(target)
    if held is not None and stat.S_ISDIR(held.st_mode):
        raise AlreadyExistsError(f"{path} is a directory")
    if if_etag not in (None, ABSENT if held is None else etag_of(held)):
        raise ConflictError(f"{path} is not version {if_etag or 'absent'}")
    return held


def _require_nothing(target: Path, path: str) -> None:
    if status_or_none(target) is not None:
        raise AlreadyExistsError(f"{path} exists")


def _create(temporary: Path, target: Path, work: WorkFolder) -> None:
    """As rename, where nothing is, also if a program without our lock gets there first."""
    make_folder(target.parent)
    try:
        target.hardlink_to(temporary)
    except FileExistsError as error:
        raise ConflictError(f"{target.name} exists") from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        rename(temporary, target, work)
    else:
        temporary.unlink()
