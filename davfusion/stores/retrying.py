"""RetryingStore: calls that may succeed later are made again, after a growing pause.

Only TransientStoreError is retried, as retry.py says. A call whose answer was lost may have been
done: where doing it twice would show as an error, the second try is judged by what is stored then.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, ParamSpec, Self, TypeVar, Unpack

from davfusion.stores import paths
from davfusion.stores.retry import DEFAULT_POLICY, RetryPolicy, given_up
from davfusion.stores.source import small
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    TransientStoreError,
    Upload,
    WriteOptions,
    seekable,
)
from davfusion.stores.streams import transfer_options
from davfusion.stores.transfer import blocks
from davfusion.stores.wrapper import StoreWrapper

P = ParamSpec("P")
R = TypeVar("R")


class RetryingStore(StoreWrapper):
    """`store`, whose calls are tried again as `policy` says.

    A tree is copied or moved once, since a second try would take what the first has moved already
    for left-overs of the destination; a store that needs many calls for it repeats those itself.
    """

    def __init__(self, store: Store, policy: RetryPolicy = DEFAULT_POLICY) -> None:
        super().__init__(store)
        self._retrying = policy.retrying
        self._repeat = policy.call

    def _call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._repeat(method, *args, **kwargs)

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """A walk that breaks off begins again and leaves out what it has named already."""
        seen: set[str] = set()
        for attempt in self._retrying():
            with attempt:
                for path, metadata in self._store.walk_metadata(paths.check_path(directory)):
                    if path not in seen:
                        seen.add(path)
                        yield path, metadata

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        """A stream that goes on in the same version after its connection broke.

        Without `etag` that costs a stat first.
        """
        version = self.get_metadata(path).get("etag") if etag is None else etag
        stream = self._call(self._store.open_read, path, offset, length, version)

        def reopen(done: int) -> ReadableStream:
            left = None if length is None else length - done
            return self._store.open_read(path, offset + done, left, version)

        return _ResumingStream(stream, reopen, self._call)

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        **options: Unpack[WriteOptions],
    ) -> Metadata:
        """Rewinds a source that can seek, or is small, for each try; any other is tried once."""
        paths.check_path(path)
        source = seekable(fileobject) or small(fileobject, interrupt_event)
        fileobject = source or fileobject
        start = 0 if source is None else source.tell()
        tries = _Tries()

        def store() -> Metadata:
            again = tries.again()
            if again and source is not None:
                source.seek(start)
            try:
                return self._store.store_fileobject(fileobject, path, interrupt_event, **options)
            except ConflictError:
                if not again or source is None:
                    raise
                source.seek(start)
                return self._require_stored(source, path)

        return store() if source is None else self._retrying(interrupt_event)(store)

    def store_resumable(
        self, fileobject: BinaryIO, path: str, upload: Upload, **options: Unpack[WriteOptions]
    ) -> Metadata:
        """Each try goes on from what the one before has left.

        A ConflictError may be about our own bytes, of a try whose answer was lost: the caller
        compares.
        """
        paths.check_path(path)
        start = fileobject.tell()

        def store() -> Metadata:
            fileobject.seek(start)
            return self._store.store_resumable(fileobject, path, upload, **options)

        return self._retrying(upload)(store)

    def create_directory(self, directory: str) -> None:
        paths.check_path(directory)
        tries = _Tries()

        def create() -> None:
            again = tries.again()
            try:
                self._store.create_directory(directory)
            except AlreadyExistsError:
                if not again or not self._store.is_dir(directory):
                    raise

        self._call(create)

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        self._transfer(self._store.duplicate, path_to_src, path_to_dest, replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        self._transfer(self._store.move, path_to_src, path_to_dest, replace)

    def _transfer(self, method: Callable[..., None], src: str, dst: str, replace: bool) -> None:
        paths.check_path(src)
        paths.check_path(dst)
        failed: list[TransientStoreError] = []
        seen: list[Metadata] = []

        def transfer() -> None:
            if failed and self._is_done(src, dst, failed[-1], seen):
                return
            is_ours = bool(failed) and not replace and self._is_copied(src, dst)
            try:
                method(src, dst, **transfer_options(replace=replace or is_ours))
            except TransientStoreError as error:
                failed.append(error)
                raise

        self._call(transfer)

    def _is_done(
        self, src: str, dst: str, failed: TransientStoreError, seen: list[Metadata]
    ) -> bool:
        """Whether a try that failed has moved `src` after all; GivenUpError where none may follow.

        `seen` is what earlier calls found at `src`. A source that nobody has seen may never have
        been there, so what is at `dst` does not tell whether it was moved.
        """
        there = _metadata_or_none(self._store, dst)
        source = _metadata_or_none(self._store, src)
        if source is None:
            if seen and there is not None:
                return True
            if there is not None:
                raise given_up(failed)
            return False
        if source["is_dir"] and there is not None:
            raise given_up(failed)
        seen.append(source)
        return False

    def _is_copied(self, src: str, dst: str) -> bool:
        """Whether a file at `dst` holds what `src` does: then an earlier try has put it there."""
        with suppress(NoSuchFilesytemObjectError, ConflictError):
            with self._store.open_read(src) as source:
                self._require_stored(source, dst)
            return True
        return False

    def _require_stored(self, source: SourceStream, path: str) -> Metadata:
        """The metadata of `path` if it holds what `source` holds: then we wrote it before."""
        metadata = self._store.get_metadata(path)
        with self._store.open_read(path, etag=metadata.get("etag")) as stream:
            if _digest(stream) != _digest(source):
                raise ConflictError(f"{path} has been changed")
        return metadata


class _Tries:
    """Tells the first try of a call from those that follow."""

    def __init__(self) -> None:
        self._begun = False

    def again(self) -> bool:
        """Whether this is not the first try."""
        begun, self._begun = self._begun, True
        return begun


class _ResumingStream:
    """A stream that `reopen`s at its position when it breaks; `call` repeats what fails."""

    def __init__(
        self,
        stream: ReadableStream,
        reopen: Callable[[int], ReadableStream],
        call: Callable[[Callable[[int], bytes], int], bytes],
    ) -> None:
        self._stream: ReadableStream | None = stream
        self._reopen = reopen
        self._call = call
        self._done = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._call(self._read_once, size)
        self._done += len(data)
        return data

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_once(self, size: int) -> bytes:
        if self._stream is None:
            self._stream = self._reopen(self._done)
        try:
            return self._stream.read(size)
        except TransientStoreError:
            self._stream.close()
            self._stream = None
            raise


def _metadata_or_none(store: Store, path: str) -> Metadata | None:
    try:
        return store.get_metadata(path)
    except NoSuchFilesytemObjectError:
        return None


def _digest(source: SourceStream) -> bytes:
    digest = hashlib.sha256()
    for block in blocks(source):
        digest.update(block)
    return digest.digest()
