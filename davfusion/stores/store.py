"""The Store contract: what every store and every layer around a store offers.

A store needs only the methods its service can do; the rest is derived here. The conformance
suite in tests/ is this contract as code.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NotRequired, TypedDict, Unpack

from davfusion.memo import Validity
from davfusion.stores import paths
from davfusion.stores.aside import Asides, UnnotedAsides
from davfusion.stores.errors import (
    AlreadyExistsError,
    ConflictError,
    DateParseError,
    InterruptedException,
    InvalidPathValueError,
    NoSuchFilesytemObjectError,
    PartialFailureError,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
    TransientStoreError,
)
from davfusion.stores.streams import (
    COPY_BUFFER,
    InterruptEvent,
    ReadableStream,
    SourceStream,
    Upload,
    WriteOptions,
    seekable,
    transfer_options,
)

if TYPE_CHECKING:
    from davfusion.stores.feed import Feed

__all__ = [
    "ABSENT",
    "COPY_BUFFER",
    "UNDATED_DIRECTORY",
    "AlreadyExistsError",
    "ConflictError",
    "DateParseError",
    "Features",
    "InterruptEvent",
    "InterruptedException",
    "InvalidPathValueError",
    "Metadata",
    "NoSuchFilesytemObjectError",
    "PartialFailureError",
    "ReadableStream",
    "SourceStream",
    "Store",
    "StoreAccessError",
    "StoreAutorizationError",
    "StoreSpaceLimitError",
    "TransientStoreError",
    "Upload",
    "WriteOptions",
    "seekable",
]

ABSENT: Final = ""
"""As `if_etag`: write only if nothing is stored under that path."""


class Metadata(TypedDict):
    """What is known of a file or directory without reading it."""

    modified: float
    """UTC seconds since the epoch; 0 for a directory of a service that dates none."""
    stored: NotRequired[float]
    """UTC seconds when the service got this version, where it says that besides `modified`."""
    bytes: int
    """Size; 0 for a directory."""
    is_dir: bool
    etag: NotRequired[str]
    """Strong and unquoted; differs whenever the content differs."""
    content_type: NotRequired[str]


UNDATED_DIRECTORY: Final = Metadata(modified=0.0, bytes=0, is_dir=True)


@dataclass(frozen=True)
class Features:
    """What a store's service can do by itself: data to decide by, instead of the store's type."""

    server_side_copy: bool = False
    server_side_move: bool = False
    atomic_move: bool = False
    """Also of a directory with all below it, at once; else a copy that is deleted from later."""
    exclusive_transfer: bool = False
    """`replace=False` refuses what another has just made; False: it is looked for just before."""
    atomic_replace: bool = False
    conditional_write: bool = False
    """The service refuses a stale `if_etag`; False: compared just before the write."""
    ranged_read: bool = False
    change_feed: bool = False
    case_insensitive_names: bool = False
    hash_kinds: frozenset[str] = frozenset()
    """Digests of the content that the service gives or checks: `md5`, `sha256`, ..."""
    largest_object: int | None = None
    """Bytes; None: no limit known."""
    cheap_metadata: bool = False
    """A stat costs no more than looking it up in a cache would."""
    undated_directories: bool = False
    """All that a stat says of a directory is that it is one; so a listing says it too."""
    flat_listing: bool = False
    """A walk costs few calls, however many directories there are."""
    one_process: bool = False
    """What is stored is visible in this process alone."""
    modified_times: bool = False
    """A file keeps the time that a write gives it; else the service dates all by its own clock."""
    receives_first: bool = False
    """What is written is received whole first, so its source need not rewind."""
    writes_offline: bool = False
    """A write succeeds though the service cannot be asked what it has there."""
    writable: bool = True
    """False: it is there to be read, and every change is StoreAutorizationError."""


class Store:
    """Files and directories behind one service.

    Every method checks its paths first (paths.check_path) and raises InvalidPathValueError before
    any I/O. All methods may be called from several threads. Errors are those of stores.errors.
    """

    @property
    def features(self) -> Features:
        """What this store's service can do."""
        return Features()

    @property
    def validity(self) -> Validity | None:
        """How long answers may be given again without asking this store; None: not at all."""
        return None

    @property
    def asides(self) -> Asides:
        """Where a file is built that is to replace a directory here, or the other way round."""
        return UnnotedAsides()

    def note_asides(self, asides: Asides) -> None:
        """Note there what a crash would leave of what this store does."""

    def feed(self, position: str | None) -> "Feed | None":
        """What others change from `position` on (None: from now on); None without change_feed.

        Asks the service nothing yet.
        """
        del position
        return None

    def canonical_path(self, path: str) -> str:
        """The one spelling of `path` under which caches, locks and properties know it.

        Another than `path` only where the service takes several spellings for one path: that of
        what is stored there.
        """
        return paths.check_path(path)

    def location(self, path: str) -> str:
        """Where `path` lies, in the words of all stores that reach the same; makes no call."""
        return paths.under(f"{id(self):x}:", path)

    def require_storable(self, path: str) -> None:
        """InvalidPathValueError where the service takes nothing of that name; makes no call.

        For those who answer before the service is asked: who writes there is told the same.
        """
        paths.check_path(path)

    def get_metadata(self, path: str) -> Metadata:
        """Metadata of a file or directory; the root always exists.

        Raises NoSuchFilesytemObjectError.
        """
        raise _unsupported(self, "get_metadata")

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        """Name -> metadata of every child, in as few calls as the service allows.

        Raises NoSuchFilesytemObjectError, also when `directory` is a file.
        """
        raise _unsupported(self, "get_directory_metadata")

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """(path, metadata) of everything below `directory`.

        A directory comes before its members, and what is below it without others in between.
        """
        from davfusion.stores import walking  # noqa: PLC0415 - it imports this module

        return walking.depth_first(directory, self.get_directory_metadata)

    def get_directory_listing(self, directory: str) -> list[str]:
        """Absolute paths of the children, never `directory` itself."""
        return [paths.join(directory, name) for name in self.get_directory_metadata(directory)]

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        """A stream of `length` bytes (None: all the rest) from byte `offset`.

        It ends early where the file ends. With `etag`, raises ConflictError if the stored
        content is no longer that version. Raises NoSuchFilesytemObjectError, also for a
        directory.
        """
        raise _unsupported(self, "open_read")

    def get_file(self, path: str) -> bytes:
        """All the bytes; meant for small files."""
        with self.open_read(path) as stream:
            return stream.read()

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,
    ) -> Metadata:
        """Store all that `fileobject` still holds as the file `path`, and return its metadata.

        A reader sees the old bytes or the new ones. With `if_etag`, the write is done only over
        that version (ABSENT: only where nothing is), else ConflictError. Missing parent
        directories are made. Raises AlreadyExistsError where `path` is a directory,
        InterruptedException when `interrupt_event` gets set, StoreSpaceLimitError (status 413)
        for a file larger than get_max_filesize(); then nothing has been stored. An exception
        from `fileobject.read` passes through, and nothing has been stored either.
        """
        raise _unsupported(self, "store_fileobject")

    def store_file(
        self,
        path_to_file: str,
        dest_dir: str = paths.ROOT,
        remote_file_name: str | None = None,
        interrupt_event: InterruptEvent | None = None,
    ) -> Metadata:
        """Store a file of the local disk in `dest_dir`, under its own name if no other is given."""
        source = Path(path_to_file)
        target = paths.join(dest_dir, remote_file_name or source.name)
        with source.open("rb") as fileobject:
            return self.store_fileobject(fileobject, target, interrupt_event)

    def store_resumable(
        self, fileobject: BinaryIO, path: str, upload: Upload, **options: Unpack[WriteOptions]
    ) -> Metadata:
        """As store_fileobject, for a file that can seek; goes on where an earlier try ended.

        After a TransientStoreError or a crash, what has been sent stays with the service where it
        can keep it, for a call with the same `fileobject`, `path` and `upload`; abandon()
        removes it if there will be none.
        """
        upload.confirm()
        metadata = self.store_fileobject(fileobject, path, upload, **options)
        upload.sent(metadata["bytes"])
        return metadata

    def abandon(self, path: str, token: str | None, since: float) -> None:
        """Put right what an unfinished change of `path` has left with the service.

        `token` is the Upload's of a store_resumable, or what Asides.unfinished has been told;
        None: all uploads that were begun for that very path at `since` (UTC seconds) or later.
        Nothing left is no error.
        """
        paths.check_path(path)

    def delete(self, path: str, is_dir: bool = False) -> None:
        """Remove a file, or with `is_dir` a directory and all below it; missing is no error.

        Raises PartialFailureError when parts of a directory could not be removed.
        """
        raise _unsupported(self, "delete")

    def delete_many(self, files: Iterable[str]) -> None:
        """Remove many files, batched where the service can; missing is no error.

        Goes on past failures and then raises PartialFailureError.
        """
        failures: dict[str, StoreAccessError] = {}
        for path in files:
            try:
                self.delete(path)
            except StoreAccessError as error:
                failures[path] = error
        if failures:
            raise PartialFailureError(f"{len(failures)} files not deleted", failures=failures)

    def create_directory(self, directory: str) -> None:
        """Make an empty directory and its missing parents.

        Raises AlreadyExistsError if a file or directory of that name exists.
        """
        raise _unsupported(self, "create_directory")

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        """Copy a file or a directory with all below it; what was at the destination is replaced.

        The destination is removed only after the new content stands; without `replace`, raises
        AlreadyExistsError where anything is. A directory copy goes on past failures and then raises
        PartialFailureError, keyed by source path. By itself it streams through this machine.
        """
        from davfusion.stores import transfer  # noqa: PLC0415 - it imports this module

        transfer.copy_between(self, path_to_src, self, path_to_dest, replace=replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        """As duplicate, and the source is gone.

        If anything failed to be copied, all of the source stays: what had been moved already would
        be replaced by the rest if the move were made again. A file that has changed meanwhile stays
        too: ConflictError.
        """
        found = self.get_metadata(path_to_src)
        self.duplicate(path_to_src, path_to_dest, **transfer_options(replace=replace))
        with suppress(NoSuchFilesytemObjectError):
            if self.get_metadata(path_to_src).get("etag") != found.get("etag"):
                raise ConflictError(f"{path_to_src} was changed while it was moved")
        self.delete(path_to_src, found["is_dir"])

    def exists(self, path: str) -> bool:
        """Whether a file or directory is stored there."""
        try:
            self.get_metadata(path)
        except NoSuchFilesytemObjectError:
            return False
        return True

    def is_dir(self, path: str) -> bool:
        """Whether `path` is a directory; raises NoSuchFilesytemObjectError if it is nothing."""
        return self.get_metadata(path)["is_dir"]

    def get_bytes(self, path: str) -> int:
        """Size in bytes; 0 for a directory."""
        return self.get_metadata(path)["bytes"]

    def get_modified(self, path: str) -> float:
        """UTC seconds since the epoch."""
        return self.get_metadata(path)["modified"]

    def get_free_space(self) -> int | None:
        """Bytes; None where the service has no such notion. The same for the next two."""
        return None

    def get_used_space(self) -> int | None:
        """Bytes in use."""
        return None

    def get_overall_space(self) -> int | None:
        """Bytes in use and free."""
        return None

    def get_max_filesize(self) -> int | None:
        """The largest file in bytes; None: no limit known."""
        return self.features.largest_object

    def get_name(self) -> str:
        """A short name for people and logs; never a secret."""
        return type(self).__name__

    def account_info(self) -> str:
        """Whose account this is, for people."""
        return self.get_name()

    def get_logging_handler(self) -> logging.Logger:
        """The logger this store writes to."""
        return logging.getLogger(type(self).__module__)

    def check_access(self) -> None:
        """Return if the service answers these credentials; called once before serving.

        Raises an error that names the cause and the cure: wrong credentials, a missing bucket or
        folder, an address where nothing answers.
        """

    def warm_up(self, connections: int) -> bool:
        """Connect to the service before anybody waits for it; called once a process.

        Whether listing the root is worth while too: not where it would take many calls.
        """
        del connections
        return False

    def forget(self, path: str) -> None:
        """Drop what is cached of `path`, and answers under way: the next call asks the service."""
        paths.check_path(path)

    def reconnect(self) -> None:
        """Drop connections and make new ones on the next call."""

    def flush(self) -> None:
        """Return when everything stored so far has reached the service."""


def _unsupported(store: Store, method: str) -> StoreAccessError:
    return StoreAccessError(f"{store.get_name()} has no {method}", 501)
