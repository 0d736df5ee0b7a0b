"""Packs: files of the spool that hold many small contents, so that none needs a file of its own.

A file of its own costs three flushes where a place in a pack costs two, and its removal more than
all of them. A pack belongs to one process, which keeps it locked; it takes records, a head, the
content and its note each, until it is full, and is removed when no row of the journal needs any.

A record's marks say what the space says of a file: it is `named` once a row of the journal names
it, set `apart` before the commit that takes it from its row, and `removed` after that. Like a
rename they are not flushed. Each is a byte of its own, so that processes need no lock to set them.
"""

import os
import struct
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from davfusion.cache.filestore import FileStore, own_name
from davfusion.cache.notes import Content, Note, packed
from davfusion.database import SharedFlush
from davfusion.platform import allocate, flush, fsync_directory, lock_file, write_at

SIZE: Final = 4 << 20
"""Bytes of a pack; the disk gives them at once."""
LARGEST: Final = 256 << 10
"""Bytes of a content in a pack."""
_LONGEST_NOTE: Final = 32 << 10

_FOLDER: Final = "packs"
_SEPARATOR: Final = "@"
_HEAD: Final = struct.Struct(">16sII???")
"""The pack's own name, the lengths of content and note, the marks."""
_NAMED, _APART, _REMOVED = range(_HEAD.size - 3, _HEAD.size)
Grow = Callable[[BinaryIO, int], object]
"""Called with a file and the bytes that it is about to have."""
_START: Final = 16
"""The first bytes are no record's: where a system locks bytes instead of files, it locks these."""


def is_packed(name: str) -> bool:
    """Whether a content of that name lies in a pack, and not in a file of its own."""
    return _SEPARATOR in name


def folder(files: FileStore) -> Path:
    """Where the packs are."""
    return files.folder / _FOLDER


def names_in(pack: str) -> tuple[str, str]:
    """Bounds of the names of a pack's contents: `bound[0] <= name < bound[1]`."""
    return pack + _SEPARATOR, pack + chr(ord(_SEPARATOR) + 1)


def _place(files: FileStore, name: str) -> tuple[Path, int]:
    pack, _, offset = name.partition(_SEPARATOR)
    return files.folder.joinpath(_FOLDER, pack), int(offset)


def open_content(files: FileStore, name: str, size: int) -> BinaryIO:
    """As spool.open_content."""
    path, offset = _place(files, name)
    return Content(path.open("rb"), size, offset + _HEAD.size)


def holds(files: FileStore, name: str, size: int) -> bool:
    """Whether the pack is there and long enough for so many bytes of content."""
    pack, least = least_length(name, size)
    return size_of(folder(files) / pack) >= least


def least_length(name: str, size: int) -> tuple[str, int]:
    """The pack of a content of so many bytes, and how many that has at least."""
    pack, _, offset = name.partition(_SEPARATOR)
    return pack, int(offset) + _HEAD.size + size


def copy(files: FileStore, name: str, target: Path, make_room: Grow | None = None) -> None:
    """Make a content and its note a file of their own, on the disk; FileNotFoundError.

    `make_room` may refuse the bytes that the file is to have.
    """
    path, offset = _place(files, name)
    with path.open("rb") as pack:
        pack.seek(offset)
        _, content, note, *_ = _HEAD.unpack(pack.read(_HEAD.size))
        with target.open("xb") as written:
            if make_room is not None:
                make_room(written, content + note)
            written.write(pack.read(content + note))
            written.flush()
            flush(written.fileno())


def set_apart(files: FileStore, name: str) -> None:
    """As spool.set_apart."""
    _mark(files, name, _APART)


def remove(files: FileStore, name: str) -> None:
    """As spool.remove_content; the bytes go with the pack."""
    _mark(files, name, _REMOVED)


def _mark(files: FileStore, name: str, mark: int) -> None:
    path, offset = _place(files, name)
    with suppress(OSError):  # without its mark, what is not needed is kept for longer
        descriptor = os.open(path, os.O_WRONLY)
        try:
            write_at(descriptor, b"\1", offset + mark)
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Record:
    """A place in a pack where a content was written, whole or not."""

    name: str
    path: Path
    start: int
    """Of the content."""
    end: int
    """Of the note behind it."""
    is_named: bool
    is_apart: bool
    is_removed: bool


def records(files: FileStore) -> Iterator[Record]:
    """Those of all packs; after one that is damaged it goes on with the next."""
    for pack in all_packs(files):
        with suppress(FileNotFoundError):
            yield from _records(pack)


def _records(pack: Path) -> Iterator[Record]:
    own = uuid.UUID(pack.name).bytes
    data = pack.read_bytes()
    at = data.find(own, _START)
    while at >= 0:
        with suppress(struct.error):
            _, content, note, *marks = _HEAD.unpack_from(data, at)
            start = at + _HEAD.size
            yield Record(f"{pack.name}@{at}", pack, start, start + content + note, *marks)
        at = data.find(own, at + 1)


def all_packs(files: FileStore) -> list[Path]:
    """All of them."""
    with suppress(FileNotFoundError):
        return [path for path in folder(files).iterdir() if len(path.name) == 32]
    return []


def named_records(files: FileStore) -> Iterator[Record]:
    """Those that rows of the journal should name."""
    return (record for record in records(files) if record.is_named and not record.is_apart)


def sweep(files: FileStore, is_needed: Callable[[str], bool]) -> None:
    """Remove packs that no process has open, and of which no content `is_needed`."""
    for pack in all_packs(files):
        with suppress(FileNotFoundError):
            if not is_needed(pack.name):
                _remove_unless_open(pack, is_needed)


def _remove_unless_open(pack: Path, is_needed: Callable[[str], bool]) -> None:
    # Once it is closed, there is nobody any more who could give a row a content of it. And only
    # what is marked as removed is needed by no row on the disk either, whatever the journal shows.
    if is_closed(pack) and not is_needed(pack.name) and not _is_any_kept(pack):
        pack.unlink()


def _is_any_kept(pack: Path) -> bool:
    return any((each.is_named or each.is_apart) and not each.is_removed for each in _records(pack))


def is_closed(pack: Path) -> bool:
    """Whether no process adds to it any more; also when it is gone."""
    try:
        with pack.open("rb+") as file:
            return lock_file(file)
    except FileNotFoundError:
        return True


def size_of(pack: Path) -> int:
    """Bytes; 0 when it is gone."""
    with suppress(FileNotFoundError):
        return pack.stat().st_size
    return 0


class _Pack:
    """The pack that this process adds to, and others of it that are full but not settled yet."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.path = path
        self.id = uuid.UUID(path.name).bytes
        self.descriptor = file.fileno()
        self.close = weakref.finalize(self, file.close)
        self.flush = SharedFlush(path)
        self.left = size - _START
        self.end = _START
        self.unsettled = 0

    def take(self, size: int) -> int:
        """The place of a record of that size."""
        at = self.end
        self.end += size
        self.left -= size
        self.unsettled += 1
        return at


class Packer:
    """Adds small contents to a pack of this process, from all its threads.

    `reserve` lets the file of a new pack grow to a size, or says that there is no room just now.
    """

    def __init__(
        self, files: FileStore, reserve: Callable[[BinaryIO, int], bool], size: int = SIZE
    ) -> None:
        self._files = files
        self._reserve = reserve
        self._size = size
        self.largest = min(LARGEST, size // 16)
        """Bytes of a content."""
        self._lock = threading.Lock()
        self._current: _Pack | None = None
        self._unsettled: dict[str, _Pack] = {}
        self._process = 0

    def has_room(self, size: int) -> bool:
        """Whether there is room for a content of that size, without waiting for any."""
        if size > self.largest:
            return False
        with self._lock, suppress(OSError):
            return self._with_room(_HEAD.size + size + _LONGEST_NOTE) is not None
        return False

    def add(self, content: bytes, note: Note) -> str | None:
        """The name of the content, which is on the disk now; None where there is no room.

        To be followed by settle().
        """
        behind = packed(note)
        size = _HEAD.size + len(content) + len(behind)
        with self._lock:
            pack = self._with_room(size)
            if pack is None:
                return None
            at = pack.take(size)
            name = f"{pack.path.name}{_SEPARATOR}{at}"
            self._unsettled[name] = pack
        head = _HEAD.pack(pack.id, len(content), len(behind), False, False, False)
        try:
            write_at(pack.descriptor, head + content + behind, at)
            with self._lock:
                flush_all = pack.flush.written()
            flush_all()
        except BaseException:
            self.settle(name, is_needed=False)
            self.close()  # what could not be flushed once cannot be later, either
            raise
        return name

    def settle(self, name: str, *, is_needed: bool) -> None:
        """After a transaction that was to name the content, however it ended."""
        at = int(name.partition(_SEPARATOR)[2])
        pack = self._unsettled[name]
        with suppress(OSError):  # as a rename that is lost in a crash
            write_at(pack.descriptor, b"\1", at + (_NAMED if is_needed else _REMOVED))
        with self._lock:
            del self._unsettled[name]
            pack.unsettled -= 1
            self._close_if_done(pack)

    def close(self) -> None:
        """Add nothing more for now; the mover removes the pack once all of it is sent."""
        with self._lock:
            self._leave()

    def _with_room(self, size: int) -> _Pack | None:
        if self._process != os.getpid():
            self._current, self._process = None, os.getpid()
        if self._current is None or self._current.left < size:
            self._leave()
            self._current = self._begin() if size <= self._size - _START else None
        return self._current

    def _leave(self) -> None:
        pack, self._current = self._current, None
        if pack is not None and self._process == os.getpid():
            self._close_if_done(pack)

    def _close_if_done(self, pack: _Pack) -> None:
        if pack is not self._current and not pack.unsettled:
            pack.close()

    def _begin(self) -> _Pack | None:
        """A new pack, locked before anybody else sees it."""
        name, growing = uuid.uuid4().hex, own_name()
        file = self._files.create(growing, "xb")
        try:
            lock_file(file)
            if not self._reserve(file, self._size):
                file.close()
                self._files.remove(growing, "tmp")
                return None
            allocate(file.fileno(), self._size)
            os.fsync(file.fileno())
            target = folder(self._files)
            target.mkdir(mode=0o700, exist_ok=True)
            self._files.path(growing, "tmp").rename(target / name)
            fsync_directory(target)
            fsync_directory(target.parent)
        except BaseException:
            file.close()
            with suppress(FileNotFoundError):
                self._files.remove(growing, "tmp")
            raise
        return _Pack(file, target / name, self._size)
