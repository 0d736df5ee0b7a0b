"""Bringing a file to the disk while it is still being written, so that the end is short."""

import os
from typing import BinaryIO, Final

from davfusion.platform import begin_flush

_TOGETHER: Final = 16 << 20
"""Bytes after which the disk is to begin."""
_BEHIND: Final = 128 << 20
"""Bytes that may have been written and not be on the disk: a client whose last byte has come waits
for them, and gives up after some 30 s."""


class Flushing:
    """Of `file`, which is written from its start to its end.

    A disk that is slower than what comes holds up the writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = self._begun = self._flushed = 0

    def wrote(self, size: int) -> None:
        """So many bytes more have been written; OSError as of a write."""
        self._written += size
        if self._written - self._begun < _TOGETHER:
            return
        self._file.flush()
        begin_flush(self._file.fileno(), self._begun, self._written - self._begun)
        self._begun = self._written
        if self._written - self._flushed >= _BEHIND:
            self.end()

    def end(self) -> None:
        """Return when all of it is on the disk; OSError as of a write."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._flushed = self._written
