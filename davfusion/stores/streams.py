"""What is handed to a store and what it hands out: streams, an upload, a wish to be broken off."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self, TypedDict, cast


class InterruptEvent(Protocol):
    """threading.Event, multiprocessing.Event or their like."""

    def is_set(self) -> bool: ...


class Upload(InterruptEvent, Protocol):
    """One upload as its caller keeps it, across tries and crashes; set: it is to be broken off."""

    @property
    def token(self) -> str | None:
        """What an earlier try said by `begun`; None: nothing to go on from."""

    @property
    def may_be_directory(self) -> bool:
        """False: the caller knows of no directory there, and a store need not look for one."""

    def begun(self, token: str | None) -> None:
        """Keep what a later try needs to go on; returns when it is kept. None: nothing is left."""

    def sent(self, size: int) -> None:
        """So many bytes of the content are with the service by now, or are again not (negative)."""

    def confirm(self) -> None:
        """Called before what is sent can become the file; raises what speaks against that."""


@contextmanager
def counted(upload: Upload) -> Iterator[Callable[[int], None]]:
    """Counts what is sent, and takes it back on failure: the next try counts all again."""
    total = 0

    def sent(size: int) -> None:
        nonlocal total
        total += size
        upload.sent(size)

    try:
        yield sent
    except Exception:
        upload.sent(-total)
        raise


class ReadableStream(Protocol):
    """What open_read returns: read until b"", then close (or use it in a `with`)."""

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class SourceStream(Protocol):
    """What store_fileobject reads; one that can also seek is rewound for a retry."""

    def read(self, size: int = -1, /) -> bytes: ...


class WriteOptions(TypedDict, total=False):
    """How Store.store_fileobject writes, for layers that pass it on; it says what they mean."""

    if_etag: str | None
    modified: float | None
    content_type: str | None


class TransferOptions(TypedDict, total=False):
    """How Store.duplicate and Store.move act, for layers that pass it on."""

    replace: bool


def transfer_options(*, replace: bool) -> TransferOptions:
    """Nothing by default, so that a Store of somebody else's need not know the parameter."""
    return {} if replace else {"replace": False}


def seekable(fileobject: SourceStream) -> BinaryIO | None:
    """`fileobject` as a file that can be rewound, or None if it cannot."""
    can_seek = getattr(fileobject, "seekable", None)
    return cast("BinaryIO", fileobject) if can_seek is not None and can_seek() else None


def size_of(source: SourceStream) -> int | None:
    """Bytes that `source` will give, if it tells."""
    size: int | None = getattr(source, "size", None)
    return size


COPY_BUFFER: Final = 256 * 1024
"""Bytes read at a time; larger ones gain nothing, 8 KiB halves the speed."""
