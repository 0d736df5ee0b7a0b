"""Where a store path lies on the local disk, and what of that disk a store shows."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from davfusion.platform import is_reserved_name, longest_names
from davfusion.stores import paths
from davfusion.stores.errors import (
    InvalidPathValueError,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    StoreAutorizationError,
)
from davfusion.stores.local.workfolder import NAME as WORK_FOLDER

_log = logging.getLogger(__name__)


class LocalPaths:
    """The part of the disk below `root`, an absolute path without links.

    Links are followed as long as they stay inside. What leads outside, what is neither file nor
    folder, and the work folders do not exist to readers and are refused to writers.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._disk = next(filter(os.path.ismount, [root, *root.parents]), root)

    def require_root(self) -> None:
        """StoreAccessError where the root has gone, or the disk on it: nothing was deleted there.

        A sync client would take for deleted what is answered not to be there.
        """
        if not (os.path.isdir(self.root) and self._is_mounted()):  # noqa: PTH112 - never raises
            raise StoreAccessError(f"the folder {self.root} is not there just now", 502)

    def _is_mounted(self) -> bool:
        return self._disk == self._disk.parent or os.path.ismount(self._disk)

    def existing(self, path: str) -> Path:
        """The real place of `path` for reading; NoSuchFilesytemObjectError where it is hidden."""
        self.require_root()
        real = self._real(self._plain(path))
        if _is_work(path) or _reserved_in(path) or not self._holds(real):
            raise NoSuchFilesytemObjectError(path)
        return real

    def entry(self, path: str) -> Path:
        """The name to create, replace or remove; a link at the end is not followed."""
        self.require_root()
        if reserved := _reserved_in(path):
            raise StoreAccessError(f"this system cannot store the name {reserved!r}", 400)
        plain = self._plain(path)
        real = self._real(plain)
        if path == paths.ROOT or _is_work(path) or not self._holds(real) or _is_special(real):
            raise StoreAutorizationError(f"{path} is not for writing")
        return self._real(plain.parent) / plain.name

    def require_storable(self, path: str) -> None:
        """As Store.require_storable, by what the system says of the root's file system."""
        if _is_work(path) or _reserved_in(path):
            raise InvalidPathValueError(f"{path} is not for writing")
        self.require_root()
        longest_name, longest_path = longest_names(self.root)
        if (
            max(len(name.encode()) for name in path.split("/")) > longest_name
            or len(os.fsencode(self._plain(path))) > longest_path
        ):
            raise InvalidPathValueError(f"the disk takes no name as long as that: {path}")

    def written(self, path: str) -> Path:
        """As entry, but the file that a link at the end stands for."""
        return self._real(self.entry(path))

    def listing(self, directory: str) -> Iterator[tuple[str, os.stat_result]]:
        """Name and status of what is visible in `directory`."""
        with os.scandir(self.existing(directory)) as entries:
            for entry in entries:
                status = self._status(directory, entry)
                if status is not None:
                    yield entry.name, status

    def _status(self, directory: str, entry: os.DirEntry[str]) -> os.stat_result | None:
        if not _is_text(entry.name):
            _log.warning("skipped in %s: %r is not UTF-8", directory, entry.name)
            return None
        if entry.name == WORK_FOLDER or (
            entry.is_symlink() and not self._is_open(directory, entry.path)
        ):
            return None
        try:
            status = entry.stat()
        except FileNotFoundError:
            return None
        return status if is_shown(status) else None

    def _is_open(self, directory: str, link: str) -> bool:
        """Whether a link leads to something inside that is not already on the way to it."""
        real = self._real(Path(link))
        way = {self._real(self._plain(above)) for above in (directory, *paths.ancestors(directory))}
        there = os.path.exists(real)  # noqa: PTH110 - Path.exists raises for a forbidden folder
        return there and self._holds(real) and real not in way

    def _plain(self, path: str) -> Path:
        return self.root.joinpath(*path[1:].split("/"))

    def _holds(self, real: Path) -> bool:
        return real.is_relative_to(self.root) and WORK_FOLDER not in real.parts

    @staticmethod
    def _real(path: Path) -> Path:
        return Path(os.path.realpath(path))


def is_shown(status: os.stat_result) -> bool:
    """Whether this is a file or a folder: devices and pipes are never opened."""
    return S_ISREG(status.st_mode) or S_ISDIR(status.st_mode)


def _is_special(real: Path) -> bool:
    try:
        return not is_shown(real.lstat())
    except OSError:
        return False


def _reserved_in(path: str) -> str | None:
    return next(filter(is_reserved_name, path.split("/")), None)


def _is_work(path: str) -> bool:
    return WORK_FOLDER in path.split("/")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
