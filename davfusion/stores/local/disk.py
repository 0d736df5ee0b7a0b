"""What LocalStore does to files and folders of the disk, so that each step lasts."""

import os
import shutil
import stat
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, Self

from davfusion.platform import fsync_directory
from davfusion.stores.local.workfolder import WorkFolder
from davfusion.stores.store import Metadata

_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


def etag_of(status: os.stat_result) -> str:
    """Differs between two contents, also of one size within one second."""
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"


def metadata_of(status: os.stat_result) -> Metadata:
    """The metadata of a file or folder."""
    if stat.S_ISDIR(status.st_mode):
        return Metadata(modified=status.st_mtime, bytes=0, is_dir=True)
    return Metadata(
        modified=status.st_mtime, bytes=status.st_size, is_dir=False, etag=etag_of(status)
    )


def status_or_none(path: Path) -> os.stat_result | None:
    """The status of what is at `path`, a link itself."""
    with suppress(FileNotFoundError):
        return path.lstat()
    return None


def open_file(path: Path) -> BinaryIO:
    """Open for reading; without O_NONBLOCK a pipe in the file's place would wait for a writer."""
    return open(path, "rb", opener=_open_at_once)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _NONBLOCK)


def make_folder(folder: Path) -> None:
    """Make `folder` and its missing parents."""
    missing = takewhile(lambda step: not step.is_dir(), (folder, *folder.parents))
    for step in reversed(list(missing)):
        with suppress(FileExistsError):
            step.mkdir()
        fsync_directory(step.parent)


def rename(source: Path, target: Path, work: WorkFolder) -> None:
    """Rename `source` to `target`, replacing what is there; `work` is locked.

    To be followed by fsync_directory() of the folder, which need not hold up those who wait for
    the lock.
    """
    make_folder(target.parent)
    held = status_or_none(target)
    moved = source.lstat()
    folders = stat.S_ISDIR(moved.st_mode) or (held is not None and stat.S_ISDIR(held.st_mode))
    if held is None or not folders or os.path.samestat(moved, held):
        source.replace(target)
    else:
        with work.without(target):
            source.rename(target)


def copy_file(source: Path, target: Path) -> None:
    """Copy content, mode and times."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    shutil.copystat(source, target)


def remove_tree(folder: Path) -> dict[Path, OSError]:
    """Remove `folder` and all below, links but not what they lead to; what failed, by path."""
    failures: dict[Path, OSError] = {}

    def note(error: OSError) -> None:
        failures[Path(error.filename)] = error

    for parent, folders, files in os.walk(folder, topdown=False, onerror=note):
        for name in files + folders:
            _remove(Path(parent, name), failures)
    _remove(folder, failures)
    return failures


def _remove(path: Path, failures: dict[Path, OSError]) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            if not any(path in failed.parents for failed in failures):
                path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
    except OSError as error:
        failures.setdefault(path, error)


class Range:
    """The next `length` bytes of an open file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._left = length

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
