"""Receiving a write into the spool, and reading it there.

A content lies in a file of its own, or, if it is small, in a pack with others (packs.py); behind it
is a note that says whose it is. Whether one or the other is said by its name alone.
"""

import errno
import hashlib
import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from davfusion.cache import digests, packs
from davfusion.cache.filestore import FileStore, has_maker_ended, own_name
from davfusion.cache.notes import Content, Note, packed
from davfusion.cache.packs import Packer
from davfusion.cache.pending import Row
from davfusion.cache.too_large import Parts, TooLargeError, Unspooled
from davfusion.flushing import Flushing
from davfusion.platform import fsync_directory
from davfusion.stores.store import (
    ConflictError,
    InterruptEvent,
    SourceStream,
    StoreSpaceLimitError,
)
from davfusion.stores.streams import size_of
from davfusion.stores.transfer import blocks

_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_APART: Final = ".apart"
"""Ends the names in `tmp` of what is set apart: not the name by which a late writer looks there."""
MakeRoom = Callable[[BinaryIO, int], None]
"""Called with a file and the bytes that are about to be added; first with 0, before any is read.

TooLargeError, StoreSpaceLimitError.
"""


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


def receive(
    spool: FileStore,
    source: SourceStream,
    new: Row,
    make_room: MakeRoom,
    interrupt_event: InterruptEvent | None = None,
    *,
    durable: bool = True,
) -> tuple[str, Note]:
    """Write all of `source`, the content of `new`, to a new file in `tmp`; `durable`: on the disk.

    Returns the file's name and note. Whatever goes wrong, nothing is left. Raises
    StoreSpaceLimitError for a full disk.
    """
    name, size = own_name(), 0
    digest = digests.of_size(size_of(source))
    try:
        with disk_space(), spool.create(name, "xb") as file:
            make_room(file, 0)
            flushing = Flushing(file)
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
                if durable:
                    flushing.wrote(len(block))
            note = Note(new.path, size, digest.hexdigest(), new.modified, new.content_type)
            file.write(packed(note))
            file.flush()
            file.truncate()  # to what has come, where room was made for more
            if durable:
                flushing.end()
                flush(spool)
    except BaseException as error:
        if not isinstance(error, TooLargeError) or error.rest is None:
            with suppress(FileNotFoundError):
                spool.remove(name, "tmp")
        raise
    return name, note


def receive_small(
    packer: Packer,
    source: SourceStream,
    new: Row,
    interrupt_event: InterruptEvent | None = None,
) -> tuple[str, Note] | Parts:
    """As receive, into a pack; if it is no small content after all, all of `source`."""
    data = b""
    for block in blocks(source, interrupt_event):
        data += block
        if len(data) > packer.largest:
            return Parts(io.BytesIO(data), source)
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    note = Note(new.path, len(data), digest, new.modified, new.content_type)
    with disk_space():
        name = packer.add(data, note)
    return Parts(io.BytesIO(data)) if name is None else (name, note)


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
    """A content of the spool, wherever it is just now; FileNotFoundError."""
    if packs.is_packed(name):
        return packs.open_content(spool, name, size)
    return Content(_opened(spool, name), size)


def content_problem(spool: FileStore, row: Row) -> str | None:
    """Why the content of a row is not what was written; None if it is. All of it is read."""
    digest, size = digests.like(row.etag or ""), 0
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


def link_content(spool: FileStore, name: str, make_room: packs.Grow | None = None) -> str:
    """A file in `tmp` with the same content and note; its name. See flush.

    Where it takes bytes of its own, `make_room` is asked for them.
    """
    copy = own_name()
    target = spool.path(copy, "tmp")
    try:
        with disk_space():
            if packs.is_packed(name):
                packs.copy(spool, name, target, make_room)
            else:
                _link_file(spool, name, target, make_room)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return copy


def _link_file(spool: FileStore, name: str, target: Path, make_room: packs.Grow | None) -> None:
    with _opened(spool, name) as file:
        try:
            os.link(file.name, target)
        except OSError:  # the disk knows no links, or the file has moved on between the spaces
            with target.open("xb") as written:
                if make_room is not None:
                    make_room(written, os.fstat(file.fileno()).st_size)
                shutil.copyfileobj(file, written)
                written.flush()
                os.fsync(written.fileno())


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
    with suppress(FileNotFoundError):  # it has been claimed already, or set apart
        spool.move(name, "tmp", "new")


def claim(spool: FileStore, name: str) -> None:
    """Move the file to `cur`, to be sent; FileNotFoundError where there is none."""
    if packs.is_packed(name):
        if not packs.holds(spool, name, 0):
            raise FileNotFoundError(name)
        return
    target = spool.path(name, "cur")
    *places, apart = _places(spool, name)
    for place in places:
        with suppress(FileNotFoundError):
            place.rename(target)
            return
    if not apart.exists():  # else it stays there: who set it apart may have committed that by now
        raise FileNotFoundError(name)


def set_apart(spool: FileStore, name: str) -> None:
    """Move the file back to `tmp`, where a start throws away what no row names.

    To be called before the commit that takes it from its row: should that be lost, the row still
    finds it there.
    """
    if packs.is_packed(name):
        packs.set_apart(spool, name)
        return
    *places, target = _places(spool, name)
    for place in places:
        with suppress(FileNotFoundError):
            place.rename(target)
            return


def remove_content(spool: FileStore, name: str) -> None:
    """Remove the file, wherever it is; none is no error."""
    if packs.is_packed(name):
        packs.remove(spool, name)
        return
    for place in _places(spool, name):
        with suppress(FileNotFoundError):
            place.unlink()
            return


def left_behind(spool: FileStore) -> list[Path]:
    """Files in `tmp` of processes that have ended: they take room, whether a row names them or not.

    See Outbox.remove_unnamed.
    """
    found = map(Path, spool.list("tmp"))
    return [file for file in found if has_maker_ended(name_of(file))]


def left_apart(spool: FileStore) -> list[Path]:
    """Files that are set apart; whoever was to remove them may have been killed.

    See Outbox.remove_unnamed.
    """
    return [file for file in map(Path, spool.list("tmp")) if file.name.endswith(_APART)]


def name_of(found: Path) -> str:
    """The name by which a row knows a file of the spool."""
    return found.name.removesuffix(_APART)


def _places(spool: FileStore, name: str) -> tuple[Path, ...]:
    """Where a file may be, in the order in which it moves on while it is looked for."""
    places = [spool.path(name, space) for space in ("tmp", "new", "cur")]
    return *places, spool.path(name + _APART, "tmp")


def _opened(spool: FileStore, name: str) -> BinaryIO:
    for place in _places(spool, name):
        with suppress(FileNotFoundError):
            return place.open("rb")
    raise FileNotFoundError(name)


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
