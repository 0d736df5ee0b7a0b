"""S3Store: a bucket, or what lies below a prefix of it, on AWS or any other S3 server.

Files are plain objects under their own names; listing.py says what shows a directory. Requests
are named in the docstrings where their number matters.
"""

import mimetypes
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from davfusion.stores import paths
from davfusion.stores.s3.bucket import Bucket, Head, unquoted
from davfusion.stores.s3.client import Checksums, ClientSettings, Connection
from davfusion.stores.s3.copy import Copier
from davfusion.stores.s3.listing import FOLDER_SUFFIX, Keys, Oddities, Walk, children, directory
from davfusion.stores.s3.quirks import Conditions
from davfusion.stores.s3.read import open_range
from davfusion.stores.s3.source import opened
from davfusion.stores.s3.tree import Failures, TreeCopy, raise_failures
from davfusion.stores.s3.upload import MAX_PART, MAX_PARTS, MIB, Uploader
from davfusion.stores.store import (
    AlreadyExistsError,
    Features,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    StoreAccessError,
    StoreAutorizationError,
)
from davfusion.stores.transfer import require_apart

MTIME: Final = "mtime"
"""User metadata with the modification time in seconds, as rclone and s3fs write and read it."""
UNKNOWN_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True)
class _Found:
    """What two requests say of a path."""

    head: Head | None
    is_folder: bool


class S3Store(Store):
    """The objects of `bucket` whose keys begin with `prefix`, as files and directories.

    Credentials, region, profile and endpoint come from where every AWS tool takes them unless
    they are given. Sizes are in bytes: from `multipart_threshold` on a file is sent in parts of
    `part_size` (at least 5 MiB), above `copy_limit` it is copied in parts.
    """

    def __init__(  # noqa: PLR0913 - the settings of an S3 service
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        path_style: bool | None = None,
        checksums: Checksums = "md5",
        multipart_threshold: int = 16 * MIB,
        part_size: int = 8 * MIB,
        copy_limit: int = MAX_PART,
        clock: Callable[[], float] = time.time,
    ) -> None:
        prefix = prefix.strip("/")
        self._keys = Keys(f"{prefix}/" if prefix else "")
        self._name = f"s3://{bucket}/{prefix}".rstrip("/")
        self._clock = clock
        self._hash_kinds = frozenset({"md5" if checksums == "md5" else "crc32"})
        self._connection = Connection(
            ClientSettings(endpoint_url, region, profile, path_style, checksums)
        )
        self._bucket = Bucket(bucket, self._connection)
        self._conditions = Conditions(self._bucket, self._keys.prefix)
        self._uploader = Uploader(
            self._bucket, self._conditions, checksums == "md5", multipart_threshold, part_size
        )
        self._copier = Copier(self._bucket, self._uploader, copy_limit)
        self._odd = Oddities()

    @property
    def features(self) -> Features:
        """What is known so far; conditional_write is True once the server has shown it."""
        return Features(
            server_side_copy=self._copier.server_side,
            server_side_move=self._copier.server_side,
            atomic_replace=True,
            conditional_write=self._conditions.are_heeded,
            ranged_read=True,
            hash_kinds=self._hash_kinds,
            largest_object=MAX_PARTS * MAX_PART,
        )

    def check_access(self) -> None:
        """One request that shows whether the share can be served at all.

        Raises StoreAutorizationError for bad or missing credentials, TransientStoreError for an
        endpoint that does not answer, StoreAccessError for a missing bucket, profile or region.
        """
        self._bucket.holds(self._keys.prefix)

    def probe_conditions(self) -> None:
        """Find out now whether the server heeds conditions; writes throw-away keys.

        The first conditional write of each kind does it otherwise.
        """
        self._conditions.probe()

    def get_metadata(self, path: str) -> Metadata:
        """As the contract says; HEAD and LIST at once, and one HEAD more if both find nothing."""
        if paths.check_path(path) == paths.ROOT:
            return directory()
        (found,) = self._look(path)
        if found.is_folder:
            return directory()
        if found.head is not None:
            return _file_metadata(found.head)
        self._require_folder_suffix(path)
        return directory()

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        """As the contract says; one LIST for each 1,000 members."""
        prefix = self._keys.folder(paths.check_path(directory))
        members = children(self._bucket.pages(prefix, delimiter="/"), prefix, self._odd)
        if members is None:
            self._require_folder_suffix(directory)
        return members or {}

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """As the contract says; one LIST for each 1,000 files, however many directories."""
        return self._walk(paths.check_path(directory))

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        """As the contract says; one GET."""
        if paths.check_path(path) == paths.ROOT:
            raise NoSuchFilesytemObjectError("the root is a directory")
        return open_range(self._bucket, self._keys.file(path), offset, length, etag)

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
        """As the contract says; one LIST, then one PUT or a multipart upload.

        The time is always stored beside the content, so it never changes afterwards.
        """
        paths.check_path(path)
        when = self._clock() if modified is None else modified
        kind = content_type or mimetypes.guess_type(paths.name(path))[0] or UNKNOWN_TYPE
        limit = MAX_PARTS * MAX_PART
        with opened(fileobject, interrupt_event, limit) as source:
            if path == paths.ROOT or self._bucket.shows(self._keys.folder(path)):
                raise AlreadyExistsError(f"{path} is a directory")
            fields = {"ContentType": kind, "Metadata": {MTIME: repr(float(when))}}
            etag = self._uploader.write(self._keys.file(path), source, fields, if_etag)
            return Metadata(
                modified=when, bytes=source.size, is_dir=False, etag=etag, content_type=kind
            )

    def delete(self, path: str, is_dir: bool = False) -> None:
        """As the contract says; a file's parent is looked at before and after.

        A directory costs a LIST and a DeleteObjects for each 1,000 keys, and four more requests.
        """
        self._require_no_root(path)
        with self._folders_kept([path]):
            failures = self._delete_directory(path) if is_dir else self._delete_files([path])
        raise_failures(failures, self._keys, "deleted")

    def delete_many(self, files: Iterable[str]) -> None:
        """As the contract says; one DeleteObjects for each 1,000 files, two LISTs a directory."""
        files = list(files)
        for path in files:
            self._require_no_root(path)
        with self._folders_kept(files):
            failures = self._delete_files(files)
        raise_failures(failures, self._keys, "deleted")

    def create_directory(self, directory: str) -> None:
        """As the contract says: stores an empty marker."""
        if self.exists(directory):
            raise AlreadyExistsError(f"{directory} exists")
        self._bucket.mark(self._keys.folder(directory))

    def duplicate(self, path_to_src: str, path_to_dest: str) -> None:
        """As the contract says; a file costs two HEADs, two LISTs and one CopyObject."""
        raise_failures(self._copy(path_to_src, path_to_dest), self._keys, "copied")

    def move(self, path_to_src: str, path_to_dest: str) -> None:
        """As the contract says; a file costs two HEADs, two LISTs, CopyObject and DeleteObject.

        Out of its directory it costs one LIST more, and a PUT if the directory is empty then.
        """
        failures = self._copy(path_to_src, path_to_dest, is_move=True)
        parent = paths.parent(path_to_src)
        if not paths.is_below(path_to_dest, parent):
            self._keep_folder(self._keys.folder(parent))
        raise_failures(failures, self._keys, "moved")

    def get_name(self) -> str:
        return self._name

    def reconnect(self) -> None:
        self._connection.reset()

    def _look(self, *looked_for: str) -> list[_Found]:
        """A HEAD and a LIST for each path, all at once."""
        submit = self._connection.pool.submit
        asked = [
            (
                submit(self._bucket.head, self._keys.file(path)),
                submit(self._bucket.shows, self._keys.folder(path)),
            )
            for path in looked_for
        ]
        return [_Found(head.result(), shows.result()) for head, shows in asked]

    def _require_folder_suffix(self, path: str) -> None:
        """Raise NoSuchFilesytemObjectError unless `name_$folder$` shows a directory."""
        if path != paths.ROOT and self._bucket.head(self._keys.file(path) + FOLDER_SUFFIX) is None:
            raise NoSuchFilesytemObjectError(self._bucket.address(self._keys.file(path)))

    def _walk(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        walk = Walk(self._keys, directory, self._odd)
        is_there = False
        for page in self._bucket.pages(self._keys.folder(directory)):
            is_there = is_there or bool(page)
            yield from walk.page(page)
        if not is_there and not self._bucket.shows(self._keys.folder(directory)):
            self._require_folder_suffix(directory)

    def _require_no_root(self, path: str) -> None:
        if paths.check_path(path) == paths.ROOT:
            raise StoreAutorizationError("the root cannot be replaced or removed")

    def _delete_files(self, files: Iterable[str]) -> Failures:
        return self._bucket.delete_all(map(self._keys.file, files))

    def _delete_directory(self, path: str) -> Failures:
        failures = self._bucket.delete_tree(self._keys.folder(path))
        return failures | self._delete_suffixed(path)

    def _delete_suffixed(self, path: str) -> Failures:
        """Remove `name_$folder$`, if it is there."""
        marker = self._keys.file(path) + FOLDER_SUFFIX
        return {} if self._bucket.head(marker) is None else self._bucket.delete_all([marker])

    @contextmanager
    def _folders_kept(self, deleted: Iterable[str]) -> Iterator[None]:
        """Directories that lose their last member inside stay, and missing ones are not made."""
        parents = {self._keys.folder(paths.parent(path)) for path in deleted} - {self._keys.prefix}
        pool = self._connection.pool
        there = zip(parents, pool.map(self._bucket.holds, parents), strict=True)
        existing = [folder for folder, is_there in there if is_there]
        yield
        for _ in pool.map(self._keep_folder, existing):
            pass

    def _keep_folder(self, folder: str) -> None:
        """Mark a directory that nothing else shows any more; the root needs no mark."""
        if folder == self._keys.prefix or self._bucket.holds(folder):
            return
        try:
            self._bucket.mark(folder)
        except StoreAccessError as error:
            # SeaweedFS refuses a marker beside a file of the same name; the file shows now.
            if error.status != 409:
                raise

    def _copy(self, src: str, dst: str, is_move: bool = False) -> Failures:
        self._require_no_root(src)
        self._require_no_root(dst)
        require_apart(src, dst)
        source, target = self._look(src, dst)
        if source.is_folder or source.head is None:
            if not source.is_folder:
                self._require_folder_suffix(src)
            return self._copy_tree(src, dst, target, is_move)
        key = self._keys.file(src)
        self._copier.copy(key, self._keys.file(dst), source.head["ContentLength"])
        failures = self._bucket.delete_tree(self._keys.folder(dst)) if target.is_folder else {}
        return failures | (self._bucket.delete_all([key]) if is_move else {})

    def _copy_tree(self, src: str, dst: str, target: _Found, is_move: bool) -> Failures:
        tree = TreeCopy(self._bucket, self._copier, self._keys.folder(src), self._keys.folder(dst))
        tree.run(None if target.head is None else self._keys.file(dst))
        if is_move:
            tree.delete_copied()
            if not tree.failures:
                tree.failures |= self._delete_suffixed(src)
        return tree.failures


def _file_metadata(head: Head) -> Metadata:
    return Metadata(
        modified=_modified(head),
        bytes=head["ContentLength"],
        is_dir=False,
        etag=unquoted(head.get("ETag")),
        content_type=head.get("ContentType", UNKNOWN_TYPE),
    )


def _modified(head: Head) -> float:
    """The time that the writer gave, or else that of the upload."""
    try:
        return float(head["Metadata"][MTIME])
    except (KeyError, ValueError):
        return float(head["LastModified"].timestamp())
