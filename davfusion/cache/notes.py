"""The note behind each content of the spool, which says whose it is.

With it the content can be put back where it belongs should the journal be lost.
"""

import io
import json
import os
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from davfusion.cache import digests

_MAGIC: Final = b"davfusion spool 1"
_END: Final = struct.Struct(f">II{len(_MAGIC)}s")
"""Checksum and length of the note before it."""
_LONGEST: Final = 1 << 20


@dataclass(frozen=True)
class Note:
    """Whose content it is."""

    path: str
    bytes: int
    digest: str
    """See digests.py."""
    modified: float
    content_type: str | None


class Content(io.RawIOBase, BinaryIO):
    """`size` bytes of a file from `start` on, as a file."""

    def __init__(self, file: BinaryIO, size: int, start: int = 0) -> None:
        self._file = file
        self._size = size
        self._start = start
        file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_CUR:
            return self._file.seek(offset, whence) - self._start
        start = self._start + (self._size if whence == os.SEEK_END else 0)
        return self._file.seek(start + offset) - self._start

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return self._file.read(left if size is None or size < 0 else min(size, left))

    def close(self) -> None:
        self._file.close()
        super().close()


def packed(note: Note) -> bytes:
    """What stands behind the content."""
    data = json.dumps(asdict(note)).encode()
    return data + _END.pack(zlib.crc32(data), len(data), _MAGIC)


def read_note(path: Path, start: int = 0, end: int | None = None) -> Note | None:
    """Whose content a file is, or a part of one; None where it does not say so or is not whole."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END) if end is None else end
        try:
            file.seek(end - _END.size)
            checksum, length, magic = _END.unpack(file.read(_END.size))
            if magic != _MAGIC or length > _LONGEST:
                return None
            file.seek(end - _END.size - length)
            data = file.read(length)
            if zlib.crc32(data) != checksum:
                return None
            note = Note(**json.loads(data))
        except (OSError, struct.error, ValueError, TypeError):
            return None
    content = end - _END.size - length - start
    if note.bytes != content:
        return None
    with Content(path.open("rb"), content, start) as stream:
        return note if digests.matches(stream, note.digest) else None
