"""What only some systems have, each with the fallback for the others.

Only Linux is tested; this module keeps what differs on macOS and Windows in one place.
"""

import functools
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

START_METHOD: Final = "fork" if sys.platform == "linux" else "spawn"
"""How worker processes are started; macOS's own libraries do not survive a fork."""

CASE_INSENSITIVE_NAMES: Final = sys.platform in ("darwin", "win32")
"""Whether the system's usual file systems take `a` and `A` for one name."""

_M_ARENA_MAX, _ARENAS = -8, 2

_RESERVED_CHARACTERS = frozenset('<>:"|?*\\') | {chr(code) for code in range(32)}
_RESERVED_NAMES = frozenset(
    ["CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))]
)

if sys.platform == "win32":
    import msvcrt
    import threading

    _writing = threading.Lock()

    def write_at(descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset` of an open file."""
        with _writing:
            os.lseek(descriptor, offset, os.SEEK_SET)
            while data:
                data = data[os.write(descriptor, data) :]

    def allocate(descriptor: int, size: int) -> None:
        """Have the disk give an open file its first `size` bytes; NTFS does with the length."""

    def flush(descriptor: int) -> None:
        """Return when the content of an open file is on the disk."""
        os.fsync(descriptor)

    def fsync_directory(path: Path) -> None:
        """Return when the names in the folder `path` are on the disk: NTFS journals them."""

    def lock_file(file: IO[Any]) -> bool:
        """Lock `file` for this handle alone, without waiting; False if another handle holds it.

        The lock ends when the file is closed, also by the death of the process.
        """
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def is_locked(file: IO[Any]) -> bool:
        """Whether another handle holds the lock of lock_file; takes it for a moment."""
        if not lock_file(file):
            return True
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        return False

    def wait_for_lock(file: IO[Any]) -> None:
        """As lock_file, but wait until the lock is free."""
        while not lock_file(file):
            _pause()

    def _pause() -> None:
        import time  # noqa: PLC0415

        time.sleep(0.005)

    def take_address(listener: socket.socket) -> None:
        """Bind next to connections of an earlier server, never to a port that is in use."""
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)

    def is_running(process: int) -> bool:  # noqa: ARG001
        """Whether there is a process of this number; True where the system does not tell."""
        return True

    def is_reserved_name(name: str) -> bool:
        """Whether the system cannot store a file of this name as it is."""
        return (
            not _RESERVED_CHARACTERS.isdisjoint(name)
            or name[-1:] in (".", " ")
            or name.partition(".")[0].upper() in _RESERVED_NAMES
        )

else:
    import fcntl

    def write_at(descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset` of an open file."""
        while data:
            count = os.pwrite(descriptor, data, offset)
            data, offset = data[count:], offset + count

    def allocate(descriptor: int, size: int) -> None:
        """Have the disk give an open file its first `size` bytes, where the system can say so."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)

    def flush(descriptor: int) -> None:
        """Return when the content of an open file is on the disk; its times need not be."""
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def fsync_directory(path: Path) -> None:
        """Return when the names in the folder `path` are on the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock_file(file: IO[Any]) -> bool:
        """Lock `file` for this handle alone, without waiting; False if another handle holds it.

        The lock ends when the file is closed, also by the death of the process.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_locked(file: IO[Any]) -> bool:
        """Whether another handle holds the lock of lock_file; takes it for a moment."""
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
        return False

    def wait_for_lock(file: IO[Any]) -> None:
        """As lock_file, but wait until the lock is free."""
        fcntl.flock(file, fcntl.LOCK_EX)

    def take_address(listener: socket.socket) -> None:
        """Bind next to connections of an earlier server, never to a port that is in use."""
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def is_running(process: int) -> bool:
        """Whether there is a process of this number; True where the system does not tell."""
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            return True
        return True

    def is_reserved_name(name: str) -> bool:  # noqa: ARG001
        """Whether the system cannot store a file of this name as it is."""
        return False


def longest_names(folder: Path) -> tuple[int, int]:
    """Bytes of the longest name, and of the longest path, that the disk of `folder` takes.

    Where the system does not tell, what surely is too long.
    """
    if sys.platform == "win32":
        return 3 * 255, 3 * 32_767
    return os.pathconf(folder, "PC_NAME_MAX"), os.pathconf(folder, "PC_PATH_MAX") - 1


def given_by_disk(status: os.stat_result) -> int:
    """Bytes that the disk has given a file; NTFS gives its length."""
    if sys.platform == "win32":
        return status.st_size
    return status.st_blocks * 512


def begin_flush(descriptor: int, offset: int, size: int) -> None:
    """Have what was just written there brought to the disk, without waiting for it.

    Linux does that before it drops pages (posix_fadvise(2)), and keeps those that it is writing.
    """
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)


def trim_memory() -> None:
    """Give back to the system what has been freed: glibc keeps it for the thread that had it."""
    if (trim := _glibc("malloc_trim")) is not None:
        trim(0)


def share_freed_memory() -> None:
    """Have threads use again what others have freed; to be called before there are any.

    glibc keeps it for the thread that had it, in up to eight arenas for each processor (mallopt(3),
    M_ARENA_MAX). But blocks are received by one thread and given away by another.
    """
    if (mallopt := _glibc("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


@functools.cache
def _glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc's malloc; musl has none of them."""
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415 - not on the way to the command line's help

    return getattr(ctypes.CDLL(None), name, None)
