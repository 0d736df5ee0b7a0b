"""A hidden folder in which a store prepares what it then renames into place.

Every process has a session of its own there and keeps that session's `alive` file locked: so the
next one to start can tell what a crash has left behind from what is in use.
"""

import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

from davfusion.platform import fsync_directory, lock_file, wait_for_lock

NAME: Final = ".davfusion-tmp"


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
            if self._session is None:
                self._session = self._new_session()
            yield

    def new_path(self) -> Path:
        """A path on this folder's file system that nobody else uses."""
        if self._session is None:
            with self.lock():
                pass
        assert self._session is not None  # noqa: S101 - lock() makes it
        return self._session / uuid4().hex

    @contextmanager
    def without(self, path: Path) -> Iterator[None]:
        """Take `path` away, for good if the block succeeds; a failure or a crash brings it back.

        The caller holds the lock.
        """
        box = self.new_path()
        box.mkdir()
        (box / "origin").write_bytes(os.fsencode(path.relative_to(self._folder)))
        fsync_directory(box)
        try:
            path.rename(box / "content")
            yield
        except BaseException:
            _restore(box, path)
            raise
        finally:
            discard(box)

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
                for box in session.iterdir():
                    with suppress(FileNotFoundError, NotADirectoryError):
                        origin = os.fsdecode((box / "origin").read_bytes())
                        _restore(box, self._folder / origin)
                discard(session)


def _restore(box: Path, path: Path) -> None:
    """Bring back what `without` took, unless something new stands in its place."""
    if not os.path.lexists(path):
        with suppress(FileNotFoundError):
            (box / "content").rename(path)


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
