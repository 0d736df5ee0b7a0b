"""How one block lies on the disk, for diskcache: as it is, and never pickled."""

import os
from pathlib import Path
from typing import Any, Final

import diskcache

_RAW, _BINARY = 1, 2
"""diskcache's ways to store a value."""
_UNIT: Final = 4096
"""What file systems give to files at least, in bytes."""


class PlainDisk(diskcache.Disk):  # type: ignore[misc]
    """Keeps bytes and numbers as they are, under keys that are text.

    It refuses what diskcache would pickle: unpickling a file that others wrote runs their code.
    It writes a block in one go, where diskcache writes it line by line. The size it tells is what
    the disk gives for it, so that a sum of sizes is what the disk loses.
    """

    _written: Path | None = None

    def get(self, key: Any, raw: Any) -> Any:  # noqa: ARG002
        return key

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:  # noqa: ARG002
        """A new name in one of 16 folders; diskcache's 65,536 cost a folder for each block."""
        name = os.urandom(16).hex()
        short = os.path.join(name[:1], name[1:] + ".val")  # noqa: PTH118 - diskcache's own type
        return short, os.path.join(self._directory, short)  # noqa: PTH118

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, str | None, Any]:
        self._written = None
        if not isinstance(value, bytes | int) or read:
            raise TypeError(f"neither bytes nor a number: {type(value)}")
        if isinstance(value, bytes) and len(value) >= self.min_file_size:
            filename, path = self.filename(key, value)
            self._written = Path(path)
            self._write(path, (value,), "xb")
            return -(-len(value) // _UNIT) * _UNIT, _BINARY, filename, None
        stored: tuple[int, int, str | None, Any] = super().store(value, read, key)
        return stored

    def unstore(self) -> None:
        """Remove the file that the last store() has written, where no row came to name it."""
        if self._written is not None:
            self._written.unlink(missing_ok=True)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode != _RAW and (mode != _BINARY or not isinstance(filename, str)):
            raise OSError(f"a block of mode {mode} is none of ours")
        return super().fetch(mode, filename, value, read)
