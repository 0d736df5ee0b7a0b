"""Disk space that is set aside while there is plenty, for the moment when there is none."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

SIZE: Final = 4 << 20
"""Bytes: enough for the journal to note, many times, that something has reached the store."""
LAST: Final = 2 << 20
"""Bytes of the disk that are the mover's: it makes room, everybody else takes some."""


def is_low(folder: Path) -> bool:
    """Whether only the mover may write to the disk of `folder`."""
    return shutil.disk_usage(folder).free < LAST


class Reserve:
    """A file that takes space; without it, who empties a full disk could not note what is done."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"

    def keep(self) -> None:
        """Set the space aside if there is plenty."""
        if self._path.exists() or shutil.disk_usage(self._path.parent).free < 4 * SIZE:
            return
        with suppress(OSError), self._path.open("wb") as file:
            file.write(bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())

    def give(self) -> None:
        """Let it be used now."""
        self._path.unlink(missing_ok=True)
