"""A stamp that all processes of a share see, and that is another one after each of its changes."""

import mmap
import os
import secrets
from pathlib import Path
from typing import Final

_SIZE: Final = 8


class Stamp:
    """Random bytes in `folder`: who reads them twice and finds the same knows of no change between.

    They are random and not counted, so that two processes that renew them at once cannot bring an
    older stamp back. The file is made on first use, and stays as long as a server runs.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stamp"
        self._shared: mmap.mmap | None = None

    def value(self) -> bytes:
        """The stamp as it is now. OSError."""
        return (self._shared or self._open())[:]

    def renew(self) -> None:
        """Let every process know of a change that it can see by now. OSError."""
        (self._shared or self._open())[:] = secrets.token_bytes(_SIZE)

    def close(self) -> None:
        """Close this process's view of it; the next use opens a new one."""
        self._shared = None

    def _open(self) -> mmap.mmap:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            if os.fstat(descriptor).st_size < _SIZE:
                os.write(descriptor, secrets.token_bytes(_SIZE))
            self._shared = shared = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        return shared
