"""Backend: one fsspec filesystem, and what is said of its kind of service.

The methods here use fsspec's common interface; a service whose fsspec class does less than the
service could has a Backend of its own. Paths are those of the service. Errors are the backend's
own: Connections makes them the contract's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from davfusion.stores import paths
from davfusion.stores.fsspec.ranges import Ranges
from davfusion.stores.store import (
    ConflictError,
    Features,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    StoreAccessError,
)

_VERSIONS: Final = (
    *("generation", "ETag", "etag", "e_tag", "sha", "version_id", "md5Hash", "md5Checksum"),
    *("content_md5", "checksum"),
)
"""Where infos keep what differs between versions, the most exact first."""
_TIMES: Final = (
    *("mtime", "LastModified", "last_modified", "modified", "modifiedTime", "modified_at"),
    *("updated", "created"),
)

_PART: Final = 16 * 1024 * 1024
"""Bytes of a part of a file that is being written; services take 10,000 parts or more."""

OWN_INSTANCE: Final = {"skip_instance_cache": True}
"""For fsspec's classes, which else give one instance to all."""

Info = Mapping[str, Any]


class Backend:
    """A filesystem that replaces a file whole by putting it: an object store."""

    features: ClassVar[Features] = Features(
        server_side_copy=True, atomic_replace=True, ranged_read=True
    )
    renames: ClassVar[bool] = False
    """It has folders, and a rename replaces a file; a put may leave half of one."""
    uploads: ClassVar[bool] = False
    """As renames, but an upload replaces a file at once, and may be on a condition."""
    streams: ClassVar[bool] = False
    """A file that is being written replaces the old one when it is closed, and not before."""
    removes_trees: ClassVar[bool] = False
    """remove() takes a folder with all below it, too."""
    shared: ClassVar[bool] = True
    """Threads may use one filesystem at the same time."""
    keeps_folders: ClassVar[bool] = False
    """A folder is there even if nothing is in it."""
    filesystem_class: ClassVar[type | None] = None
    """A better one than fsspec knows."""
    options: ClassVar[Mapping[str, Any]] = {**OWN_INSTANCE, "use_listings_cache": False}
    """What the filesystem is made with, unless the user says otherwise."""
    also_given: ClassVar[tuple[Callable[..., Any], ...]] = ()
    """What takes options that the filesystem's class does not name."""
    serialized: AbstractContextManager[object] = nullcontext()
    """Entered for each use: for a filesystem that is safe in one thread at a time only."""

    def __init__(self, filesystem: Any) -> None:
        self.filesystem = filesystem

    @classmethod
    def why_refused(cls, name: str) -> str | None:  # noqa: ARG003 - most take all names
        """What is wrong with a name, as it follows "a name"; None where the service takes it."""
        return None

    def close(self) -> None:
        """Drop the connection, if there is one."""

    def stat(self, path: str) -> Metadata:
        """Metadata of what is stored there."""
        return self._metadata(self.filesystem.info(path))

    def listing(self, directory: str) -> dict[str, Metadata]:
        """Name -> metadata of all members that a path can name."""
        infos = self.filesystem.ls(directory, detail=True)
        own = directory.rstrip("/")
        if not infos:
            self.stat(directory)  # raises if there is none
        if any(info["name"] == own and info["type"] == "file" for info in infos):
            raise NoSuchFilesytemObjectError(f"{directory} is a file")
        found = {paths.name(_name_of(i)): i for i in infos if _name_of(i) != own}
        return {
            name: self._metadata(info)
            for name, info in found.items()
            if paths.is_valid_name(name) and info["type"] in ("file", "directory")
        }

    def entries(self, directory: str) -> dict[str, bool]:
        """Name -> whether it is a folder, for all that must go before the folder can."""
        return {name: found["is_dir"] for name, found in self.listing(directory).items()}

    def open(self, path: str, offset: int, length: int | None, etag: str | None) -> ReadableStream:
        """A stream of one version; ConflictError when it is, or becomes, another than `etag`."""
        return Ranges(self, path, offset, length, etag)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start` to before `end`, which lie within the file."""
        return bytes(self.filesystem.cat_file(path, start=start, end=end))

    def put(self, local_file: str, path: str, modified: float | None) -> None:
        """Store a local file."""
        del modified
        self.filesystem.put_file(local_file, path)

    @contextmanager
    def replaced(self, path: str) -> Iterator[Any]:
        """A file to write, which replaces what is at `path` if the block ends well: see `streams`.

        What has been sent for it is retried by its library.
        """
        file = self.filesystem.open(path, "wb", block_size=_PART)
        try:
            yield file
            file.close()
        except BaseException:
            with suppress(Exception):
                file.discard()
            file.closed = True  # or it would be stored when its memory is freed
            raise

    def write(self, path: str, blocks: Iterable[bytes]) -> None:
        """Write a file, in place."""
        with self.filesystem.open(path, "wb") as file:
            for block in blocks:
                file.write(block)

    def set_modified(self, path: str, when: float) -> None:
        """Date a file; where the service cannot, nothing happens."""

    def copy(self, src: str, dst: str) -> None:
        """Copy a file on the server."""
        self.filesystem.cp_file(src, dst)

    def rename(self, src: str, dst: str) -> None:
        """Rename a file or folder; a file at `dst` is replaced."""
        self.filesystem.mv(src, dst)

    def make_directory(self, path: str) -> None:
        """Make a folder below one that exists."""
        self.filesystem.mkdir(path, create_parents=False)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.filesystem.rm_file(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty folder: here, the object with a slash at its end that stands for one."""
        self.filesystem.rm_file(path + "/")

    def space(self) -> tuple[int | None, int | None]:
        """Bytes available and used; None where the service has no such notion."""
        return None, None

    def _metadata(self, info: Info) -> Metadata:
        if info["type"] == "directory":
            return Metadata(modified=self._modified(info), bytes=0, is_dir=True)
        if info["type"] != "file":
            raise NoSuchFilesytemObjectError(f"{info['name']} is neither file nor folder")
        modified, size = self._modified(info), int(info["size"] or 0)
        etag = self._version(info)
        if not (etag or modified):  # a size alone tells no versions apart
            raise StoreAccessError(f"neither version nor time is known of {info['name']}", 501)
        etag = etag or version_of(size, modified)
        return Metadata(modified=modified, bytes=size, is_dir=False, etag=etag)

    def _version(self, info: Info) -> str | None:
        found = next((info[key] for key in _VERSIONS if info.get(key)), None)
        return None if found is None else unquoted(str(found))

    def _modified(self, info: Info) -> float:
        return next((seconds(info[key]) for key in _TIMES if info.get(key)), 0.0)


class ReadBackend(Backend):
    """A service that fsspec's class does not write to; GithubFileSystem only deletes."""

    features: ClassVar[Features] = Features(ranged_read=True, writable=False)


class StreamingBackend(Backend):
    """S3 by s3fs and Google's cloud by gcsfs."""

    streams: ClassVar[bool] = True


class DriveBackend(ReadBackend):
    """Google Drive, where gdrive_fsspec (0.4.1) writes a second file of the name, and then fails.

    It goes through httplib2, whose connections must not be used by two threads at a time.
    """

    shared: ClassVar[bool] = False


def version_of(size: int, modified: float, identity: object = "") -> str:
    """An ETag where the service has none."""
    return f"{size:x}-{modified:.6f}-{identity}".rstrip("-")


def unquoted(etag: str) -> str:
    """`etag` as the contract spells it."""
    return etag.removeprefix("W/").strip('"').translate({ord('"'): "%22", ord("\\"): "%5C"})


def seconds(when: Any) -> float:
    """UTC seconds of a time as backends give it: a datetime, a number or ISO 8601 text."""
    if isinstance(when, datetime):
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if isinstance(when, str):
        return seconds(datetime.fromisoformat(when))
    return float(when)


def require_version(metadata: Metadata, path: str, etag: str | None) -> None:
    """Raise if `path` is no file, or not `etag`."""
    if metadata["is_dir"]:
        raise NoSuchFilesytemObjectError(f"{path} is a directory")
    if etag not in (None, metadata.get("etag")):
        raise ConflictError(f"{path} is no longer version {etag}")


def _name_of(info: Info) -> str:
    return str(info["name"]).rstrip("/")
