"""A hidden folder in which a store prepares what it then renames into place.

Every process has a session of its own there and keeps that session's `alive` file locked: so the
next one to start can tell what a crash has left behind from what is in use.
"""

import logging
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

from davfusion.platform import fsync_directory, lock_file, wait_for_lock

NAME: Final = ".davfusion-tmp"

_log = logging.getLogger(__name__)

# Nothing else in a session has such a name: what a client copies never passes for a box.
_BOX = ".box"
_CONTENT = "content"
_ORIGIN = "origin"


class WorkFolder:
    """`<folder>/.davfusion-tmp`; made on first need, cleared of leftovers at construction."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._session: Path | None = None
        if self._path.is_dir() and os.access(self._path, os.W_OK):
            with self._locked():
                self._remove_leftovers()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock that all processes and threads working in this folder share."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        with self._locked():
            if not self._has_session():
                self._session = self._new_session()
            yield

    def new_path(self) -> Path:
        """A path on this folder's file system that nobody else uses."""
        if not self._has_session():
            with self.lock():
                pass
        assert self._session is not None  # noqa: S101 - lock() makes it
        return self._session / uuid4().hex

    @contextmanager
    def without(self, path: Path) -> Iterator[None]:
        """Take `path` away, for good if the block succeeds; a failure or a crash brings it back.

        What cannot be brought back at once is kept for the next start. The caller holds the lock.
        """
        box = self._new_box(path)
        try:
            path.rename(box / _CONTENT)
            yield
        except BaseException:
            _restore(box, path)
            raise
        fsync_directory(path.parent)
        removed = self.new_path()
        box.rename(removed)  # half of it must not come back
        discard(removed)

    def _new_box(self, path: Path) -> Path:
        """A folder that says, also after a power loss, where its content belongs."""
        box = self.new_path().with_suffix(_BOX)
        box.mkdir()
        with (box / _ORIGIN).open("xb") as origin:
            origin.write(os.fsencode(path.relative_to(self._folder)))
            origin.flush()
            os.fsync(origin.fileno())
        for folder in (box, box.parent, self._path, self._folder):
            fsync_directory(folder)
        return box

    def _has_session(self) -> bool:
        """Whether there is a session, and nobody has removed it."""
        return self._session is not None and (self._session / "alive").exists()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._path / "lock").open("ab") as file:
            wait_for_lock(file)
            yield

    def _new_session(self) -> Path:
        session = self._path / uuid4().hex
        session.mkdir()
        alive = (session / "alive").open("ab")
        lock_file(alive)
        weakref.finalize(self, alive.close)
        return session

    def _remove_leftovers(self) -> None:
        for session in self._path.iterdir():
            if session.is_dir() and not _is_alive(session):
                unpacked = [self._unpack(box) for box in session.glob(f"*{_BOX}")]
                if all(unpacked):
                    discard(session)

    def _unpack(self, box: Path) -> bool:
        """Whether nothing is left in a box whose process has died."""
        if not os.path.lexists(box / _CONTENT):
            return True
        try:
            origin = os.fsdecode((box / _ORIGIN).read_bytes())
        except OSError as error:
            _log.error("whose %s is cannot be read: %s", box / _CONTENT, error)
            return False
        return _restore(box, self._folder / origin)


def _restore(box: Path, path: Path) -> bool:
    """Bring back what `without` took, unless something new stands in its place.

    False: that failed, and the box keeps it.
    """
    try:
        if os.path.lexists(box / _CONTENT) and not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            (box / _CONTENT).rename(path)
            fsync_directory(path.parent)
    except OSError as error:
        _log.error("%s could not be put back and is kept in %s: %s", path, box, error)
        return False
    discard(box)
    return True


def _is_alive(session: Path) -> bool:
    try:
        file: IO[bytes] = (session / "alive").open("rb+")
    except FileNotFoundError:
        return False
    with file:
        return not lock_file(file)


def discard(path: Path) -> None:
    """Remove a file, or a folder with all in it, as far as possible."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
