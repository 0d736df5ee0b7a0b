"""Receiving a write into the spool, and reading it there.

A file of the spool is the content and, behind it, a note that says whose content it is: with it
the file can be put back where it belongs should the journal be lost.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import sqlite3
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from davfusion.cache.filestore import FileStore
from davfusion.cache.pending import Row
from davfusion.platform import fsync_directory
from davfusion.stores.store import (
    ConflictError,
    InterruptEvent,
    SourceStream,
    StoreSpaceLimitError,
)
from davfusion.stores.transfer import blocks

_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_MAGIC: Final = b"davfusion spool 1"
_END: Final = struct.Struct(f">II{len(_MAGIC)}s")
"""Checksum and length of the note before it."""
_LONGEST_NOTE: Final = 1 << 20

MakeRoom = Callable[[BinaryIO, int], None]
"""Called with a file and the bytes that are about to be added; first with 0, before any is read.

TooLargeError, StoreSpaceLimitError.
"""


class TooLargeError(Exception):
    """A write is larger than the whole cache; `rest` is what of it has been read already."""

    rest: "Unspooled | None" = None

    @contextmanager
    def begun(self, source: SourceStream) -> Iterator[SourceStream]:
        """All of `source`, from where it was first read."""
        if self.rest is None:
            yield source
            return
        with self.rest as whole:
            yield whole


def limited(limit: int | None, make_room: MakeRoom | None = None) -> MakeRoom:
    """`make_room` for a write of at most `limit` bytes; then StoreSpaceLimitError (413)."""
    received = 0

    def check(file: BinaryIO, size: int) -> None:
        nonlocal received
        received += size
        if limit is not None and received > limit:
            raise StoreSpaceLimitError(f"larger than {limit} bytes", 413)
        if make_room is not None:
            make_room(file, size)

    return check


@dataclass(frozen=True)
class Note:
    """Whose content a file of the spool is."""

    path: str
    bytes: int
    md5: str
    modified: float
    content_type: str | None


def size_of(source: SourceStream) -> int | None:
    """Bytes that `source` will give, if it tells."""
    size: int | None = getattr(source, "size", None)
    return size


def receive(
    spool: FileStore,
    source: SourceStream,
    new: Row,
    make_room: MakeRoom,
    interrupt_event: InterruptEvent | None = None,
) -> tuple[str, Note]:
    """Write all of `source`, the content of `new`, to a new file in `tmp`, on the disk.

    Returns the file's name and note. Whatever goes wrong, nothing is left. Raises
    StoreSpaceLimitError for a full disk.
    """
    name, size = uuid.uuid4().hex, 0
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with disk_space(), spool.create(name, "xb") as file:
            make_room(file, 0)
            for block in blocks(source, interrupt_event):
                try:
                    make_room(file, len(block))
                except TooLargeError as error:
                    file.flush()
                    file.truncate()
                    error.rest = Unspooled(spool.path(name, "tmp"), size, block, source)
                    raise
                size += len(block)
                digest.update(block)
                file.write(block)
            note = Note(new.path, size, digest.hexdigest(), new.modified, new.content_type)
            file.write(_packed(note))
            file.flush()
            file.truncate()  # to what has come, where room was made for more
            os.fsync(file.fileno())
        flush(spool)
    except BaseException as error:
        if not isinstance(error, TooLargeError) or error.rest is None:
            with suppress(FileNotFoundError):
                spool.remove(name, "tmp")
        raise
    return name, note


class Unspooled:
    """A source that turned out too large: what has been received, and then the rest of it."""

    def __init__(self, path: Path, size: int, block: bytes, source: SourceStream) -> None:
        self._path = path
        self._parts: list[SourceStream] = [
            Content(path.open("rb"), size),
            io.BytesIO(block),
            source,
        ]

    def read(self, size: int = -1, /) -> bytes:
        """As SourceStream."""
        while not (data := self._parts[0].read(size)) and len(self._parts) > 1 and size:
            self._parts.pop(0)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for part in self._parts:
            if isinstance(part, Content):
                part.close()
        self._path.unlink(missing_ok=True)


def open_range(
    spool: FileStore, row: Row, offset: int, length: int | None, etag: str | None
) -> BinaryIO:
    """A range of the content of a row; FileNotFoundError when it is there no longer."""
    if etag is not None and etag != row.etag:
        raise ConflictError(f"{row.path} is another version")
    end = row.bytes if length is None else min(row.bytes, offset + length)
    content = open_content(spool, row.spool or "", end)
    content.seek(offset)
    return content


def open_content(spool: FileStore, name: str, size: int) -> BinaryIO:
    """The content of a file of the spool, wherever it is just now; FileNotFoundError."""
    return Content(_opened(spool, name), size)


def content_problem(spool: FileStore, row: Row) -> str | None:
    """Why the content of a row is not what was written; None if it is. All of it is read."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with open_content(spool, row.spool or "", row.bytes) as content:
            for block in blocks(content):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        return "its content is missing in the spool"
    except OSError as error:
        return f"its content cannot be read: {error.strerror}"
    if size < row.bytes:
        return f"only {size} of its {row.bytes} bytes are in the spool"
    return None if row.etag in (None, digest.hexdigest()) else "its content has changed on the disk"


def link_content(spool: FileStore, name: str) -> str:
    """A second file in `tmp` with the same content and note; its name. See flush."""
    copy = uuid.uuid4().hex
    with disk_space(), _opened(spool, name) as file:
        target = spool.path(copy, "tmp")
        try:
            os.link(file.name, target)
        except OSError:  # the disk knows no links, or the file has moved on between the spaces
            with spool.create(copy, "xb") as written:
                shutil.copyfileobj(file, written)
                written.flush()
                os.fsync(written.fileno())
    return copy


def flush(spool: FileStore) -> None:
    """Return when the names of the files in `tmp` are on the disk."""
    fsync_directory(spool.path("any", "tmp").parent)


def settle(spool: FileStore, name: str, *, is_needed: bool) -> None:
    """After a transaction that was to name the file, however it ended."""
    if is_needed:
        complete(spool, name)
    else:
        remove_content(spool, name)


def complete(spool: FileStore, name: str) -> None:
    """A row of the journal names the file now: it is no longer one that may be thrown away."""
    with suppress(FileNotFoundError):  # the mover has claimed it already
        spool.move(name, "tmp", "new")


def claim(spool: FileStore, name: str) -> None:
    """Move the file to `cur`, to be sent; FileNotFoundError where there is none."""
    for space in ("new", "tmp"):
        with suppress(FileNotFoundError):
            spool.move(name, space, "cur")
            return
    if not spool.path(name, "cur").exists():
        raise FileNotFoundError(name)


def set_apart(spool: FileStore, name: str) -> None:
    """Move the file back to `tmp`, where a start throws away what no row names.

    To be called before the commit that takes it from its row: should that be lost, the row still
    finds it there.
    """
    for space in ("new", "cur"):
        with suppress(FileNotFoundError):
            spool.move(name, space, "tmp")


def remove_content(spool: FileStore, name: str) -> None:
    """Remove the file, wherever it is; none is no error."""
    for space in ("tmp", "new", "cur"):
        with suppress(FileNotFoundError):
            spool.remove(name, space)


def read_note(path: Path) -> Note | None:
    """Whose content a file is, None where it does not say so or is not whole."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        try:
            file.seek(size - _END.size)
            checksum, length, magic = _END.unpack(file.read(_END.size))
            if magic != _MAGIC or length > _LONGEST_NOTE:
                return None
            file.seek(size - _END.size - length)
            data = file.read(length)
            if zlib.crc32(data) != checksum:
                return None
            note = Note(**json.loads(data))
        except (OSError, struct.error, ValueError, TypeError):
            return None
    content = size - _END.size - length
    return note if note.bytes == content and _md5(path, content) == note.md5 else None


def _md5(path: Path, size: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with Content(path.open("rb"), size) as content:
        for block in blocks(content):
            digest.update(block)
    return digest.hexdigest()


def _packed(note: Note) -> bytes:
    data = json.dumps(asdict(note)).encode()
    return data + _END.pack(zlib.crc32(data), len(data), _MAGIC)


def _opened(spool: FileStore, name: str) -> BinaryIO:
    for space in ("new", "cur", "tmp", "new", "cur"):  # it moves on while it is looked for
        with suppress(FileNotFoundError):
            return spool.path(name, space).open("rb")
    raise FileNotFoundError(name)


class Content(io.RawIOBase, BinaryIO):
    """The first `size` bytes of a file, as a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_END:
            return self._file.seek(self._size + offset)
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if size is None or size < 0 else min(size, left))

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def disk_space() -> Iterator[None]:
    """A disk that is full is StoreSpaceLimitError; also around close(), which writes again."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise StoreSpaceLimitError(f"the cache's disk is full: {error}") from error
        raise
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StoreSpaceLimitError(f"the cache's disk is full: {error}") from error
        raise
