"""Copying files and trees from one Store to another through this machine.

Memory stays the same whatever the size of a file: what cannot be rewound is spooled to a
temporary file first, so that a failed upload can be repeated, unless the target does that itself.
It lies where TMPDIR says; where the system's own folder is kept in memory, name one on a disk.
"""

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, NamedTuple, TypeAlias, cast
from unicodedata import normalize

from davfusion.stores import paths
from davfusion.stores.spelling import fold
from davfusion.stores.store import (
    ABSENT,
    COPY_BUFFER,
    UNDATED_DIRECTORY,
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    InterruptEvent,
    InvalidPathValueError,
    Metadata,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    ReadableStream,
    SourceStream,
    Store,
    StoreAccessError,
    StoreSpaceLimitError,
    TransientStoreError,
    seekable,
)

_IN_MEMORY: Final = 1024 * 1024
"""Bytes of a spooled file that are kept off the disk."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def blocks(source: SourceStream, interrupt_event: InterruptEvent | None = None) -> Iterator[bytes]:
    """All of `source` in pieces; raises InterruptedException once `interrupt_event` is set."""
    while True:
        block = source.read(COPY_BUFFER)
        if interrupt_event is not None and interrupt_event.is_set():
            raise InterruptedException("interrupted while storing")
        if not block:
            return
        yield block


def require_apart(src: str, dst: str) -> None:
    """Refuse to copy or move a path onto itself, into itself, or over what holds it."""
    if src == dst or paths.is_below(dst, src) or paths.is_below(src, dst):
        raise StoreAccessError(f"{src} and {dst} are the same or one holds the other", 403)


CopyFile: TypeAlias = Callable[[str, str], None]


def copy_between(
    source: Store,
    src: str,
    target: Store,
    dst: str,
    copy_file: CopyFile | None = None,
    *,
    replace: bool = True,
) -> None:
    """Copy the file or tree `src` of `source` to `dst` of `target`, with times and types.

    What was at `dst` is replaced once the new content stands. A tree goes on past failures and
    then raises PartialFailureError, keyed by source path; then a directory at `dst` keeps what
    it had besides. `copy_file` copies a file, over nothing or another file, without this machine.
    Without `replace`, raises AlreadyExistsError where anything is at `dst`, and changes nothing.
    """
    _Transfer(source, target, copy_file).run(src, dst, replace=replace)


def move_between(source: Store, src: str, target: Store, dst: str, *, replace: bool = True) -> None:
    """As copy_between, and then delete from `source` exactly what has been copied.

    Nothing is deleted unless all copies stand and no file has changed since; repeating it does.
    """
    transfer = _Transfer(source, target)
    transfer.run(src, dst, replace=replace)
    transfer.delete_copied()
    _raise_failures(transfer.failures)


def _raise_failures(failures: dict[str, StoreAccessError]) -> None:
    if failures:
        raise PartialFailureError(f"{len(failures)} paths failed", failures=failures)


class _LeftOver(NamedTuple):
    """What a replaced directory had and the new one has not."""

    dst: str
    is_dir: bool


class _Transfer:
    """One copy under way: what has been copied so far and what has failed, by source path."""

    def __init__(
        self,
        source: Store,
        target: Store,
        copy_file: CopyFile | None = None,
        note: Callable[[str, Metadata], None] | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._on_server = copy_file
        self._note = note
        self._files: dict[str, str | None] = {}
        self._directories: list[str] = []
        self._left_over: dict[str, _LeftOver] = {}
        self.failures: dict[str, StoreAccessError] = {}

    def run(self, src: str, dst: str, *, replace: bool) -> None:
        """Copy `src` to `dst`; what concerns all of it is raised as it is."""
        paths.check_path(src)
        paths.check_path(dst)
        if self._source is self._target:
            require_apart(src, dst)
        metadata = self._source.get_metadata(src)
        held = _metadata_or_none(self._target, dst)
        with self._noting_parts():
            if replace:
                self._copy(src, dst, metadata, held)
            else:
                self._create(src, dst, metadata, held)
        if not self.failures:
            self._delete_left_over()
        _raise_failures(self.failures)

    def delete_copied(self) -> None:
        """Delete from the source what has been copied; directories only once they are empty."""
        for src, etag in self._files.items():
            if self._etag(src) not in (etag, None):
                self.failures[src] = ConflictError(f"{src} was changed while it was moved")
        if self.failures:
            return
        try:
            self._source.delete_many(self._files)
        except PartialFailureError as error:
            self.failures |= error.failures
        for directory in self._directories:
            if not self._source.get_directory_metadata(directory):
                self._source.delete(directory, is_dir=True)

    def _etag(self, src: str) -> str | None:
        found = _metadata_or_none(self._source, src)
        return None if found is None else found.get("etag")

    def _delete_left_over(self) -> None:
        for src, (dst, is_dir) in self._left_over.items():
            with self._noting(src):
                self._target.delete(dst, is_dir)

    def _copy(self, src: str, dst: str, metadata: Metadata, held: Metadata | None) -> None:
        if held is not None and held["is_dir"] != metadata["is_dir"]:
            self._copy_aside(src, dst, metadata)
        elif metadata["is_dir"]:
            self._copy_directory(src, dst, held)
        else:
            self._copy_file(src, dst, metadata)
            self._files[src] = metadata.get("etag")

    def _create(self, src: str, dst: str, metadata: Metadata, held: Metadata | None) -> None:
        """As _copy, where nothing is."""
        if held is not None:
            raise AlreadyExistsError(f"{dst} exists")
        if metadata["is_dir"]:
            self._copy_directory(src, dst, None, is_new=True)
            return
        try:
            self._copy_file(src, dst, metadata, if_etag=ABSENT)
        except ConflictError as error:
            if self._target.exists(dst):
                raise AlreadyExistsError(f"{dst} exists") from error
            raise
        self._files[src] = metadata.get("etag")

    def _copy_file(
        self, src: str, dst: str, metadata: Metadata, if_etag: str | None = None
    ) -> None:
        if self._note is None:
            self._store_file(src, dst, metadata, if_etag)
            return
        modified, size = metadata["modified"], metadata["bytes"]
        self._note(dst, Metadata(modified=modified, bytes=size, is_dir=False))
        stored = self._store_file(src, dst, metadata, if_etag)
        self._note(dst, stored or self._target.get_metadata(dst))

    def _store_file(
        self, src: str, dst: str, metadata: Metadata, if_etag: str | None
    ) -> Metadata | None:
        """None: the service has copied it by itself."""
        if self._on_server is not None:
            self._on_server(src, dst)
            return None
        with ExitStack() as stack:
            stream = stack.enter_context(self._source.open_read(src, etag=metadata.get("etag")))
            whole = Whole(stream, metadata["bytes"])
            return self._target.store_fileobject(
                whole if self._target.features.receives_first else _rewindable(whole, stack),
                dst,
                if_etag=if_etag,
                modified=metadata["modified"],
                content_type=metadata.get("content_type"),
            )

    def _copy_directory(
        self, src: str, dst: str, held: Metadata | None, *, is_new: bool = False
    ) -> None:
        """With `is_new`, AlreadyExistsError where there is a directory by now, too."""
        members = self._source.get_directory_metadata(src)
        replaced: dict[str, Metadata] = {}
        if held is None:
            self._create_directory(dst, is_new=is_new)
        else:
            replaced = self._target.get_directory_metadata(dst)
        taken: set[str] = set()
        for name, there in self._names_there(members, replaced).items():
            child = paths.join(src, name)
            with self._noting(child):
                if there in taken:
                    raise StoreAccessError(f"{child}: another name here is the same one there", 409)
                taken.add(there)
                self._copy(child, paths.join(dst, there), members[name], replaced.get(there))
        for name in replaced.keys() - taken:
            left_over = _LeftOver(paths.join(dst, name), replaced[name]["is_dir"])
            self._left_over[paths.join(src, name)] = left_over
        self._directories.append(src)

    def _names_there(self, members: Iterable[str], replaced: Iterable[str]) -> dict[str, str]:
        """Name -> name in the target, as Store.canonical_path has it."""
        if not self._target.features.case_insensitive_names:
            return {name: name for name in members}
        form = str if self._source is self._target else partial(normalize, "NFC")
        known = {fold(name): name for name in replaced}
        return {name: known.setdefault(fold(name), form(name)) for name in members}

    @contextmanager
    def _noting_parts(self) -> Iterator[None]:
        try:
            yield
        except PartialFailureError as error:
            self.failures |= error.failures

    @contextmanager
    def _noting(self, src: str) -> Iterator[None]:
        try:
            with self._noting_parts():
                yield
        except StoreAccessError as error:
            self.failures[src] = error
        except InvalidPathValueError as error:  # a name that only the source takes
            self.failures[src] = StoreAccessError(str(error), 400)

    def _create_directory(self, directory: str, *, is_new: bool) -> None:
        if self._note is not None:
            self._note(directory, UNDATED_DIRECTORY)
        try:
            self._target.create_directory(directory)
        except AlreadyExistsError:
            if is_new or not self._target.is_dir(directory):
                raise

    def _copy_aside(self, src: str, dst: str, metadata: Metadata) -> None:
        """Replace a directory by a file or a file by a directory: the new one is built beside."""
        replacing = self._target.asides.replacing(self._target, dst, is_dir=metadata["is_dir"])
        with replacing as aside:
            part = _Transfer(self._source, self._target, self._on_server, aside.note)
            part._copy(src, aside.path, metadata, None)
            _raise_failures(part.failures)
        self._files |= part._files
        self._directories += part._directories


def _metadata_or_none(store: Store, path: str) -> Metadata | None:
    try:
        return store.get_metadata(path)
    except NoSuchFilesytemObjectError:
        return None


class Whole:
    """`stream`, which is to give `size` bytes; TransientStoreError where it ends before."""

    def __init__(self, stream: ReadableStream, size: int) -> None:
        self.stream = stream
        self.size = size
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self.stream.read(size)
        self._left -= len(data)
        if size and not data and self._left > 0:
            raise TransientStoreError(f"{self.size - self._left} of {self.size} bytes came")
        return data


def _rewindable(source: Whole, stack: ExitStack) -> BinaryIO:
    """The stream of `source`, or a temporary file of its bytes that lives as long as `stack`."""
    rewindable = seekable(source.stream)
    if rewindable is not None:
        return rewindable
    stack.enter_context(temporary_space())
    spool = stack.enter_context(SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - by `stack`
    for block in blocks(source):
        spool.write(block)
    spool.seek(0)
    return cast("BinaryIO", spool)


@contextmanager
def temporary_space() -> Iterator[None]:
    """A temporary file that finds no room is StoreSpaceLimitError; also one that is closed."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreSpaceLimitError(f"no room for a temporary file: {error}") from error
        raise
